//! A word table as the product of a narrower table and a projection, and the product again.
//!
//! ```text
//! words [vocab, hidden] ─factor─► words [vocab, size], projection [hidden, size] and a bias of zeros ─training─► …
//!                       ◄─fold── the product; the bias goes to the positions
//! ```
//!
//! The factors are the best of their size ([`low_rank`](super::low_rank)); training goes on from there.

use super::low_rank::{factor, transposed};
use super::rebuild::rebuild;
use crate::Result;
use crate::models::{Classifier, ModelConfig};
use crate::nn::{Linear, ParamId};
use crate::ops::Backend;
use crate::train::Learner;
use std::collections::HashMap;

/// The largest size whose two factors, with the projection's bias, have fewer parameters than the table; 0 if none has.
pub fn most_useful(vocab: usize, hidden: usize) -> usize {
    (vocab * hidden).saturating_sub(hidden + 1) / (vocab + hidden)
}

/// Factors a learner's word table into rows of `size` and a projection. Everything else keeps its values, masks and
/// moments. Returns the share of the table's sum of squares that the factors have.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the table is factored already, or `size` is not below the network's width and its pieces.
pub fn factorize<B: Backend>(learner: &mut Learner<B>, size: usize) -> Result<f64> {
    let Learner { backend, model, params, .. } = &*learner;
    let config = &model.config;
    assert!(config.embedding_size.is_none(), "a table is factored once");
    assert!((1..config.hidden.min(config.vocab)).contains(&size), "a narrower table");
    let words = params.value(model.embeddings.words).download(backend)?;
    let factors = factor(&words, config.vocab, config.hidden, size);
    let (factored, _) = Classifier::new(&ModelConfig { embedding_size: Some(size), ..config.clone() });
    let projection = projection_of(&factored);
    let mut values: HashMap<ParamId, Vec<f32>> = HashMap::from([
        (factored.embeddings.words, factors.left.clone()),
        (projection.weight, transposed(&factors.right, size, config.hidden)),
        (projection.bias.expect("a projection has one"), vec![0.0; config.hidden]),
    ]);
    let config = factored.config;
    rebuild(learner, &config, |id, _| values.remove(&id))?;
    Ok(factors.energy(size))
}

/// The same network with its word table whole: its configuration and its parameters' values, row-major, in the order in
/// which it declares them, from those of the factored one. What is whole stays as it is.
///
/// # Panics
/// If there are more or fewer values than the network declares.
pub fn fold(config: &ModelConfig, mut values: Vec<Vec<f32>>) -> (ModelConfig, Vec<Vec<f32>>) {
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

fn projection_of(model: &Classifier) -> &Linear {
    model.embeddings.projection.as_ref().expect("a factored table has a projection")
}

/// `a·b`, summed in f64.
pub(super) fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
}
