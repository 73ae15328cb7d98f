//! Mean absolute attention of each head, as one published pipeline scores heads.
//!
//! The rows of an attention matrix sum to one, so the mean over a text of `n` tokens is `1/n` for every head. Of a layer
//! that keeps sentences apart, each sentence is a text. The scores are computed all the same, from the probabilities, so that the recipe that asks for them gets what was
//! published.

use super::importance::Scores;
use crate::autograd::{Tape, Var};
use crate::models::{Classifier, Rows};
use crate::nn::{Attend, Embeddings, Exec, LayerNorm, Linear};
use crate::ops::Backend;
use crate::train::Learner;
use crate::{Batch, Result};

/// Adds to `scores.heads` the mean absolute attention of each head over each text of `batch`.
///
/// # Errors
/// The device's.
pub fn attention_scores<B: Backend>(learner: &Learner<B>, batch: &Batch, scores: &mut Scores) -> Result<()> {
    let tape = Tape::evaluating(&learner.backend, &learner.params, batch);
    let model: &Classifier = &learner.model;
    let mut watching = Watching { tape, backend: &learner.backend, batch, layers: scores.heads.iter_mut() };
    model.forward_with_taps(&mut watching, Rows::All)?;
    Ok(())
}

/// A tape whose attention is looked at as it passes; layers come in order.
struct Watching<'a, 's, B: Backend> {
    tape: Tape<'a, B>,
    backend: &'a B,
    batch: &'a Batch,
    layers: std::slice::IterMut<'s, Vec<f64>>,
}

impl<B: Backend> Exec for Watching<'_, '_, B> {
    type Var = Var<B>;

    fn attend(&mut self, attend: &Attend, query: &Var<B>, key: &Var<B>, value: &Var<B>) -> Result<Var<B>> {
        let layer = self.layers.next().expect("as many layers as scores");
        let qkv = [query, key, value].map(Var::tensor);
        self.backend.mean_attention(&attend.texts(self.batch), attend, qkv, layer)?;
        self.tape.attend(attend, query, key, value)
    }

    fn embed(&mut self, tables: &Embeddings) -> Result<Var<B>> {
        self.tape.embed(tables)
    }

    fn words(&mut self, tables: &Embeddings) -> Result<Var<B>> {
        self.tape.words(tables)
    }

    fn embed_words(&mut self, tables: &Embeddings, words: &Var<B>) -> Result<Var<B>> {
        self.tape.embed_words(tables, words)
    }

    fn linear(&mut self, layer: &Linear, x: &Var<B>) -> Result<Var<B>> {
        self.tape.linear(layer, x)
    }

    fn add_norm(&mut self, norm: &LayerNorm, x: &Var<B>, residual: &Var<B>, dropout: f32) -> Result<Var<B>> {
        self.tape.add_norm(norm, x, residual, dropout)
    }

    fn first_tokens(&mut self, x: &Var<B>) -> Result<Var<B>> {
        self.tape.first_tokens(x)
    }

    fn mean_tokens(&mut self, x: &Var<B>) -> Result<Var<B>> {
        self.tape.mean_tokens(x)
    }

    fn dropout(&mut self, x: &Var<B>, rate: f32) -> Result<Var<B>> {
        self.tape.dropout(x, rate)
    }
}
