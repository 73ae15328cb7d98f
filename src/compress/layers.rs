//! Deleting whole layers: a smaller student that starts from chosen layers of the network it is to learn from.
//!
//! ```text
//! gradient   Σ over texts of |Σ (y - x)·∂loss/∂y|      x, y: the layer's input and output, for the text's tokens
//! ```
//!
//! That is how the loss would change, to first order, if the layer handed on its input: as the score of a head
//! (Michel, Levy and Neubig, arXiv:1905.10650), for the gate `x + ξ·(y - x)` at `ξ = 1`. What depth is needed for is
//! learnt anew by distillation, so where the layers of the student come from matters less than that they are those
//! of one network (Sanh et al., arXiv:1910.01108; Sajjad et al., arXiv:2004.03844).
//!
//! Layers that stay keep their order, move up, and remember where they stood (`ModelConfig::deleted_layers`).

use super::rebuild::{Origin, rebuild};
use crate::Result;
use crate::autograd::{Grads, Tape, Var};
use crate::models::parts::Kind;
use crate::models::{Classifier, ModelConfig, Rows};
use crate::nn::ParamId;
use crate::ops::Backend;
use crate::tensor::Tensor;
use crate::train::{Examples, Learner};
use limbeck_kernels::random::mix;
use serde::{Deserialize, Serialize};

/// What makes a layer important: which whole layers go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerImportance {
    /// How the loss would change, to first order, if it handed on its input: mean of |Σ (output - input)·∂loss/∂output| over
    /// texts.
    #[default]
    Gradient,
    /// Its place: those that stay are evenly spaced, the last among them (as DistilBERT takes every second of BERT's).
    Uniform,
    /// Its place: the last go first.
    Last,
    /// A number drawn from the seed: the control.
    Random,
}

impl LayerImportance {
    /// The `keep` layers that stay, ascending; `scores`, one for each layer, are those of
    /// [`LayerImportance::Gradient`].
    pub fn select(self, scores: &[f64], keep: usize, seed: u64) -> Vec<usize> {
        let layers = scores.len();
        let best = |score: &dyn Fn(usize) -> f64| {
            let mut order: Vec<usize> = (0..layers).collect();
            // Of equal ones the later goes.
            order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
            order.truncate(keep);
            order.sort_unstable();
            order
        };
        match self {
            LayerImportance::Gradient => best(&|layer| scores[layer]),
            LayerImportance::Uniform => (1..=keep).map(|place| place * layers / keep - 1).collect(),
            LayerImportance::Last => (0..keep).collect(),
            LayerImportance::Random => best(&|layer| mix(mix(seed) ^ layer as u64) as f64),
        }
    }
}

/// Adds one batch's [`LayerImportance::Gradient`] scores to `scores`, one for each layer.
///
/// # Errors
/// The device's.
pub fn layer_gradients<B: Backend>(
    learner: &Learner<B>,
    examples: &Examples,
    scores: &mut [f64],
) -> Result<()> {
    let (backend, batch) = (&learner.backend, &examples.batch);
    let mut tape = Tape::recording(backend, &learner.params, batch, None);
    let (output, taps) = learner.model.forward_with_taps(&mut tape, Rows::Needed)?;
    let outputs: Vec<Var<B>> = taps.layers.into_iter().map(|layer| layer.hidden).collect();
    outputs.iter().for_each(|output| tape.retain(output));
    let scale = backend.loss_scale().unwrap_or(1.0);
    let (_, dy) = backend.loss(output.tensor(), &examples.labels, None, scale)?;
    let grads: Grads<B> = tape.backward([(output, dy)])?.scaled(scale);
    let mut input = taps.embedded;
    for (score, output) in scores.iter_mut().zip(outputs) {
        if let Some(gradient) = grads.var(output.id()) {
            let (rows, hidden) = (output.tensor().rows(), output.tensor().cols());
            let mut change = output.tensor().download(backend)?;
            let x = input.tensor().download(backend)?;
            for text in 0..batch.texts() {
                // The last layer has a row for the first token alone.
                let (from, to) = (batch.text(text), batch.rows_of(text, rows));
                let change = &mut change[to.start * hidden..to.end * hidden];
                change.iter_mut().zip(&x[from.start * hidden..]).for_each(|(y, x)| *y -= x);
            }
            let change = Tensor::upload(backend, &change, output.tensor().shape())?;
            let slopes = backend.gate_gradients(batch, &change, gradient, hidden)?;
            // The loss is a mean over the batch's texts: so a text counts the same in every batch.
            *score += batch.texts() as f64 / scale * slopes.iter().map(|slope| slope.abs()).sum::<f64>();
        }
        input = output;
    }
    Ok(())
}

