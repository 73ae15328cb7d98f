//! Iterative pruning: train, prune a part, go back, train again.
//!
//! ```text
//! steps    |-- round 0 --|-- round 1 --|-- round 2 --| ... |-- round n --|
//! events                 1             2             3     n
//! ```
//!
//! After k of n events `1 - (1 - target)^(k/n)` of the network is gone: each takes the same fraction of what is left. What
//! follows an event is one of three (Renda, Frankle and Carbin, arXiv:2003.02389):
//!
//! ```text
//! none     training goes on: one schedule of the learning rate over all steps
//! rate     each round has the whole schedule of its own, from the point that is gone back to
//! weights  the same, and what is left has the values again that it had at that point (Frankle et al., arXiv:1903.01611)
//! ```
//!
//! The point lies a fraction of round 0's steps after the beginning: at 0 it is the network that the stage was given.
//! With values that are from before, moments would not be theirs: the optimizer begins anew. The order of texts and the
//! dropout go on, so that a network does not see the same steps again.

use super::structure::Deletion;
use crate::Result;
use crate::nn::ParamId;
use crate::ops::Backend;
use crate::tensor::Tensor;
use crate::train::{AdamW, Learner, Schedule};
use serde::{Deserialize, Serialize};

/// What an event goes back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rewind {
    /// The weights of an earlier point, for what is left, and its learning rate: each round has the rates from there on
    /// (Frankle et al., 2019).
    #[default]
    Weights,
    /// Its learning rate alone, and the weights stay (Renda et al., 2020).
    Rate,
    /// Nothing: training goes on.
    None,
}

impl Rewind {
    /// As a recipe and the log call it.
    pub fn name(self) -> &'static str {
        match self {
            Rewind::None => "none",
            Rewind::Rate => "rate",
            Rewind::Weights => "weights",
        }
    }
}

/// The rounds of a training.
pub struct Rounds {
    /// The first step of each round, and the number of all steps: two more than events.
    bounds: Vec<u64>,
    rewind: Rewind,
    /// The fraction of a round that lies before the point.
    to: f64,
    /// The values of each parameter at the point, in the sizes that it has now; none before it.
    earlier: Vec<Vec<f32>>,
}

impl Rounds {
    /// Rounds of equal length before, between and after `events` events in `steps` steps. The point is a fraction `to`,
    /// less than 1, of a round.
    pub fn new(events: usize, steps: u64, rewind: Rewind, to: f64) -> Rounds {
        let rounds = events as u128 + 1;
        let bound = |round: u128| (u128::from(steps) * round / rounds) as u64;
        Rounds { bounds: (0..=rounds).map(bound).collect(), rewind, to, earlier: Vec::new() }
    }

    /// The steps (from 0) after which there is an event.
    pub fn events(&self) -> Vec<u64> {
        // With fewer steps than rounds, the first are empty.
        self.bounds[1..self.bounds.len() - 1].iter().map(|bound| bound.max(&1) - 1).collect()
    }

    /// What events go back to.
    pub fn rewinds(&self) -> Rewind {
        self.rewind
    }

    /// Steps before the point.
    fn point(&self) -> u64 {
        (self.to * (self.bounds[1] - self.bounds[0]) as f64) as u64
    }

    /// The learning rate of a step (from 0): what `whole` has there, or in each round what it would have if all steps
    /// were that round.
    pub fn rate(&self, step: u64, whole: &Schedule) -> f64 {
        if self.rewind == Rewind::None {
            return whole.rate(step);
        }
        let round = self.bounds.partition_point(|bound| *bound <= step).clamp(1, self.bounds.len() - 1) - 1;
        let (first, end) = (self.bounds[round], self.bounds[round + 1]);
        // Only round 0 has steps before the point.
        let left = if round == 0 { 1.0 } else { 1.0 - self.to };
        let steps = ((end - first) as f64 / left).round() as u64;
        let warmup = (whole.warmup as f64 / whole.steps.max(1) as f64 * steps as f64).round() as u64;
        Schedule { steps, warmup, ..*whole }.rate(steps - (end - first) + (step - first))
    }

