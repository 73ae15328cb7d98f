//! Which heads and feed-forward units matter, and which to delete under a budget.
//!
//! Scores are sums over texts and are streamed: memory does not grow with the texts that are looked at.

use super::expand::matrix;
use super::magnitude::Scope;
use super::structure::Keep;
use crate::Batch;
use crate::Result;
use crate::autograd::{Grads, Var};
use crate::models::{Classifier, ModelConfig, Taps};
use crate::nn::{Layer, Linear};
use crate::ops::Backend;
use crate::params::ParamStore;
use limbeck_kernels::random::mix;

/// What makes a head or a unit important.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// `|∂loss/∂gate|`, summed over texts ([`crate::ops::gate`]).
    Gradient,
    /// The mean absolute attention of a head. A row of attention sums to one, so this is one over the text's
    /// length for every head: it says nothing, and is here because a published pipeline uses it.
    Attention,
    /// The norm of the weights.
    Norm,
    /// A number drawn from the seed: the control.
    Random,
}

/// Importance of each head and each unit, by layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// `[layers][heads]`.
    pub heads: Vec<Vec<f64>>,
    /// `[layers][intermediate]`.
    pub units: Vec<Vec<f64>>,
}

impl Scores {
    /// All zero.
    pub fn zeros(config: &ModelConfig) -> Scores {
        Scores {
            heads: config.layers.iter().map(|layer| vec![0.0; layer.heads.len()]).collect(),
            units: config.layers.iter().map(|layer| vec![0.0; layer.intermediate]).collect(),
        }
    }

    /// Adds one batch's [`Importance::Gradient`] scores, from a step that was watched. The step's loss is a mean
    /// over its texts, so its gradients are multiplied by their number: a text counts the same in a small batch
    /// as in a large one.
    ///
    /// # Errors
    /// The device's.
    pub fn add_gradients<B: Backend>(
        &mut self,
        backend: &B,
        model: &Classifier,
        batch: &Batch,
        taps: &Taps<Var<B>>,
        grads: &Grads<B>,
    ) -> Result<()> {
        for (i, taps) in taps.layers.iter().enumerate() {
            let size = model.layers[i].attention.attend.head_size;
            let groups =
                [(&taps.context, size, &mut self.heads[i]), (&taps.intermediate, 1, &mut self.units[i])];
            for (var, width, scores) in groups {
                if let Some(gradient) = grads.var(var.id()) {
                    let mut of_batch = vec![0.0; scores.len()];
                    backend.gate_scores(batch, var.tensor(), gradient, width, &mut of_batch)?;
                    let texts = batch.texts() as f64;
                    scores.iter_mut().zip(of_batch).for_each(|(score, more)| *score += texts * more);
                }
            }
        }
        Ok(())
    }

    /// [`Importance::Norm`]: for a head the norm of its rows of query, key and value and its columns of the
    /// output; for a unit the norm of its row times that of its column.
    ///
    /// # Errors
    /// The device's.
    pub fn norms<B: Backend>(backend: &B, model: &Classifier, params: &ParamStore<B>) -> Result<Scores> {
        let squares = |linear: &Linear, by_row: bool| -> Result<Vec<f64>> {
            let values = matrix(linear, |id| params.value(id).download(backend))?;
            let cols = linear.down.map_or(linear.inputs, |down| down.inputs);
            let mut sums = vec![0.0; if by_row { linear.outputs } else { cols }];
            for (i, value) in values.iter().enumerate() {
                sums[if by_row { i / cols } else { i % cols }] += f64::from(*value).powi(2);
            }
            Ok(sums)
        };
        let mut scores = Scores::zeros(&model.config);
        for (i, layer) in model.layers.iter().enumerate() {
            let Layer { attention, expand, contract, .. } = layer;
            let mut by_column = squares(&attention.output, false)?;
            for linear in [&attention.query, &attention.key, &attention.value] {
                by_column.iter_mut().zip(squares(linear, true)?).for_each(|(sum, part)| *sum += part);
            }
            let heads = by_column.chunks(attention.attend.head_size);
            scores.heads[i] = heads.map(|head| head.iter().sum::<f64>().sqrt()).collect();
            let (rows, columns) = (squares(expand, true)?, squares(contract, false)?);
            scores.units[i] =
                rows.into_iter().zip(columns).map(|(row, column)| (row * column).sqrt()).collect();
        }
        Ok(scores)
    }

    /// Adds other scores: those of units, and with `heads` those of heads too.
    pub fn add(&mut self, other: &Scores, heads: bool) {
        let pairs = self.units.iter_mut().zip(&other.units);
        let pairs = pairs.chain(self.heads.iter_mut().zip(&other.heads).filter(|_| heads));
        for (score, more) in pairs.flat_map(|(scores, others)| scores.iter_mut().zip(others)) {
            *score += more;
        }
    }

