//! Which heads and feed-forward units matter, and which to delete under a budget.
//!
//! Scores are sums over texts and are streamed: memory does not grow with the texts that are looked at.

use super::expand::matrix;
use super::lowest::{fill, stay};
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
use serde::{Deserialize, Serialize};

/// What makes a head or a unit important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Importance {
    /// `|∂loss/∂gate|`, summed over texts ([`crate::ops::gate`]; Michel et al., 2019).
    #[default]
    Gradient,
    /// `(∂loss/∂gate)²`, summed over texts: the diagonal of the gates' empirical Fisher information `F`. Half of it is what
    /// the loss of a trained network gains without the part, to second order (Kwon et al., arXiv:2204.09656, equation 8).
    /// Of layers that share parameters the sum of theirs, as if their gates were apart.
    Fisher,
    /// Of heads: `½·1ᵀF1` over the heads of a layer that go together, with `F = Σ g·gᵀ` over texts of all of the layer's
    /// gates (its block of the block-diagonal Fisher, equation 9 there). Heads go one by one, each time the one that adds
    /// least to that sum: so of two heads that do the same, which add to each other, one stays.
    #[serde(rename = "block-fisher")]
    BlockFisher,
    /// The mean absolute attention of a head. A row of attention sums to one, so this is one over the text's
    /// length for every head: it ranks heads by rounding. Here for comparison only, because a published pipeline uses it, and
    /// only with `schedule = "once"`.
    Attention,
    /// The L2 norm of the weights: of a head its rows and columns of the four projections, of a unit its row in the first
    /// matrix and its column in the second.
    Norm,
    /// A number drawn from the seed: the control that any other choice must beat.
    Random,
}

impl Importance {
    /// Whether it is made of derivatives by gates.
    pub fn needs_gradients(self) -> bool {
        matches!(self, Importance::Gradient | Importance::Fisher | Importance::BlockFisher)
    }
}

/// Importance of each head and each unit, by layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// `[layers][heads]`.
    pub heads: Vec<Vec<f64>>,
    /// `[layers][intermediate]`.
    pub units: Vec<Vec<f64>>,
    /// For [`Importance::BlockFisher`] of heads, products of their gates' derivatives, summed over texts:
    /// `[layers][heads · heads]`; otherwise `[layers][0]`.
    pub products: Vec<Vec<f64>>,
    /// What [`Scores::add_gradients`] collects of heads and of units.
    measures: [Importance; 2],
}

impl Scores {
    /// All zero, to collect [`Importance::Gradient`].
    pub fn zeros(config: &ModelConfig) -> Scores {
        Scores::of(config, [Importance::Gradient; 2])
    }

    /// All zero, to collect one measure of heads and one of units.
    pub fn of(config: &ModelConfig, measures: [Importance; 2]) -> Scores {
        let pairs = |heads: usize| if measures[0] == Importance::BlockFisher { heads * heads } else { 0 };
        Scores {
            heads: config.layers.iter().map(|layer| vec![0.0; layer.heads.len()]).collect(),
            units: config.layers.iter().map(|layer| vec![0.0; layer.intermediate]).collect(),
            products: config.layers.iter().map(|layer| vec![0.0; pairs(layer.heads.len())]).collect(),
            measures,
        }
    }

