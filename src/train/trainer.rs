//! The training loop: steps, evaluations, the best weights, checkpoints, and the end.
//!
//! Everything that decides a step is a function of the settings and the step's number, or is part of the
//! saved state. A run that is stopped and resumed therefore does the same steps, bit for bit.

use super::callback::{Callback, NoCallback};
use super::learner::Learner;
use super::run::Run;
use super::training::{Training, TrainingOutcome};
use crate::Result;
use crate::ops::Backend;

/// Trains. On return the learner has the weights asked for; the state directory is left for whoever saves them
/// to remove ([`super::forget_state`]).
///
/// # Errors
/// [`Error::Diverged`](crate::Error::Diverged), [`Error::Interrupted`](crate::Error::Interrupted) after a checkpoint, a full disk, and the
/// device's.
pub fn train<B: Backend>(
    learner: &mut Learner<B>,
    training: &Training<'_>,
    callback: Option<&mut dyn Callback<B>>,
) -> Result<TrainingOutcome> {
    let mut nobody = NoCallback;
    let callback = match callback {
        Some(callback) => callback,
        None => &mut nobody,
    };
    let mut run = Run::resume(learner, training, callback)?;
    loop {
        run.evaluate(learner)?;
        if run.save(learner)? {
            return run.end(learner);
        }
        run.step(learner)?;
    }
}
