//! How much of a network goes, and its going.

use super::blocks::{self, BlockBudget, BlockScores, Gone};
use super::importance::{Importance, Scores, keep_within};
use super::magnitude::{self, Scope};
use super::rebuild::delete;
use super::structure::Deletion;
use crate::Result;
use crate::models::ModelConfig;
use crate::ops::Backend;
use crate::train::Learner;

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
    /// Fraction of the remaining feed-forward weights that are masked.
    pub weights: f64,
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

/// Prunes `learner` to `budget_now`: heads and units by gradient and attention scores `measured` before, blocks by
/// what was `watched` of them until now, some being `gone`; other kinds of scores are computed here. Moments of what stays
/// are kept.
/// Returns what was deleted, if anything was.
///
/// # Errors
/// The device's.
pub fn prune<B: Backend>(
    learner: &mut Learner<B>,
    budget_now: &Budget,
    measured: &Scores,
    (watched, gone): (Option<&BlockScores>, &Gone),
    seed: u64,
) -> Result<Option<Deletion>> {
    let config = &learner.model.config;
    let of_kind = |kind: Importance, learner: &Learner<B>| -> Result<Scores> {
        match kind {
            Importance::Gradient | Importance::Fisher | Importance::Attention => Ok(measured.clone()),
            Importance::BlockFisher => {
                let mut scores = measured.clone();
                scores.share_products(config);
                scores.heads = scores.order();
                Ok(scores.of_owners(config))
            }
            Importance::Norm => {
                Ok(Scores::norms(&learner.backend, &learner.model, &learner.params)?.of_owners(config))
            }
            Importance::Random => Ok(Scores::random(config, seed).of_owners(config)),
        }
    };
    let mut scores = of_kind(budget_now.head_importance, learner)?;
    scores.units = of_kind(budget_now.unit_importance, learner)?.units;
    let (heads, units) =
        ((budget_now.heads, budget_now.head_scope), (budget_now.units, budget_now.unit_scope));
    let deletion = delete(learner, &keep_within(&learner.model.config, &scores, heads, units))?;
    for (fraction, ids) in [
        (budget_now.weights, magnitude::feed_forward(&learner.model)),
        (budget_now.classifier, magnitude::head(&learner.model)),
    ] {
        if fraction > 0.0 {
            magnitude::mask(&learner.backend, &mut learner.params, &ids, fraction, budget_now.weight_scope)?;
        }
    }
    if budget_now.blocks.fraction > 0.0 {
        let Learner { backend, model, params, .. } = learner;
        blocks::mask(backend, model, params, &budget_now.blocks, watched, gone)?;
    }
    learner.optimizer.mask(&learner.backend, &learner.params)?;
    Ok(deletion)
}
