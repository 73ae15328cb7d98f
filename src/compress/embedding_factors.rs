//! A word table as the product of a narrower table and a projection.
//!
//! ```text
//! words [vocab, hidden] ─factor─► words [vocab, size], projection [hidden, size] and a bias of zeros ─training─► …
//! ```
//!
//! The factors are the best of their size ([`low_rank`](super::low_rank)); training goes on from there. [`expand`](super::expand) is
//! the way back.

use super::low_rank::{factor, transposed};
use super::rebuild::{Origin, rebuild};
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
    rebuild(learner, &config, |id, _| Origin::given_or_named(values.remove(&id)))?;
    Ok(factors.energy(size))
}

/// What makes a factored table's rows as wide as the network.
pub(super) fn projection_of(model: &Classifier) -> &Linear {
    model.embeddings.projection.as_ref().expect("a factored table has a projection")
}
