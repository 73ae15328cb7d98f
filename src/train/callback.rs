//! What changes a network while it trains.

use super::learner::{Learner, LearnerView};
use super::schedule::Schedule;
use crate::autograd::{Grads, Var};
use crate::models::Taps;
use crate::ops::Backend;
use crate::{Batch, Result};

/// A change of the network while it trains, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number, from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
    /// What was set back to an earlier point of the training, if anything was.
    pub rewound: Option<&'static str>,
}

/// What changes a network while it trains: gradual pruning.
pub trait Callback<B: Backend> {
    /// Looks at the network before step `step` (from 0).
    ///
    /// # Errors
    /// The device's.
    fn before(&mut self, _step: u64, _learner: &Learner<B>) -> Result<()> {
        Ok(())
    }

    /// The learning rate of step `step` (from 0) of a training with this schedule.
    fn rate(&self, step: u64, schedule: &Schedule) -> f64 {
        schedule.rate(step)
    }

    /// Whether step `step` (from 0) is to be watched.
    fn watches(&self, step: u64) -> bool;

    /// Looks at a step that is watched.
    ///
    /// # Errors
    /// The device's.
    fn watch(
        &mut self,
        seen: LearnerView<'_, B>,
        batch: &Batch,
        taps: &Taps<Var<B>>,
        grads: &Grads<B>,
    ) -> Result<()>;

    /// May change the network after step `step` (from 0); says what it did.
    ///
    /// # Errors
    /// The device's.
    fn after(&mut self, step: u64, learner: &mut Learner<B>) -> Result<Option<Event>>;

    /// Whether it has changed the network for the last time. Until then no evaluation is the best, since it is
    /// not of the network that was asked for, and the training does not end early.
    fn settled(&self) -> bool;

    /// Whether the next step may be launched before the loss and the norm of this one have been read.
    fn runs_ahead(&self) -> bool {
        false
    }

    /// What [`Callback::restore`] needs.
    fn saved(&self) -> CallbackState;

    /// Goes on after `step` steps from what was saved then, with the network as it was.
    ///
    /// # Errors
    /// What is wrong with it, if it is not of this callback and this network.
    fn restore(&mut self, step: u64, saved: CallbackState, learner: &Learner<B>) -> Result<(), String>;
}

/// What a callback has in a saved state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallbackState {
    /// Its numbers: there may be one for each block of weights.
    pub numbers: Vec<f64>,
    /// The values of each parameter at an earlier point, or nothing.
    pub earlier: Vec<Vec<f32>>,
}

/// The callback of a training that has none.
pub(super) struct NoCallback;

impl<B: Backend> Callback<B> for NoCallback {
    fn watches(&self, _: u64) -> bool {
        false
    }

    fn watch(&mut self, _: LearnerView<'_, B>, _: &Batch, _: &Taps<Var<B>>, _: &Grads<B>) -> Result<()> {
        Ok(())
    }

    fn after(&mut self, _: u64, _: &mut Learner<B>) -> Result<Option<Event>> {
        Ok(None)
    }

    fn settled(&self) -> bool {
        true
    }

    fn runs_ahead(&self) -> bool {
        true
    }

    fn saved(&self) -> CallbackState {
        CallbackState::default()
    }

    fn restore(&mut self, _: u64, _: CallbackState, _: &Learner<B>) -> Result<(), String> {
        Ok(())
    }
}
