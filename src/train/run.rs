//! One training under way: where it is, and its next step.

use super::callback::Callback;
use super::examples::BatchShard;
use super::launched::LaunchedStep;
use super::learner::{Learner, Watch};
use super::log::{Log, StepInFlight};
use super::metrics::Metrics;
use super::order::Order;
use super::progress::Throughput;
use super::state::{self, Position};
use super::training::{Training, TrainingOutcome};
use crate::ops::Backend;
use crate::ops::dropout::DropoutSeed;
use crate::{Error, Result};
use std::sync::atomic::Ordering;

/// A training, and where it is.
pub(super) struct Run<'t, 'c, B: Backend> {
    pub(super) training: &'t Training<'t>,
    pub(super) position: Position,
    pub(super) log: Log<'t>,
    callback: &'c mut dyn Callback<B>,
    order: Order,
    /// A step whose numbers are read when the next one has begun.
    in_flight: Option<StepInFlight<'t, B>>,
    /// The step that this process went on from.
    began: u64,
}

impl<'t, 'c, B: Backend> Run<'t, 'c, B> {
    /// At its beginning, or where a saved state was left.
    ///
    /// # Errors
    /// A state of something else; a log that cannot be written.
    pub(super) fn resume(
        learner: &mut Learner<B>,
        training: &'t Training<'t>,
        callback: &'c mut dyn Callback<B>,
    ) -> Result<Run<'t, 'c, B>> {
        let mut position = Position::default();
        // The first says whether there is a state: another machine may see the same folder a moment later.
        let goes_on = training.ranks.from_first(|| Ok(training.resume && state::exists(&training.state)))?;
        if goes_on {
            let (found, saved) = state::load(&training.state, learner, training.origin())?;
            position = found;
            callback
                .restore(position.step, saved, learner)
                .map_err(|problem| state::damaged(&training.state, &problem))?;
            training.progress.message(&format!("{}: going on after step {}", training.stage, position.step));
        }
        let metrics = match training.ranks.is_first() {
            true => Metrics::open(&training.metrics, training.stage, position.step)?,
            false => Metrics::nowhere(training.stage),
        };
        let log = Log { progress: training.progress, pace: Throughput::new(), metrics };
        let order = Order::new(training.seed, training.rows.len(), training.batch);
        let began = position.step;
        training.progress.begin(training.stage, training.schedule.steps);
        Ok(Run { training, position, log, callback, order, in_flight: None, began })
    }

    /// Whether the last step has been taken.
    fn is_over(&self) -> bool {
        self.position.step >= self.training.schedule.steps || self.position.stopped_early
    }

    /// Evaluates, if it is time to.
    ///
    /// # Errors
    /// The device's.
    pub(super) fn evaluate(&mut self, learner: &mut Learner<B>) -> Result<()> {
        let Training { held_out, evaluate_every, schedule, rounding, .. } = self.training;
        let in_force = self.training.rounding_at(self.position.step);
        learner.params.round(in_force.cloned());
        let step = self.position.step;
        let every = if *evaluate_every > 0 { *evaluate_every } else { self.order.batches() };
        let due = step.is_multiple_of(every) || step == schedule.steps;
        if held_out.is_empty() || !due || step <= self.position.evaluated {
            return Ok(());
        }
        self.catch_up(learner)?;
        let settled = self.callback.settled() && in_force == rounding.as_ref().map(|(rounding, _)| rounding);
        match self.judge(learner, settled) {
            // What was done until then is saved.
            Err(Error::Interrupted { .. }) => Ok(()),
            other => other,
        }
    }

    /// Saves the state, if it is time to; says whether all steps have been taken.
    ///
    /// # Errors
    /// [`Error::Interrupted`], the state being saved, if any rank was asked to stop; a full disk.
    pub(super) fn save(&mut self, learner: &mut Learner<B>) -> Result<bool> {
        let Training { ranks, state, checkpoint_every: every, .. } = self.training;
        let step = self.position.step;
        let stopping = self.stopping()?;
        let due = *every > 0 && step > self.began && step.is_multiple_of(*every);
        if stopping || due || self.is_over() {
            self.catch_up(learner)?;
        }
        if stopping || (due && step < self.training.schedule.steps) {
            self.log.metrics.flush()?;
            let (position, saved) = (&self.position, self.callback.saved());
            ranks.from_first(|| state::save(state, learner, position, &saved, self.training.origin()))?;
        }
        if stopping {
            self.training.progress.end();
            return Err(Error::Interrupted { checkpoint: Some(state.clone()) });
        }
        Ok(self.is_over())
    }

