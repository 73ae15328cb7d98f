//! What is told of a training's steps: to whoever shows progress, and to the metrics.

use super::begun::Begun;
use super::learner::{Among, Learner};
use super::metrics::Metrics;
use super::progress::{Pace, Progress, StepReport};
use crate::Result;
use crate::ops::Backend;

/// A step of a training that has begun, and what is told of it when it is finished.
pub(super) struct UnderWay<'t, B: Backend> {
    pub(super) begun: Begun<B>,
    pub(super) among: Among<'t>,
    /// Its number, from 1.
    pub(super) step: u64,
    pub(super) rate: f64,
    /// Of the texts of all processes.
    pub(super) tokens: usize,
}

/// What is told of steps.
pub(super) struct Log<'p> {
    pub(super) progress: &'p dyn Progress,
    pub(super) pace: Pace,
    pub(super) metrics: Metrics,
}

impl Log<'_> {
    /// Waits for a step, if there is one, and tells of it.
    pub(super) fn finish<B: Backend>(
        &mut self,
        learner: &mut Learner<B>,
        under_way: Option<UnderWay<'_, B>>,
    ) -> Result<()> {
        let Some(UnderWay { begun, among, step, rate, tokens }) = under_way else { return Ok(()) };
        let done = learner.finish(begun, among, step)?;
        let tokens_per_second = self.pace.add(tokens);
        let (loss, terms) = (done.loss, done.terms);
        let report = StepReport { step, loss, learning_rate: rate, terms, tokens_per_second };
        self.progress.step(report);
        self.metrics.step(step, &done, rate, tokens)
    }
}
