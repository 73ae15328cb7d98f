//! How much of a network goes.

use super::blocks::{BlockBudget, LayerMatrices};
use super::importance::{Importance, Scores};
use super::magnitude::Scope;
use crate::models::ModelConfig;

/// How much of each part goes, and by which measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Fraction of the original heads.
    pub heads: f64,
    /// What makes a head important.
    pub head_importance: Importance,
    /// Over what heads compete.
    pub head_scope: Scope,
    /// Fraction of the original feed-forward units.
    pub units: f64,
    /// What makes a unit important.
    pub unit_importance: Importance,
    /// Over what units compete.
    pub unit_scope: Scope,
    /// Fraction of the remaining weights of these matrices that are masked.
    pub weights: f64,
    /// The matrices that lose single weights.
    pub weight_matrices: LayerMatrices,
    /// Fraction of the head's weights that are masked.
    pub classifier: f64,
    /// Over what weights compete.
    pub weight_scope: Scope,
    /// Blocks of the encoder's matrices that are masked.
    pub blocks: BlockBudget,
}

impl Budget {
    /// Nothing goes.
    pub const NONE: Budget = Budget {
        heads: 0.0,
        head_importance: Importance::Gradient,
        head_scope: Scope::Global,
        units: 0.0,
        unit_importance: Importance::Gradient,
        unit_scope: Scope::Global,
        weights: 0.0,
        weight_matrices: LayerMatrices::FeedForward,
        classifier: 0.0,
        weight_scope: Scope::Global,
        blocks: BlockBudget::NONE,
    };

    /// The budget after `done` of `events` events, where `grown` makes an amount of the final one and of progress.
    pub(super) fn at(&self, done: usize, events: usize, grown: fn(f64, f64) -> f64) -> Budget {
        let fraction = |done: usize, all: usize| if all == 0 { 1.0 } else { done as f64 / all as f64 };
        let (first, all) = (self.deletions(events), fraction(done, events));
        let deleted = fraction(done.min(first), first);
        let masked = if first == events { all } else { fraction(done.saturating_sub(first), events - first) };
        Budget {
            heads: grown(self.heads, deleted),
            units: grown(self.units, deleted),
            weights: grown(self.weights, all),
            classifier: grown(self.classifier, all),
            blocks: BlockBudget { fraction: grown(self.blocks.fraction, masked), ..self.blocks },
            ..*self
        }
    }

    /// How many of the first events delete heads and units. Blocks come after them: a deletion moves rows and
    /// columns, and masks would not be of whole blocks any more.
    pub(super) fn deletions(&self, events: usize) -> usize {
        match (self.heads > 0.0 || self.units > 0.0, self.blocks.fraction > 0.0) {
            (true, true) => events.div_ceil(2),
            (false, true) => 0,
            (_, false) => events,
        }
    }

    /// Whether scores from gradients are needed.
    pub fn needs_gradients(&self) -> bool {
        (self.heads > 0.0 && self.head_importance.needs_gradients())
            || (self.units > 0.0 && self.unit_importance.needs_gradients())
    }

    /// Scores of nothing yet, to collect what the budget needs.
    pub fn no_scores(&self, config: &ModelConfig) -> Scores {
        Scores::of(config, [self.head_importance, self.unit_importance])
    }
}