    /// Takes a step. Where the device goes on by itself, what it did is told one step later.
    ///
    /// # Errors
    /// [`Error::Diverged`]; the device's.
    pub(super) fn step(&mut self, learner: &mut Learner<B>) -> Result<()> {
        let step = self.position.step;
        let rate = self.callback.rate(step, &self.training.schedule);
        let places = self.order.batch(step).to_vec();
        let (launched, among) = match self.begin(learner, &places, rate) {
            Ok(launched) => launched,
            Err(error) => {
                // What was before it is told first.
                self.catch_up(learner)?;
                return Err(error);
            }
        };
        let ahead = self.callback.runs_ahead()
            && learner.backend.runs_ahead()
            && !self.training.ranks.is_distributed();
        let launched = if ahead { launched.call(&learner.backend)? } else { launched };
        self.position.step = step + 1;
        let next =
            StepInFlight { launched, among, step: step + 1, rate, tokens: self.training.tokens(&places) };
        let before = self.in_flight.replace(next);
        self.log.finish(learner, before)?;
        if !ahead {
            self.catch_up(learner)?;
        }
        if let Some(event) = self.callback.after(step, learner)? {
            self.log.metrics.event(step + 1, &event, learner)?;
        }
        Ok(())
    }

    /// Ends it, with the best weights where those are asked for.
    ///
    /// # Errors
    /// The best weights cannot be read; a full disk.
    pub(super) fn end(mut self, learner: &mut Learner<B>) -> Result<TrainingOutcome> {
        self.training.progress.end();
        self.log.metrics.flush()?;
        let Position { step, best, best_sha256, .. } = &self.position;
        if self.training.keep_best && best.is_some_and(|(_, at)| at != *step) {
            state::load_best(&self.training.state, learner, best_sha256)?;
        }
        Ok(TrainingOutcome { steps: *step, best: *best })
    }

    /// Waits for the step that is under way.
    fn catch_up(&mut self, learner: &mut Learner<B>) -> Result<()> {
        let before = self.in_flight.take();
        self.log.finish(learner, before)
    }

    /// Begins the next step, and says among whom.
    fn begin(
        &mut self,
        learner: &mut Learner<B>,
        places: &[u32],
        rate: f64,
    ) -> Result<(LaunchedStep<B>, BatchShard<'t>)> {
        let (training, step) = (self.training, self.position.step);
        let dropout_seed = Some(DropoutSeed { seed: training.seed, step });
        let callback = &mut *self.callback;
        callback.before(step, learner)?;
        if callback.watches(step) {
            let watch: &mut Watch<'_, B> =
                &mut |seen, batch, taps, grads| callback.watch(seen, batch, taps, grads);
            // What is watched is the whole batch: each rank computes all of it, and sees what the others see.
            let whole = training.examples(places);
            return Ok((
                learner.begin(&whole, BatchShard::ALONE, dropout_seed, rate, Some(watch))?,
                BatchShard::ALONE,
            ));
        }
        let (examples, among) = training.part(places);
        Ok((learner.begin(&examples, among, dropout_seed, rate, None)?, among))
    }

    /// Whether a signal has asked any of the ranks to stop, all of which have taken so many steps.
    fn stopping(&self) -> Result<bool> {
        let Training { ranks, stop, .. } = self.training;
        let step = self.position.step;
        let mut sums = [f64::from(u8::from(stop.load(Ordering::Relaxed))), step as f64];
        ranks.sum_f64(&mut sums)?;
        let [asked, steps] = sums;
        if steps != ranks.size() as f64 * step as f64 {
            let problem = format!("rank {} has taken {step} steps, and others not as many", ranks.rank());
            let mend = "see that all machines have the same --out folder, and start all again with --resume";
            return Err(Error::Ranks { problem, mend: mend.into() });
        }
        Ok(asked > 0.0)
    }

    /// Measures the accuracy on the held-out texts; keeps the weights if they are of a `settled` network and the best so far.
    fn judge(&mut self, learner: &Learner<B>, settled: bool) -> Result<()> {
        let Run { training, position, log, .. } = self;
        let accuracy = training.held_out_accuracy(learner)?;
        position.evaluated = position.step;
        log.metrics.evaluation(position.step, accuracy)?;
        training.progress.message(&format!(
            "{}: step {}, {:.2} % of the held-out texts",
            training.stage,
            position.step,
            100.0 * accuracy
        ));
        if !settled {
            return Ok(());
        }
        if position.best.is_none_or(|(best, _)| accuracy > best) {
            position.best = Some((accuracy, position.step));
            position.without_better = 0;
            if training.keep_best {
                position.best_sha256 =
                    training.ranks.from_first(|| state::save_best(&training.state, learner))?;
            }
        } else {
            position.without_better += 1;
            position.stopped_early = training.patience > 0 && position.without_better >= training.patience;
        }
        Ok(())
    }
}
