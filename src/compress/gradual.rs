//! Pruning a network bit by bit while it trains, or in rounds.

use super::blocks::{BlockScores, EmptiedBlocks};
use super::budget::Budget;
use super::emptied::delete_emptied;
use super::importance::Scores;
use super::prune::prune;
use super::rounds::{Rewind, Rounds};
use super::schedule::{cubic, geometric};
use crate::autograd::{Grads, Var};
use crate::models::{ModelConfig, Taps};
use crate::ops::Backend;
use crate::train::{Callback, CallbackState, Event, Learner, LearnerView, Schedule};
use crate::{Batch, Result};

/// Prunes in several events while a training runs: after a fraction t of the events, `1 - (1 - t)³` of the budget
/// is gone. Where blocks are to be masked in a network that is to lose heads or units, the first half of the events
/// deletes and the second half masks, each by that formula. In [`Rounds`] it is theirs.
///
/// Gradient scores are collected from the training's own steps between events; the movement of blocks from all steps
/// since the last deletion. Heads and units that masks of blocks have emptied leave at once ([`delete_emptied`]).
pub struct Gradual {
    budget: Budget,
    /// Steps (from 0) after which there is an event.
    events: Vec<u64>,
    done: usize,
    scores: Scores,
    /// What steps say of blocks; `None` before the first that counts.
    watched: Option<BlockScores>,
    gone: EmptiedBlocks,
    rounds: Option<Rounds>,
    seed: u64,
}

impl Gradual {
    /// `events` events spread over the first three quarters of `steps`.
    pub fn new(budget: Budget, events: usize, steps: u64, config: &ModelConfig, seed: u64) -> Gradual {
        let span = (steps * 3 / 4).max(1);
        let place = |event: usize| (span * (event as u64 + 1) / events as u64).max(1) - 1;
        let events = (0..events).map(place).collect();
        let scores = budget.no_scores(config);
        Gradual {
            budget,
            events,
            done: 0,
            scores,
            watched: None,
            gone: EmptiedBlocks::default(),
            rounds: None,
            seed,
        }
    }

    /// An event at the end of each of these rounds but the last.
    pub fn in_rounds(budget: Budget, rounds: Rounds, config: &ModelConfig, seed: u64) -> Gradual {
        Gradual { events: rounds.events(), rounds: Some(rounds), ..Gradual::new(budget, 1, 0, config, seed) }
    }

    /// Deletes what masks of blocks have emptied. Where weights go back to earlier values that waits for the end: what a bias takes
    /// over is computed from weights, and would have to go back as well.
    fn leave_emptied<B: Backend>(&mut self, learner: &mut Learner<B>) -> Result<()> {
        let blocks = &self.budget.blocks;
        let goes_back = self.rounds.as_ref().is_some_and(|rounds| rounds.rewinds() == Rewind::Weights);
        if blocks.fraction == 0.0 || (goes_back && !self.over()) {
            return Ok(());
        }
        let before = blocks.shapes(&learner.model, &learner.params);
        let Some(deletion) = delete_emptied(learner, blocks.shape)? else { return Ok(()) };
        self.gone.add(blocks.shape, &before, &blocks.shapes(&learner.model, &learner.params));
        if let Some(watched) = &mut self.watched {
            watched.shrink(blocks, &deletion, &before);
        }
        if let Some(rounds) = &mut self.rounds {
            rounds.shrink(&deletion);
        }
        Ok(())
    }

    fn over(&self) -> bool {
        self.done >= self.events.len()
    }

    fn deleting(&self) -> bool {
        self.done < self.budget.deletions(self.events.len())
    }

    fn needs_gradients(&self) -> bool {
        self.deleting() && self.budget.needs_gradients()
    }

    fn watches_blocks(&self) -> bool {
        let blocks = &self.budget.blocks;
        !self.over() && !self.deleting() && blocks.fraction > 0.0 && blocks.importance.is_watched()
    }
}

impl<B: Backend> Callback<B> for Gradual {
    fn before(&mut self, step: u64, learner: &Learner<B>) -> Result<()> {
        self.rounds.as_mut().map_or(Ok(()), |rounds| rounds.remember(step, learner))
    }

    fn rate(&self, step: u64, schedule: &Schedule) -> f64 {
        self.rounds.as_ref().map_or_else(|| schedule.rate(step), |rounds| rounds.rate(step, schedule))
    }