    /// [`Importance::Random`].
    pub fn random(config: &ModelConfig, seed: u64) -> Scores {
        let mut scores = Scores::zeros(config);
        for (kind, layers) in [&mut scores.heads, &mut scores.units].into_iter().enumerate() {
            for (i, score) in layers.iter_mut().flatten().enumerate() {
                *score = mix(mix(seed ^ kind as u64) ^ i as u64) as f64;
            }
        }
        scores
    }

    /// Rows of `[heads, units]` as one list, for a checkpoint.
    pub fn flatten(&self) -> Vec<f64> {
        self.heads.iter().chain(&self.units).flatten().copied().collect()
    }

    /// The reverse of [`Scores::flatten`]; `None` if the list is not of this configuration.
    pub fn unflatten(config: &ModelConfig, flat: &[f64]) -> Option<Scores> {
        let mut scores = Scores::zeros(config);
        let places: Vec<&mut f64> = scores.heads.iter_mut().chain(&mut scores.units).flatten().collect();
        if places.len() != flat.len() {
            return None;
        }
        places.into_iter().zip(flat).for_each(|(place, score)| *place = *score);
        Some(scores)
    }
}

/// The places that stay when `delete` of all candidates go, the least important first; of equal ones the
/// earlier. With [`Scope::Each`] every layer loses the same fraction.
pub fn select(scores: &[Vec<f64>], delete: usize, scope: Scope) -> Vec<Vec<usize>> {
    let all: usize = scores.iter().map(Vec::len).sum();
    let mut dropped: Vec<Vec<bool>> = scores.iter().map(|layer| vec![false; layer.len()]).collect();
    let mut drop_lowest = |layers: std::ops::Range<usize>, count: usize| {
        let places = layers.flat_map(|layer| (0..scores[layer].len()).map(move |place| (layer, place)));
        let mut places: Vec<(usize, usize)> = places.collect();
        places.sort_by(|a, b| scores[a.0][a.1].total_cmp(&scores[b.0][b.1]));
        places.iter().take(count).for_each(|&(layer, place)| dropped[layer][place] = true);
    };
    match scope {
        Scope::Global => drop_lowest(0..scores.len(), delete),
        Scope::Each => {
            let fraction = delete as f64 / all.max(1) as f64;
            for (layer, of_layer) in scores.iter().enumerate() {
                drop_lowest(layer..layer + 1, (fraction * of_layer.len() as f64).round() as usize);
            }
        }
    }
    let kept = |layer: &Vec<bool>| (0..layer.len()).filter(|&place| !layer[place]).collect();
    dropped.iter().map(kept).collect()
}

/// What stays so that `heads` and `units` of the *original* network's are gone, as fractions. Layers that share their parameters
/// lose the same ones, by the sum of their scores, and count as one.
pub fn budget(config: &ModelConfig, scores: &Scores, heads: (f64, Scope), units: (f64, Scope)) -> Keep {
    let own: Vec<usize> = config.own_layers().collect();
    let layers = own.len();
    let excess = |fraction: f64, original: usize, now: usize| {
        let target = (fraction * (layers * original) as f64).round() as usize;
        now.saturating_sub((layers * original).saturating_sub(target))
    };
    let heads_now = own.iter().map(|&layer| config.layers[layer].heads.len()).sum();
    let units_now = own.iter().map(|&layer| config.layers[layer].intermediate).sum();
    let group = |layer: usize| own.binary_search(&config.owner(layer)).expect("its own layer is one");
    let of_groups = |scores: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let mut sums: Vec<Vec<f64>> = own.iter().map(|&layer| vec![0.0; scores[layer].len()]).collect();
        for (layer, scores) in scores.iter().enumerate() {
            sums[group(layer)].iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
        }
        sums
    };
    let of_layers = |kept: Vec<Vec<usize>>| -> Vec<Vec<usize>> {
        (0..config.layers.len()).map(|layer| kept[group(layer)].clone()).collect()
    };
    let (head_scores, unit_scores) = (of_groups(&scores.heads), of_groups(&scores.units));
    let drop_heads = excess(heads.0, config.original_heads, heads_now);
    let drop_units = excess(units.0, config.original_intermediate, units_now);
    Keep {
        heads: of_layers(select(&head_scores, drop_heads, heads.1)),
        units: of_layers(select(&unit_scores, drop_units, units.1)),
        pieces: (0..config.vocab).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_global_budget_takes_the_lowest_and_a_layer_budget_the_lowest_of_each() {
        let scores = vec![vec![5.0, 1.0, 4.0, 2.0], vec![9.0, 8.0, 7.0, 6.0]];
        assert_eq!(select(&scores, 4, Scope::Global), [vec![], vec![0, 1, 2, 3]]);
        assert_eq!(select(&scores, 4, Scope::Each), [vec![0, 2], vec![0, 1]]);
        assert_eq!(select(&scores, 0, Scope::Global), [vec![0, 1, 2, 3], vec![0, 1, 2, 3]]);
    }
}
