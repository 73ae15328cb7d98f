//! What is told of a training's steps: to whoever shows progress, and to the metrics.

use super::examples::BatchShard;
use super::launched::LaunchedStep;
use super::learner::Learner;
use super::metrics::Metrics;
use super::progress::{Progress, StepReport, Throughput};
use crate::Result;
use crate::ops::Backend;

/// A step of a training that has begun, and what is told of it when it is finished.
pub(super) struct StepInFlight<'t, B: Backend> {
    pub(super) launched: LaunchedStep<B>,
    pub(super) among: BatchShard<'t>,
    /// Its number, from 1.
    pub(super) step: u64,
    pub(super) rate: f64,
    /// Of the texts of all processes.
    pub(super) tokens: usize,
}

/// What is told of steps.
pub(super) struct Log<'p> {
    pub(super) progress: &'p dyn Progress,
    pub(super) pace: Throughput,
    pub(super) metrics: Metrics,
}

impl Log<'_> {
    /// Waits for a step, if there is one, and tells of it.
    pub(super) fn finish<B: Backend>(
        &mut self,
        learner: &mut Learner<B>,
        in_flight: Option<StepInFlight<'_, B>>,
    ) -> Result<()> {
        let Some(StepInFlight { launched, among, step, rate, tokens }) = in_flight else { return Ok(()) };
        let done = learner.finish(launched, among, step)?;
        let tokens_per_second = self.pace.add(tokens);
        let (loss, terms) = (done.loss, done.terms);
        let report = StepReport { step, loss, learning_rate: rate, terms, tokens_per_second };
        self.progress.step(report);
        self.metrics.step(step, &done, rate, tokens)
    }
}