    fn watches(&self, _: u64) -> bool {
        self.needs_gradients() || self.watches_blocks()
    }

    fn watch(
        &mut self,
        seen: LearnerView<'_, B>,
        batch: &Batch,
        taps: &Taps<Var<B>>,
        grads: &Grads<B>,
    ) -> Result<()> {
        let LearnerView { backend, model, params } = seen;
        if self.needs_gradients() {
            self.scores.add_gradients(backend, model, batch, taps, grads)?;
        }
        if self.watches_blocks() {
            let blocks = &self.budget.blocks;
            let watched = self.watched.get_or_insert_with(|| BlockScores::zeros(blocks, model, params));
            watched.add_step(blocks, backend, model, params, grads, batch.texts())?;
        }
        Ok(())
    }

    fn after(&mut self, step: u64, learner: &mut Learner<B>) -> Result<Option<Event>> {
        // With fewer steps than events, several fall on one step and are one.
        let due = self.events.iter().filter(|event| **event <= step).count();
        if due <= self.done {
            return Ok(None);
        }
        let masking = !self.deleting();
        self.done = due;
        let grown = if self.rounds.is_some() { geometric } else { cubic };
        let mut budget = self.budget.at(due, self.events.len(), grown);
        if masking {
            // Heads and units have gone, but for what rounding might leave to find.
            (budget.heads, budget.units) = (0.0, 0.0);
        }
        let of_blocks = (self.watched.as_ref(), &self.gone);
        let deletion = prune(learner, &budget, &self.scores, of_blocks, self.seed)?;
        if let Some(rounds) = &mut self.rounds {
            deletion.iter().for_each(|deletion| rounds.shrink(deletion));
            rounds.go_back(learner)?;
        }
        self.leave_emptied(learner)?;
        self.scores = self.budget.no_scores(&learner.model.config);
        if self.budget.blocks.importance.is_recent() {
            self.watched = None;
        }
        learner.assert_masks()?;
        let rewind = self.rounds.as_ref().map(Rounds::rewinds).filter(|rewind| *rewind != Rewind::None);
        Ok(Some(Event { number: due, of: self.events.len(), rewound: rewind.map(Rewind::name) }))
    }

    fn settled(&self) -> bool {
        self.over()
    }

    fn saved(&self) -> CallbackState {
        let mut state = vec![self.done as f64, self.gone.0.len() as f64];
        state.extend(self.gone.0.iter().map(|gone| *gone as f64));
        state.extend(self.scores.flatten());
        state.extend(self.watched.iter().flat_map(|watched| watched.0.iter().flatten()));
        let earlier = self.rounds.as_ref().map(|rounds| rounds.earlier().to_vec());
        CallbackState { numbers: state, earlier: earlier.unwrap_or_default() }
    }

    fn restore(&mut self, step: u64, saved: CallbackState, learner: &Learner<B>) -> Result<(), String> {
        let problem = || "it has no scores of this network's heads, units and blocks".to_owned();
        let Learner { model, params, .. } = learner;
        let (done, rest) = saved.numbers.split_first().ok_or_else(problem)?;
        let (count, rest) = rest.split_first().ok_or_else(problem)?;
        let (gone, scores) = rest.split_at_checked(*count as usize).ok_or_else(problem)?;
        if !gone.is_empty() && gone.len() != self.budget.blocks.all(model).len() {
            return Err(problem());
        }
        self.gone = EmptiedBlocks(gone.iter().map(|gone| *gone as usize).collect());
        let zeros = self.budget.no_scores(&model.config);
        let parts = zeros.flatten().len();
        let (parts, blocks) = scores.split_at_checked(parts).ok_or_else(problem)?;
        self.scores = zeros.unflatten(parts).ok_or_else(problem)?;
        self.done = *done as usize;
        self.watched = None;
        if !blocks.is_empty() {
            let zeros = BlockScores::zeros(&self.budget.blocks, model, params);
            self.watched = Some(zeros.unflatten(blocks).ok_or_else(problem)?);
        }
        let fits = match &mut self.rounds {
            None => saved.earlier.is_empty(),
            Some(rounds) => rounds.restore(step, saved.earlier, learner),
        };
        if fits { Ok(()) } else { Err("it has no earlier weights of this network".to_owned()) }
    }
}