    /// Adds what one batch says by the measures that are made of gradients, from a step that was watched. The step's
    /// loss is a mean over its texts, so its gradients are multiplied by their number: a text counts the same in a small
    /// batch as in a large one.
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
            for ((var, width, scores), measure) in groups.into_iter().zip(self.measures) {
                let collects = measure.needs_gradients() && !scores.is_empty();
                let Some(gradient) = grads.var(var.id()).filter(|_| collects) else { continue };
                let mut slopes = backend.gate_gradients(batch, var.tensor(), gradient, width)?;
                slopes.iter_mut().for_each(|slope| *slope *= batch.texts() as f64 / grads.scale());
                for of_text in slopes.chunks(scores.len()) {
                    if measure == Importance::Gradient {
                        scores.iter_mut().zip(of_text).for_each(|(score, slope)| *score += slope.abs());
                    } else {
                        scores.iter_mut().zip(of_text).for_each(|(score, slope)| *score += slope * slope);
                    }
                    if measure == Importance::BlockFisher {
                        let pairs = of_text.iter().flat_map(|a| of_text.iter().map(move |b| a * b));
                        self.products[i].iter_mut().zip(pairs).for_each(|(sum, product)| *sum += product);
                    }
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

    /// [`Importance::BlockFisher`] of heads: the place of each in the order in which they go, over the whole network. The
    /// order within a layer is the same whether its heads compete with those of other layers or not.
    pub fn order(&self) -> Vec<Vec<f64>> {
        let mut order: Vec<Vec<Option<f64>>> =
            self.heads.iter().map(|heads| vec![None; heads.len()]).collect();
        // What a head would add to the sum if it were the next to go.
        let diagonal = |products: &Vec<f64>, n: usize| (0..n).map(|i| 0.5 * products[i * n + i]).collect();
        let mut costs: Vec<Vec<f64>> = self
            .products
            .iter()
            .zip(&self.heads)
            .map(|(products, heads)| diagonal(products, heads.len()))
            .collect();
        for place in 0..order.iter().map(Vec::len).sum() {
            let left =
                (0..order.len()).flat_map(|layer| (0..order[layer].len()).map(move |head| (layer, head)));
            let left = left.filter(|&(layer, head)| order[layer][head].is_none());
            let next = left.min_by(|a, b| costs[a.0][a.1].total_cmp(&costs[b.0][b.1]));
            let (layer, head) = next.expect("as many places as heads");
            order[layer][head] = Some(place as f64);
            let heads = order[layer].len();
            let with = &self.products[layer][head * heads..][..heads];
            costs[layer].iter_mut().zip(with).for_each(|(cost, product)| *cost += product);
        }
        order.into_iter().map(|layer| layer.into_iter().flatten().collect()).collect()
    }

    /// Layers that share their parameters have their products added up in the first of them, which is then scored as one layer.
    pub(super) fn share_products(&mut self, config: &ModelConfig) {
        for layer in 0..self.products.len() {
            let (before, from) = self.products.split_at_mut(layer);
            // An owner comes before those that use its parameters.
            if let Some(owner) = before.get_mut(config.owner(layer)) {
                owner.iter_mut().zip(&from[0]).for_each(|(sum, product)| *sum += product);
            }
        }
    }

    /// Leaves the scores of layers that share their parameters in the first of them alone: what is measured on parameters is the
    /// same in each, and [`keep_within`] would add it up.
    pub(super) fn of_owners(mut self, config: &ModelConfig) -> Scores {
        for layer in (0..self.heads.len()).filter(|layer| config.owner(*layer) != *layer) {
            self.heads[layer].fill(0.0);
            self.units[layer].fill(0.0);
        }
        self
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

    /// Rows of `[heads, units, products]` as one list, for a checkpoint.
    pub fn flatten(&self) -> Vec<f64> {
        self.heads.iter().chain(&self.units).chain(&self.products).flatten().copied().collect()
    }

    /// These scores with the numbers of such a list; `None` if it is not as long as theirs.
    pub fn unflatten(mut self, flat: &[f64]) -> Option<Scores> {
        let lists = self.heads.iter_mut().chain(&mut self.units).chain(&mut self.products);
        fill(lists.flatten(), flat)?;
        Some(self)
    }
}

/// The places that stay when `delete` of all candidates go, the least important first; of equal ones the
/// earlier. With [`Scope::Each`] every layer loses the same fraction.
pub fn select(scores: &[Vec<f64>], delete: usize, scope: Scope) -> Vec<Vec<usize>> {
    let all: usize = scores.iter().map(Vec::len).sum();
    let stays = match scope {
        Scope::Global => stay(scores, delete),
        Scope::Each => {
            let fraction = delete as f64 / all.max(1) as f64;
            let of_one = |layer: &Vec<f64>| {
                let count = (fraction * layer.len() as f64).round() as usize;
                stay(std::slice::from_ref(layer), count).remove(0)
            };
            scores.iter().map(of_one).collect()
        }
    };
    let kept = |layer: &Vec<bool>| (0..layer.len()).filter(|&place| layer[place]).collect();
    stays.iter().map(kept).collect()
}

/// What stays so that `heads` and `units` of the *original* network's are gone, as fractions. Layers that share their parameters
/// lose the same ones, by the sum of their scores, and count as one.
pub fn keep_within(config: &ModelConfig, scores: &Scores, heads: (f64, Scope), units: (f64, Scope)) -> Keep {
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
        ..Keep::all(config)
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
