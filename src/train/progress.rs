//! What a long computation tells whoever waits for it.

/// One step of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The loss of this step, where there is one.
    pub loss: Option<f64>,
    /// Tokens a second since the stage began or was resumed.
    pub tokens_per_second: f64,
    /// Seconds that are left at this speed.
    pub seconds_left: f64,
}

/// Listens to the stages of a run.
pub trait Progress {
    /// A stage begins, with `done` of its `steps` already behind it.
    fn begin(&self, stage: &str, steps: u64, done: u64);
    /// A step is done.
    fn step(&self, report: &StepReport);
    /// Something worth a line.
    fn message(&self, text: &str);
    /// The stage has ended.
    fn end(&self);
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64, _: u64) {}
    fn step(&self, _: &StepReport) {}
    fn message(&self, _: &str) {}
    fn end(&self) {}
}

/// Measures the speed of a stage.
pub(crate) struct Pace {
    began: std::time::Instant,
    first: u64,
    steps: u64,
    tokens: u64,
}

impl Pace {
    pub(crate) fn new(first: u64, steps: u64) -> Pace {
        Pace { began: std::time::Instant::now(), first, steps, tokens: 0 }
    }

    /// `step` steps are done, the last of them over `tokens` tokens.
    pub(crate) fn report(&mut self, step: u64, tokens: usize, loss: Option<f64>) -> StepReport {
        self.tokens += tokens as u64;
        let seconds = self.began.elapsed().as_secs_f64().max(1e-9);
        let per_step = seconds / (step - self.first).max(1) as f64;
        StepReport {
            step,
            steps: self.steps,
            loss,
            tokens_per_second: self.tokens as f64 / seconds,
            seconds_left: per_step * self.steps.saturating_sub(step) as f64,
        }
    }
}
