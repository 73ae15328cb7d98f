//! What a long computation tells whoever waits for it.

use super::Terms;
use std::time::Instant;

/// One optimizer step, as progress shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Counted from 1.
    pub step: u64,
    /// Its loss.
    pub loss: f64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Its terms of feature distillation.
    pub terms: Terms<Option<f64>>,
    /// Tokens a second since the stage began or was resumed.
    pub tokens_per_second: f64,
}

/// Shows, or logs, how far a stage is. Calls come from one thread, in the order begin, step or message, end.
pub trait Progress {
    /// A stage, or a part of one, begins, and will take so many steps; 0 = unknown.
    fn begin(&self, stage: &str, total_steps: u64);
    /// A training step is done.
    fn step(&self, report: StepReport);
    /// Some work without a loss is done: so many of the steps.
    fn advance(&self, steps: u64);
    /// Something worth a line: an evaluation, a pruning event, a saved checkpoint.
    fn message(&self, text: &str);
    /// What began last has ended.
    fn end(&self);
}

/// Shows nothing: for tests, and for `--quiet`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64) {}
    fn step(&self, _: StepReport) {}
    fn advance(&self, _: u64) {}
    fn message(&self, _: &str) {}
    fn end(&self) {}
}

/// Measures the speed of a training.
pub(crate) struct Throughput {
    began: Instant,
    tokens: u64,
}

impl Throughput {
    pub(crate) fn new() -> Throughput {
        Throughput { began: Instant::now(), tokens: 0 }
    }

    /// Tokens a second, with `tokens` more.
    pub(crate) fn add(&mut self, tokens: usize) -> f64 {
        self.tokens += tokens as u64;
        self.tokens as f64 / self.began.elapsed().as_secs_f64().max(1e-9)
    }
}
