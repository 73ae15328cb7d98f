//! A network expressed densely: factors multiplied, those of the word table too, whose bias goes to the positions, and each layer with
//! parameters of its own. It computes the same, but for the
//! rounding of the products, and is what programs read that know neither.

use super::embedding_factors::projection_of;
use super::low_rank::transposed;
use crate::models::{Classifier, ModelConfig};
use crate::nn::{Layer, Linear, ParamId};
use std::collections::HashMap;

/// The matrix that a layer's `up`, `[outputs, rank]`, and `down`, `[rank, inputs]`, stand for: `[outputs, inputs]`, summed in f64.
pub fn multiplied(up: &[f32], down: &[f32], rank: usize, inputs: usize) -> Vec<f32> {
    let columns = transposed(down, rank, inputs);
    let (width, rows) = (rank.max(1), up.chunks_exact(rank.max(1)));
    rows.flat_map(|row| columns.chunks_exact(width).map(|column| product(row, column))).collect()
}

/// The matrix of a linear layer, `[outputs, inputs]`, from the values of its parameters.
pub fn matrix<E>(
    linear: &Linear,
    mut values: impl FnMut(ParamId) -> Result<Vec<f32>, E>,
) -> Result<Vec<f32>, E> {
    let weight = values(linear.weight)?;
    match linear.down {
        None => Ok(weight),
        Some(down) => Ok(multiplied(&weight, &values(down.weight)?, linear.inputs, down.inputs)),
    }
}

/// The parameters of a layer's norms.
pub(super) fn norms(layer: &Layer) -> [ParamId; 4] {
    let (attention, output) = (&layer.attention_norm, &layer.output_norm);
    [attention.gamma, attention.beta, output.gamma, output.beta]
}

/// The same network with nothing factored, and nothing shared: its configuration and its parameters' values,
/// row-major, in the order in which it declares them, from those of the network of `config`.
///
/// # Panics
/// If there are more or fewer values than that network declares.
pub fn expand(config: &ModelConfig, values: Vec<Vec<f32>>) -> (ModelConfig, Vec<Vec<f32>>) {
    let (config, values) = whole_words(config, values);
    whole_layers(&config, values)
}

/// [`expand`] of the layers alone.
fn whole_layers(config: &ModelConfig, values: Vec<Vec<f32>>) -> (ModelConfig, Vec<Vec<f32>>) {
    if config.ranks.is_empty() && config.shared.is_empty() {
        return (config.clone(), values);
    }
    let (model, specs) = Classifier::new(config);
    assert!(values.len() == specs.len() && values.iter().zip(&specs).all(|(v, spec)| v.len() == spec.len()));
    let dense = ModelConfig { ranks: Vec::new(), shared: Vec::new(), ..config.clone() };
    let (whole, declared) = Classifier::new(&dense);
    let mut layers: HashMap<ParamId, Vec<f32>> = HashMap::new();
    let value = |id: ParamId| values[id.index()].clone();
    for (from, to) in model.layers.iter().zip(&whole.layers) {
        for (from, to) in from.linears().into_iter().zip(to.linears()) {
            let Ok(matrix) = matrix(from, |id| Ok::<_, std::convert::Infallible>(value(id)));
            layers.insert(to.weight, matrix);
            layers.extend(to.bias.zip(from.bias.map(value)));
        }
        layers.extend(norms(to).into_iter().zip(norms(from).map(value)));
    }
    let by_name: HashMap<&str, usize> = (0..).zip(&specs).map(|(i, spec)| (spec.name.as_str(), i)).collect();
    let expanded = (0..).map(ParamId).zip(&declared).map(|(id, spec)| {
        let of_layer = layers.remove(&id);
        of_layer.unwrap_or_else(|| values[by_name[spec.name.as_str()]].clone())
    });
    (dense, expanded.collect())
}

/// [`expand`] of the word table alone.
fn whole_words(config: &ModelConfig, mut values: Vec<Vec<f32>>) -> (ModelConfig, Vec<Vec<f32>>) {
    let Some(size) = config.embedding_size else { return (config.clone(), values) };
    let (model, specs) = Classifier::new(config);
    assert!(values.len() == specs.len() && values.iter().zip(&specs).all(|(v, spec)| v.len() == spec.len()));
    let projection = projection_of(&model);
    let bias = projection.bias.expect("a projection has one");
    let [weight, bias] = [projection.weight, bias].map(|id| std::mem::take(&mut values[id.index()]));
    let words = &mut values[model.embeddings.words.index()];
    *words =
        words.chunks_exact(size).flat_map(|row| weight.chunks_exact(size).map(|w| product(row, w))).collect();
    let positions = &mut values[model.embeddings.positions.index()];
    for row in positions.chunks_exact_mut(config.hidden) {
        row.iter_mut().zip(&bias).for_each(|(position, bias)| *position += bias);
    }
    let folded = ModelConfig { embedding_size: None, ..config.clone() };
    let mut by_name: HashMap<String, Vec<f32>> =
        specs.into_iter().map(|spec| spec.name).zip(values).collect();
    let declared = Classifier::new(&folded).1;
    let values =
        declared.iter().map(|spec| by_name.remove(&spec.name).expect("it has what the factored one has"));
    (folded, values.collect())
}

/// `a·b`, summed in f64.
fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
}