/// Deletes all layers but those of `keep`, ascending indices among those there are now, from parameters, masks and
/// moments.
///
/// # Errors
/// The device's.
pub fn keep_layers<B: Backend>(learner: &mut Learner<B>, keep: &[usize]) -> Result<()> {
    if keep.len() == learner.model.layers.len() {
        return Ok(());
    }
    let smaller = config(&learner.model.config, keep);
    let sources = sources(&learner.model, &Classifier::new(&smaller).0, keep);
    rebuild(learner, &smaller, |id, _| Origin::From(sources[id.index()]))
}

/// The configuration of what stays.
fn config(config: &ModelConfig, keep: &[usize]) -> ModelConfig {
    let original = config.kept_layers();
    let stays = |layer: usize| keep.iter().any(|&kept| original[kept] == layer);
    // The first of a group that stays has its parameters from then on.
    let owner = |layer: &usize| keep.iter().position(|&other| config.owner(other) == config.owner(*layer));
    let shared = if config.shared.is_empty() { vec![] } else { keep.iter().filter_map(owner).collect() };
    let ranks = if config.ranks.is_empty() { &[] } else { keep };
    ModelConfig {
        layers: keep.iter().map(|&layer| config.layers[layer].clone()).collect(),
        deleted_layers: (0..config.original_layers()).filter(|&layer| !stays(layer)).collect(),
        ranks: ranks.iter().map(|&layer| config.ranks[layer]).collect(),
        shared,
        // The last that stays reads both sentences, whichever it was.
        decoupled: keep.iter().filter(|&&layer| layer < config.decoupled).count().min(keep.len() - 1),
        ..config.clone()
    }
}

/// The parameter of `model` that each of the smaller network's is, in the order of the latter's.
fn sources(model: &Classifier, smaller: &Classifier, keep: &[usize]) -> Vec<ParamId> {
    let there = model.parts();
    let mut pairs: Vec<(ParamId, ParamId)> = Vec::new();
    for part in smaller.parts() {
        let kind = match part.kind {
            Kind::Attention(layer) => Kind::Attention(model.config.owner(keep[layer])),
            Kind::FeedForward(layer) => Kind::FeedForward(model.config.owner(keep[layer])),
            other => other,
        };
        let from = there.iter().find(|part| part.kind == kind).expect("both have the parts that stay");
        pairs.extend(part.params.iter().copied().zip(from.params.iter().copied()));
    }
    pairs.sort_unstable();
    pairs.into_iter().map(|(_, from)| from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_importance_keeps_what_it_says() {
        let scores = [3.0, 0.5, 2.0, 2.0, 0.1, 9.0];
        let keep = |importance: LayerImportance, keep| importance.select(&scores, keep, 7);
        assert_eq!(keep(LayerImportance::Gradient, 3), [0, 2, 5]);
        assert_eq!(keep(LayerImportance::Uniform, 3), [1, 3, 5]);
        assert_eq!(keep(LayerImportance::Uniform, 4), [0, 2, 3, 5]);
        assert_eq!(keep(LayerImportance::Last, 2), [0, 1]);
        let random = keep(LayerImportance::Random, 4);
        assert!(random.is_sorted_by(|a, b| a < b) && random.len() == 4, "{random:?}");
        for importance in [LayerImportance::Gradient, LayerImportance::Uniform, LayerImportance::Last] {
            assert_eq!(keep(importance, 6), [0, 1, 2, 3, 4, 5]);
        }
    }
}
