//! The training loop: steps, evaluations, the best weights, checkpoints, and the end.
//!
//! Everything that decides a step is a function of the settings and the step's number, or is part of the
//! saved state. A run that is stopped and resumed therefore does the same steps, bit for bit.

use super::begun::Begun;
use super::evaluate::{accuracy, accuracy_unless};
use super::learner::{Among, Learner, Lesson, Seen, Watch};
use super::log::{Log, UnderWay, in_step};
use super::metrics::Metrics;
use super::order::Order;
use super::progress::{Pace, Progress};
use super::schedule::Schedule;
use super::state::{self, Position};
use crate::Batch;
use crate::autograd::{Grads, Var};
use crate::data::TokenSet;
use crate::models::Taps;
use crate::ops::Backend;
use crate::ops::loss::Distillation;
use crate::ops::noise::Noise;
use crate::ops::rounded::Rounding;
use crate::ranks::Ranks;
use crate::{Error, Result};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

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
    pub ranks: &'a dyn Ranks,
    /// Who listens.
    pub progress: &'a dyn Progress,
    /// Set by a signal.
    pub stop: &'a AtomicBool,
}

impl Training<'_> {
    /// What a saved state must have been made from, by content hashes: the texts and the parent.
    fn origin(&self) -> [&str; 2] {
        [self.texts.content_hash(), &self.parent]
    }

    /// What the network is rounded to in step `step` (from 0).
    fn rounding_at(&self, step: u64) -> Option<&Rounding> {
        self.rounding.as_ref().filter(|(_, from)| step >= *from).map(|(rounding, _)| rounding)
    }
}

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
pub trait Companion<B: Backend> {
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
        seen: Seen<'_, B>,
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

    /// The numbers that [`Companion::restore`] needs.
    fn state(&self) -> Vec<f64>;

    /// The values of each parameter at an earlier point that it needs as well; empty for none.
    fn earlier(&self) -> &[Vec<f32>] {
        &[]
    }

    /// Goes on after `step` steps from a state, with the network as it was then.
    ///
    /// # Errors
    /// What is wrong with the state, if it is not one of this companion and this network.
    fn restore(
        &mut self,
        step: u64,
        state: &[f64],
        earlier: Vec<Vec<f32>>,
        learner: &Learner<B>,
    ) -> Result<(), String>;
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// Steps taken, over all resumptions.
    pub steps: u64,
    /// Best accuracy on the held-out texts, and the step after which it was measured.
    pub best: Option<(f64, u64)>,
}

