//! A step that the device has been asked for, and whose numbers the host has not seen yet.
//!
//! Where a device runs by itself, the next step may be launched before a step's loss is read: the device then never waits for the
//! host. A step whose gradients are not finite changes nothing, so that it is early enough to learn of it one step later.

use super::learner::{BatchShard, Learner, Step};
use super::{FeatureTeacher, Terms};
use crate::autograd::Grads;
use crate::ops::Backend;
use crate::ops::loss::{LossOps, Losses};
use crate::ops::optimizer::AdamWOps;
use crate::{Error, Result};

/// What a step leaves on the device.
pub(super) struct LaunchedStep<B: Backend> {
    pub(super) pending: Option<<B as LossOps>::Pending>,
    pub(super) terms: Terms<Option<f64>>,
    /// None where the next step may have taken their memory by now.
    pub(super) grads: Option<Grads<B>>,
    pub(super) norm: <B as AdamWOps>::Norm,
}

impl<B: Backend> LaunchedStep<B> {
    /// Starts copying the numbers to the host, behind this step and before whatever follows it.
    pub(super) fn call(mut self, backend: &B) -> Result<LaunchedStep<B>> {
        self.pending.as_mut().map_or(Ok(()), |pending| backend.start_losses_readback(pending))?;
        backend.start_norm_readback(&mut self.norm)?;
        Ok(LaunchedStep { grads: None, ..self })
    }
}

impl<B: Backend> Learner<B> {
    /// Waits for a step, and says what it did. Its number, from 1, is for errors.
    ///
    /// # Errors
    /// As [`Learner::step_sharded`].
    pub(super) fn finish(
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
