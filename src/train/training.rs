//! What a training is made of, and how it ended.

use super::evaluate::{accuracy, accuracy_unless};
use super::examples::{BatchShard, Examples};
use super::learner::Learner;
use super::progress::Progress;
use super::schedule::Schedule;
use crate::data::TokenSet;
use crate::ops::Backend;
use crate::ops::loss::Distillation;
use crate::ops::rounded::Rounding;
use crate::ranks::ProcessGroup;
use crate::{Batch, Result};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// What one training is made of, apart from the network.
pub struct Training<'a> {
    /// Its name in progress and metrics.
    pub stage: &'a str,
    /// Texts.
    pub texts: &'a TokenSet,
    /// The content hash of the weights that the learner has before its first step; empty if they were drawn.
    pub parent: String,
    /// Those of `texts` to learn from.
    pub rows: Range<usize>,
    /// Those of `texts` that choose the best weights; may be empty.
    pub held_out: Range<usize>,
    /// The teacher's logits, `[texts, classes]` from text 0 on, and how to learn from them.
    pub teacher: Option<(&'a [f32], Distillation)>,
    /// What the network is to be rounded to in the end, and the step (from 0) from which on it learns that way. Earlier
    /// weights are never the best.
    pub rounding: Option<(Rounding, u64)>,
    /// Texts in a step.
    pub batch: usize,
    /// The learning rate, and how many steps there are.
    pub schedule: Schedule,
    /// Evaluate after so many steps; 0 for the end of each epoch.
    pub evaluate_every: u64,
    /// Save the state after so many steps; 0 for only when stopped.
    pub checkpoint_every: u64,
    /// Stop after so many evaluations without a better one; 0 for never.
    pub patience: u64,
    /// End with the weights of the best evaluation rather than the last.
    pub keep_best: bool,
    /// Keys the order of the texts and the dropout.
    pub seed: u64,
    /// Where the state is saved.
    pub state: PathBuf,
    /// Where each step is logged, one JSON object a line.
    pub metrics: PathBuf,
    /// Whether to go on from a saved state, if there is one.
    pub resume: bool,
    /// The processes that train together; the first writes.
    pub ranks: &'a dyn ProcessGroup,
    /// Who listens.
    pub progress: &'a dyn Progress,
    /// Set by a signal.
    pub stop: &'a AtomicBool,
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingOutcome {
    /// Steps taken, over all resumptions.
    pub steps: u64,
    /// Best accuracy on the held-out texts, and the step after which it was measured.
    pub best: Option<(f64, u64)>,
}

impl<'a> Training<'a> {
    /// What a saved state must have been made from, by content hashes: the texts and the parent.
    pub(super) fn origin(&self) -> [&str; 2] {
        [self.texts.content_hash(), &self.parent]
    }

    /// What the network is rounded to in step `step` (from 0).
    pub(super) fn rounding_at(&self, step: u64) -> Option<&Rounding> {
        self.rounding.as_ref().filter(|(_, from)| step >= *from).map(|(rounding, _)| rounding)
    }

    /// The texts at these places of the rows to learn from, and what to learn from them.
    pub(super) fn examples(&self, places: &[u32]) -> Examples {
        let mut batch = Batch::new();
        let mut labels = Vec::with_capacity(places.len());
        let mut logits = Vec::new();
        for place in places {
            let text = self.rows.start + *place as usize;
            batch.push(self.texts.text(text), text as u64);
            labels.push(self.texts.label(text));
            if let Some((teacher, _)) = self.teacher {
                let classes = self.texts.labels().len();
                logits.extend_from_slice(&teacher[text * classes..(text + 1) * classes]);
            }
        }
        Examples { batch, labels, teacher: self.teacher.map(|(_, how)| (logits, how)) }
    }

    /// Tokens of these texts.
    pub(super) fn tokens(&self, places: &[u32]) -> usize {
        places.iter().map(|place| self.texts.tokens(self.rows.start + *place as usize).len()).sum()
    }

    /// This rank's part of a batch.
    pub(super) fn part(&self, places: &[u32]) -> (Examples, BatchShard<'a>) {
        let ranks = self.ranks;
        let own = &places[ranks.part(places.len())];
        let share = |own: usize, all: usize| if all == 0 { 0.0 } else { own as f64 / all as f64 };
        let texts = share(own.len(), places.len());
        let tokens = if texts == 1.0 { 1.0 } else { share(self.tokens(own), self.tokens(places)) };
        (self.examples(own), BatchShard { ranks, texts, tokens })
    }

    /// The accuracy on the held-out texts, of which each rank runs a part.
    pub(super) fn held_out_accuracy<B: Backend>(&self, learner: &Learner<B>) -> Result<f64> {
        let (rows, ranks) = (self.held_out.clone(), self.ranks);
        if !ranks.is_distributed() {
            return accuracy_unless(self.stop, learner, self.texts, rows);
        }
        let part = ranks.part(rows.len());
        let own = rows.start + part.start..rows.start + part.end;
        // A signal may have come to some ranks alone: they all stop after the next step.
        let mut right = [accuracy(learner, self.texts, own.clone())? * own.len() as f64];
        ranks.sum_f64(&mut right)?;
        Ok(right[0].round() / rows.len() as f64)
    }
}