/// Trains. On return the learner has the weights asked for; the state directory is left for whoever saves them
/// to remove ([`super::forget_state`]).
///
/// # Errors
/// [`Error::Diverged`], [`Error::Interrupted`] after a checkpoint, a full disk, and the device's.
pub fn train<B: Backend>(
    learner: &mut Learner<B>,
    training: &Training<'_>,
    mut companion: Option<&mut dyn Companion<B>>,
) -> Result<Trained> {
    let steps = training.schedule.steps;
    let mut order = Order::new(training.seed, training.rows.len(), training.batch);
    let mut position = Position::default();
    // The first says whether there is a state: another machine may see the same folder a moment later.
    let goes_on = training.ranks.from_first(|| Ok(training.resume && state::exists(&training.state)))?;
    if goes_on {
        let (found, extra) = state::load(&training.state, learner, training.origin())?;
        position = found;
        if let Some(companion) = &mut companion {
            companion
                .restore(position.step, &extra.numbers, extra.earlier, learner)
                .map_err(|problem| state::damaged(&training.state, &problem))?;
        }
        training.progress.message(&format!("{}: going on after step {}", training.stage, position.step));
    }
    let began = position.step;
    let ranks = training.ranks;
    let metrics = match ranks.is_first() {
        true => Metrics::open(&training.metrics, training.stage, position.step)?,
        false => Metrics::nowhere(training.stage),
    };
    let mut log = Log { progress: training.progress, pace: Pace::new(), metrics };
    // A step whose numbers are read when the next one has begun.
    let mut under_way = None;
    training.progress.begin(training.stage, steps);
    loop {
        let rounding = training.rounding_at(position.step);
        learner.params.round(rounding.cloned());
        if evaluates(training, &position, order.batches()) {
            log.finish(learner, under_way.take())?;
            let settled = companion.as_ref().is_none_or(|companion| companion.settled())
                && rounding == training.rounding.as_ref().map(|(rounding, _)| rounding);
            match evaluate(learner, training, settled, &mut position, &mut log.metrics) {
                // What was done until then is saved below.
                Err(Error::Interrupted { .. }) => {}
                other => other?,
            }
        }
        let stopping = stopping(training, position.step)?;
        let every = training.checkpoint_every;
        let due = every > 0 && position.step > began && position.step.is_multiple_of(every);
        if stopping || due || position.step >= steps || position.stopped_early {
            log.finish(learner, under_way.take())?;
        }
        if stopping || (due && position.step < steps) {
            log.metrics.flush()?;
            let numbers = companion.as_ref().map(|companion| companion.state()).unwrap_or_default();
            let earlier = companion.as_ref().map_or(&[][..], |companion| companion.earlier());
            let extra = (&numbers[..], earlier);
            ranks
                .only_first(|| state::save(&training.state, learner, &position, extra, training.origin()))?;
        }
        if stopping {
            training.progress.end();
            return Err(Error::Interrupted { checkpoint: Some(training.state.clone()) });
        }
        if position.step >= steps || position.stopped_early {
            break;
        }
        let places = order.batch(position.step);
        let schedule = &training.schedule;
        let rate = match &companion {
            None => schedule.rate(position.step),
            Some(companion) => companion.rate(position.step, schedule),
        };
        let number = position.step + 1;
        let next = begin(learner, training, places, position.step, &mut companion, rate);
        let (begun, among) = match next {
            Ok(begun) => begun,
            Err(error) => {
                log.finish(learner, under_way.take())?;
                return Err(in_step(number, error));
            }
        };
        let ahead = companion.is_none() && learner.backend.runs_ahead() && !ranks.are_several();
        let begun = if ahead { begun.call(&learner.backend)? } else { begun };
        position.step = number;
        let next = UnderWay { begun, among, step: number, rate, tokens: tokens(training, places) };
        log.finish(learner, under_way.replace(next))?;
        if !ahead {
            log.finish(learner, under_way.take())?;
        }
        let event = companion.as_mut().map(|companion| companion.after(position.step - 1, learner));
        if let Some(event) = event.transpose()?.flatten() {
            log.metrics.event(position.step, &event, learner)?;
        }
    }
    training.progress.end();
    log.metrics.flush()?;
    if training.keep_best && position.best.is_some_and(|(_, step)| step != position.step) {
        state::load_best(&training.state, learner, &position.best_sha256)?;
    }
    Ok(Trained { steps: position.step, best: position.best })
}

fn lesson(training: &Training<'_>, places: &[u32]) -> Lesson {
    let mut batch = Batch::new();
    let mut labels = Vec::with_capacity(places.len());
    let mut logits = Vec::new();
    for place in places {
        let text = training.rows.start + *place as usize;
        batch.push(training.texts.text(text), text as u64);
        labels.push(training.texts.label(text));
        if let Some((teacher, _)) = training.teacher {
            let classes = training.texts.labels().len();
            logits.extend_from_slice(&teacher[text * classes..(text + 1) * classes]);
        }
    }
    Lesson { batch, labels, teacher: training.teacher.map(|(_, how)| (logits, how)) }
}

/// Tokens of these texts.
fn tokens(training: &Training<'_>, places: &[u32]) -> usize {
    places.iter().map(|place| training.texts.tokens(training.rows.start + *place as usize).len()).sum()
}

