//! The end of a step: its numbers are read, and it is said whether training goes on.

use super::super::FeatureTeacher;
use super::super::examples::BatchShard;
use super::super::launched::LaunchedStep;
use super::{Learner, Step};
use crate::ops::Backend;
use crate::ops::loss::Losses;
use crate::{Error, Result};

impl<B: Backend> Learner<B> {
    /// Waits for a step, and says what it did. Its number, from 1, is for errors.
    ///
    /// # Errors
    /// As [`Learner::step_sharded`].
    pub(in crate::train) fn finish(
        &mut self,
        launched: LaunchedStep<B>,
        among: BatchShard<'_>,
        step: u64,
    ) -> Result<Step> {
        let LaunchedStep { pending, terms, grads, norm } = launched;
        let losses = pending.map(|pending| self.backend.losses(pending)).transpose()?;
        // A loss that is not finite has a gradient that is not, and that changes nothing.
        let gradient_norm = self.backend.norm(norm)?;
        let goes_on = self.optimizer.finished(gradient_norm);
        let (mut loss, terms) = among.all(losses, terms)?;
        if let Some(weights) = self.feature_teacher.as_ref().map(FeatureTeacher::weights) {
            loss.total += weights.weigh(&terms);
        }
        let mend = "lower the learning_rate, or raise the warmup".to_owned();
        let diverged = |blame: String| Error::Diverged { step, loss: loss.total as f32, blame, mend };
        if !loss.total.is_finite() {
            return Err(diverged(self.params.blame(&self.backend)?));
        }
        if !goes_on {
            let blame = match &grads {
                Some(grads) => {
                    let first = grads.first_not_finite(&self.backend)?;
                    let name = first.map_or("no parameter", |id| self.params.get(id).spec.name.as_str());
                    format!("the gradient of {name} is the first that is not finite")
                }
                None => format!("a gradient is not finite; {}", self.params.blame(&self.backend)?),
            };
            return Err(diverged(blame));
        }
        let Losses { total, cross_entropy, distillation } = loss;
        Ok(Step { loss: total, cross_entropy, distillation, terms, gradient_norm })
    }
}