    /// Remembers the network before step `step`, if that is the point.
    ///
    /// # Errors
    /// The device's.
    pub fn remember<B: Backend>(&mut self, step: u64, learner: &Learner<B>) -> Result<()> {
        if self.rewind == Rewind::Weights && step == self.point() && self.earlier.is_empty() {
            let values = learner.params.iter().map(|(_, param)| param.value().download(&learner.backend));
            self.earlier = values.collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// Shrinks what is remembered as the network shrank.
    pub fn shrink(&mut self, deletion: &Deletion) {
        for (i, values) in self.earlier.iter_mut().enumerate() {
            *values = deletion.apply(ParamId(i as u32), values);
        }
    }

    /// Gives what is left of the network the values again that it had at the point.
    ///
    /// # Errors
    /// The device's.
    pub fn go_back<B: Backend>(&self, learner: &mut Learner<B>) -> Result<()> {
        if self.rewind != Rewind::Weights {
            return Ok(());
        }
        let Learner { backend, params, optimizer, .. } = learner;
        for (i, values) in self.earlier.iter().enumerate() {
            let id = ParamId(i as u32);
            let mut tensor = Tensor::upload(backend, values, params.value(id).shape())?;
            let (value, mask) = params.value_mut(id);
            if let Some(mask) = mask {
                backend.mask(&mut tensor, mask)?;
            }
            *value = tensor;
        }
        *optimizer = AdamW::new(backend, params, optimizer.settings())?;
        Ok(())
    }

    /// What is remembered, for a checkpoint.
    pub fn earlier(&self) -> &[Vec<f32>] {
        &self.earlier
    }

    /// Goes on with what was remembered; `false` if it is not of this network, or of another point.
    pub fn restore<B: Backend>(&mut self, step: u64, earlier: Vec<Vec<f32>>, learner: &Learner<B>) -> bool {
        let lengths = learner.params.iter().map(|(_, param)| param.value().shape().len());
        let whole = self.rewind == Rewind::Weights && step > self.point();
        let fits = if whole { earlier.iter().map(Vec::len).eq(lengths) } else { earlier.is_empty() };
        self.earlier = earlier;
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_equal_and_events_are_at_their_ends() {
        let rounds = Rounds::new(3, 40, Rewind::Weights, 0.25);
        assert_eq!(rounds.events(), [9, 19, 29]);
        assert_eq!(rounds.point(), 2);
        assert_eq!(Rounds::new(4, 2, Rewind::None, 0.0).events(), [0, 0, 0, 0]);
        assert_eq!(Rounds::new(2, 3, Rewind::None, 0.0).events(), [0, 1]);
    }

    #[test]
    fn a_round_has_the_rates_behind_the_point() {
        let whole = Schedule { learning_rate: 1.0, warmup: 8, steps: 40 };
        let rates = |rewind, to| {
            let rounds = Rounds::new(3, 40, rewind, to);
            (0..40).map(|step| rounds.rate(step, &whole)).collect::<Vec<f64>>()
        };
        assert!(rates(Rewind::None, 0.0).iter().enumerate().all(|(i, rate)| *rate == whole.rate(i as u64)));
        // A fifth of each round is warm-up.
        let own = Schedule { learning_rate: 1.0, warmup: 2, steps: 10 };
        for rewind in [Rewind::Rate, Rewind::Weights] {
            let expected = (0..40).map(|step| own.rate(step % 10));
            assert!(rates(rewind, 0.0).into_iter().eq(expected));
        }
        // From half of a round on: rounds behind the first are the second half of one of twenty steps.
        let (found, half) = (rates(Rewind::Rate, 0.5), Schedule { learning_rate: 1.0, warmup: 4, steps: 20 });
        assert_eq!(found[..10], (0..10).map(|step| own.rate(step)).collect::<Vec<f64>>());
        for round in 1..4 {
            let expected: Vec<f64> = (10..20).map(|step| half.rate(step)).collect();
            assert_eq!(found[10 * round..10 * round + 10], expected);
        }
    }
}
