//! What a step learns from, and which part of it a process has.

use super::terms::Terms;
use crate::ops::loss::{Distillation, Losses};
use crate::ranks::{ProcessGroup, SingleProcess};
use crate::{Batch, Result};

/// A batch, and what is to be learned from it.
#[derive(Clone, Debug)]
pub struct Examples {
    /// The texts.
    pub batch: Batch,
    /// The class of each text.
    pub labels: Vec<usize>,
    /// The teacher's logits, `[texts, classes]`, and how to learn from them.
    pub teacher: Option<(Vec<f32>, Distillation)>,
}

/// A process among those that take a step together, and its part of their batch.
#[derive(Clone, Copy)]
pub struct BatchShard<'a> {
    /// The processes.
    pub ranks: &'a dyn ProcessGroup,
    /// This one's share of the texts of all, 0 to 1.
    pub texts: f64,
    /// Its share of their tokens.
    pub tokens: f64,
}

impl BatchShard<'static> {
    /// Alone, with all texts.
    pub const ALONE: BatchShard<'static> = BatchShard { ranks: &SingleProcess, texts: 1.0, tokens: 1.0 };
}

impl BatchShard<'_> {
    /// The share of something that has a row for each text or for each token of `batch`.
    pub(super) fn share(&self, batch: &Batch, rows: usize) -> f64 {
        if rows == batch.texts() { self.texts } else { self.tokens }
    }

    /// Losses of all ranks together: `own` are means over this one's texts, terms its shares.
    pub(super) fn all(
        &self,
        own: Option<Losses>,
        terms: Terms<Option<f64>>,
    ) -> Result<(Losses, Terms<Option<f64>>)> {
        let own = own.unwrap_or(Losses { total: 0.0, cross_entropy: 0.0, distillation: 0.0 });
        if !self.ranks.is_distributed() {
            return Ok((own, terms));
        }
        let Terms { hidden, cosine, attention, relations } = terms;
        let mut sums: Vec<f64> =
            [own.total, own.cross_entropy, own.distillation].map(|loss| self.texts * loss).to_vec();
        let terms = [hidden, cosine, attention, relations];
        sums.extend(terms.iter().flat_map(|term| [term.unwrap_or(0.0), f64::from(u8::from(term.is_some()))]));
        self.ranks.sum_f64(&mut sums)?;
        let (losses, terms) = sums.split_at(3);
        let term = |i: usize| (terms[2 * i + 1] > 0.0).then_some(terms[2 * i]);
        let losses = Losses { total: losses[0], cross_entropy: losses[1], distillation: losses[2] };
        Ok((losses, Terms { hidden: term(0), cosine: term(1), attention: term(2), relations: term(3) }))
    }
}