/// Whether a signal has asked any of the ranks to stop, all of which have taken so many steps.
fn stopping(training: &Training<'_>, step: u64) -> Result<bool> {
    let mut sums = [f64::from(u8::from(training.stop.load(Ordering::Relaxed))), step as f64];
    training.ranks.sum_wide(&mut sums)?;
    let [asked, steps] = sums;
    if steps != training.ranks.size() as f64 * step as f64 {
        let problem =
            format!("rank {} has taken {step} steps, and others not as many", training.ranks.rank());
        let mend = "see that all machines have the same --out folder, and start all again with --resume";
        return Err(Error::Ranks { problem, mend: mend.into() });
    }
    Ok(asked > 0.0)
}

/// This rank's part of a batch.
fn part<'a>(training: &Training<'a>, places: &[u32]) -> (Lesson, Among<'a>) {
    let ranks = training.ranks;
    let own = &places[ranks.part(places.len())];
    let share = |own: usize, all: usize| if all == 0 { 0.0 } else { own as f64 / all as f64 };
    let texts = share(own.len(), places.len());
    let tokens = if texts == 1.0 { 1.0 } else { share(tokens(training, own), tokens(training, places)) };
    (lesson(training, own), Among { ranks, texts, tokens })
}

/// Begins step `step` (from 0), and says among whom.
fn begin<'a, B: Backend>(
    learner: &mut Learner<B>,
    training: &Training<'a>,
    places: &[u32],
    step: u64,
    companion: &mut Option<&mut dyn Companion<B>>,
    rate: f64,
) -> Result<(Begun<B>, Among<'a>)> {
    let noise = Some(Noise { seed: training.seed, step });
    if let Some(companion) = companion {
        companion.before(step, learner)?;
        if companion.watches(step) {
            let watch: &mut Watch<'_, B> =
                &mut |seen, batch, taps, grads| companion.watch(seen, batch, taps, grads);
            // What is watched is the whole batch: each rank computes all of it, and sees what the others see.
            let whole = lesson(training, places);
            return Ok((learner.begin(&whole, Among::ALONE, noise, rate, Some(watch))?, Among::ALONE));
        }
    }
    let (lesson, among) = part(training, places);
    Ok((learner.begin(&lesson, among, noise, rate, None)?, among))
}

/// Whether there is an evaluation due that has not been made.
fn evaluates(training: &Training<'_>, position: &Position, epoch: u64) -> bool {
    let (step, every) = (position.step, training.evaluate_every);
    let due = step.is_multiple_of(if every > 0 { every } else { epoch }) || step == training.schedule.steps;
    !training.held_out.is_empty() && due && step > position.evaluated
}

/// The accuracy on the held-out texts, of which each rank runs a part.
fn held_out_accuracy<B: Backend>(learner: &Learner<B>, training: &Training<'_>) -> Result<f64> {
    let (rows, ranks) = (training.held_out.clone(), training.ranks);
    if !ranks.are_several() {
        return accuracy_unless(training.stop, learner, training.texts, rows);
    }
    let part = ranks.part(rows.len());
    let own = rows.start + part.start..rows.start + part.end;
    // A signal may have come to some ranks alone: they all stop after the next step.
    let mut right = [accuracy(learner, training.texts, own.clone())? * own.len() as f64];
    ranks.sum_wide(&mut right)?;
    Ok(right[0].round() / rows.len() as f64)
}

/// Evaluates on the held-out texts; keeps the weights if they are of a `settled` network and the best so far.
fn evaluate<B: Backend>(
    learner: &Learner<B>,
    training: &Training<'_>,
    settled: bool,
    position: &mut Position,
    metrics: &mut Metrics,
) -> Result<()> {
    let accuracy = held_out_accuracy(learner, training)?;
    position.evaluated = position.step;
    metrics.evaluation(position.step, accuracy)?;
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
