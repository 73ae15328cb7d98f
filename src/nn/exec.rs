//! The vocabulary every network's forward pass is written in.

use super::{Attention, Embeddings, LayerNorm, Linear};
#[cfg(feature = "train")]
use crate::Batch;
use crate::Result;
#[cfg(feature = "train")]
use std::borrow::Cow;

/// How attention splits a row into heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attend {
    /// Heads left.
    pub heads: usize,
    /// Columns of one head.
    pub head_size: usize,
    /// Rate of dropout on the probabilities.
    pub dropout: f32,
    /// Whether each sentence of a text attends to itself alone.
    pub decoupled: bool,
}

impl Attend {
    /// What scores are multiplied by: `1 / sqrt(head_size)`.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_size as f32).sqrt()
    }

    /// The texts within which tokens attend to each other: those of `batch`, or its sentences.
    #[cfg(feature = "train")]
    pub(crate) fn texts<'b>(&self, batch: &'b Batch) -> Cow<'b, Batch> {
        let pairs = (0..batch.texts()).any(|text| batch.first_lens[text] < batch.text(text).len());
        if self.decoupled && pairs { Cow::Owned(batch.split_sentences()) } else { Cow::Borrowed(batch) }
    }
}

/// Runs operations over one ragged batch, which the executor holds.
///
/// Two executors compute: the tape, with or without records for a backward pass, and the inference session.
/// Others wrap one of them, to time it or to look at its operands. A network written against it is therefore
/// written once.
///
/// Activations have a row for each token, or, once [`Exec::first_tokens`] or a pooling has been taken, a row
/// for each text. Dropout acts in training only.
pub trait Exec {
    /// A result; cheap to clone.
    type Var: Clone;

    /// `dropout(norm(words[id] + positions[place] + token_types[type]))`: `[tokens, hidden]`.
    ///
    /// # Errors
    /// The device's, as for all that follow.
    fn embed(&mut self, tables: &Embeddings) -> Result<Self::Var>;

    /// `words[id]` alone: `[tokens, inputs of the projection]`.
    ///
    /// # Errors
    /// The device's.
    fn words(&mut self, tables: &Embeddings) -> Result<Self::Var>;

    /// [`Exec::embed`] with these rows in the place of `words[id]`: `[tokens, hidden]`.
    ///
    /// # Errors
    /// The device's.
    fn embed_words(&mut self, tables: &Embeddings, words: &Self::Var) -> Result<Self::Var>;

    /// `activation(x·Wᵀ + b)`: `[rows, inputs]` to `[rows, outputs]`, by the layer's own matrix: networks call
    /// [`Linear::forward`], which knows of factored ones.
    ///
    /// # Errors
    /// The device's.
    fn linear(&mut self, layer: &Linear, x: &Self::Var) -> Result<Self::Var>;

    /// `softmax(query·keyᵀ / sqrt(head_size))·value` within each text (or sentence) and head. `query` may have a row for
    /// each token or, unless sentences are apart, for each text; `key` and `value` have a row for each token.
    ///
    /// # Errors
    /// The device's.
    fn attend(
        &mut self,
        attend: &Attend,
        query: &Self::Var,
        key: &Self::Var,
        value: &Self::Var,
    ) -> Result<Self::Var>;

    /// The context of a layer's attention over `x`: `[rows, heads · head_size]`, and the rows of `x` that it belongs to:
    /// all, or with `first_only` those of the first tokens.
    ///
    /// Made of the operations above; an executor may know a shorter way to the same.
    ///
    /// # Errors
    /// The device's.
    fn self_attention(
        &mut self,
        attention: &Attention,
        x: &Self::Var,
        first_only: bool,
    ) -> Result<[Self::Var; 2]> {
        attend_projected(self, attention, x, first_only)
    }

    /// `norm(residual + dropout(x))`, over each row.
    ///
    /// # Errors
    /// The device's.
    fn add_norm(
        &mut self,
        norm: &LayerNorm,
        x: &Self::Var,
        residual: &Self::Var,
        dropout: f32,
    ) -> Result<Self::Var>;

    /// The row of each text's first token: `[tokens, n]` to `[texts, n]`.
    ///
    /// # Errors
    /// The device's.
    fn first_tokens(&mut self, x: &Self::Var) -> Result<Self::Var>;

    /// The mean over each text's tokens: `[tokens, n]` to `[texts, n]`.
    ///
    /// # Errors
    /// The device's.
    fn mean_tokens(&mut self, x: &Self::Var) -> Result<Self::Var>;

    /// Zeroes values with probability `rate` and scales the rest by `1 / (1 - rate)`.
    ///
    /// # Errors
    /// The device's.
    fn dropout(&mut self, x: &Self::Var, rate: f32) -> Result<Self::Var>;
}

/// [`Exec::self_attention`] by its definition: queries, keys and values, then attention.
///
/// # Errors
/// The executor's.
pub fn attend_projected<E: Exec + ?Sized>(
    e: &mut E,
    attention: &Attention,
    x: &E::Var,
    first_only: bool,
) -> Result<[E::Var; 2]> {
    let key = attention.key.forward(e, x)?;
    let value = attention.value.forward(e, x)?;
    let x = if first_only { e.first_tokens(x)? } else { x.clone() };
    let query = attention.query.forward(e, &x)?;
    let context = e.attend(&attention.attend, &query, &key, &value)?;
    Ok([context, x])
}
