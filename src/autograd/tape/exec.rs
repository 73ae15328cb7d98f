//! Networks on a tape.

use super::{Tape, Var};
use crate::Result;
use crate::nn::{Attend, Attention, Embeddings, Exec, LayerNorm, Linear, attend_projected};
use crate::ops::embedding::Read;
use crate::ops::rounded::RoundedLayer;
use crate::ops::{Backend, attention, dropout, embedding, linear, norm, pool};
use crate::tensor::Tensor;
use std::cell::OnceCell;
use std::rc::Rc;

impl<B: Backend> Exec for Tape<'_, B> {
    type Var = Var<B>;

    fn embed(&mut self, tables: &Embeddings) -> Result<Var<B>> {
        let sum = embedding::forward(&self.at(), tables, Read::All, self.records())?;
        let sum = self.push(sum);
        let normed = norm::forward(&self.at(), &tables.norm, &sum, None, None, self.records())?;
        let normed = self.push(normed);
        self.dropout(&normed, tables.dropout)
    }

    fn words(&mut self, tables: &Embeddings) -> Result<Var<B>> {
        let words = embedding::forward(&self.at(), tables, Read::Words, self.records())?;
        Ok(self.push(words))
    }

    fn embed_words(&mut self, tables: &Embeddings, words: &Var<B>) -> Result<Var<B>> {
        let others = embedding::forward(&self.at(), tables, Read::Others, self.records())?;
        let others = self.push(others);
        let normed = norm::forward(&self.at(), &tables.norm, words, None, Some(&others), self.records())?;
        let normed = self.push(normed);
        self.dropout(&normed, tables.dropout)
    }

    fn linear(&mut self, layer: &Linear, x: &Var<B>) -> Result<Var<B>> {
        if let Some(inputs) = &mut self.inputs {
            inputs.push((layer.clone(), x.clone()));
        }
        let Some(weight) = self.params.rounded(self.backend, layer.weight)? else {
            let y = linear::forward(&self.at(), layer, x, self.records())?;
            return Ok(self.push(y));
        };
        let (y, rows) = linear::rounded_forward(&self.at(), layer, x, &weight, self.records())?;
        let y = self.push(y);
        Ok(Var { rows: Rc::new(rows.map(OnceCell::from).unwrap_or_default()), ..y })
    }

    fn attend(&mut self, attend: &Attend, query: &Var<B>, key: &Var<B>, value: &Var<B>) -> Result<Var<B>> {
        let (site, qkv) = (self.site(attend.dropout), [query, key, value]);
        if let Some(attended) = &mut self.attended {
            attended.push(qkv.map(Var::clone));
        }
        let context = match (&site, self.params.rounds_weights()) {
            (None, true) => {
                let texts = attend.texts(self.batch);
                Some(self.backend.rounded_attention(&texts, attend, qkv.map(Var::tensor))?)
            }
            _ => None,
        };
        let context = attention::forward(&self.at(), attend, qkv, site, context, self.records())?;
        Ok(self.push(context))
    }

    fn self_attention(&mut self, attention: &Attention, x: &Var<B>, first_only: bool) -> Result<[Var<B>; 2]> {
        if !(first_only && self.params.rounds_weights() && attention.absorbs()) {
            return attend_projected(self, attention, x, first_only);
        }
        if self.attended.is_some() {
            // This way does without keys and values, but who looks at attention wants them.
            let first = self.first_tokens(x)?;
            let query = attention.query.forward(self, &first)?;
            let [key, value] = [&attention.key, &attention.value].map(|layer| layer.forward(self, x));
            let qkv = [query, key?, value?];
            self.attended.as_mut().expect("was just seen").push(qkv);
        }
        self.absorbed(attention, x)
    }

    fn add_norm(&mut self, norm: &LayerNorm, x: &Var<B>, residual: &Var<B>, dropout: f32) -> Result<Var<B>> {
        let site = self.site(dropout);
        let y = norm::forward(&self.at(), norm, x, site, Some(residual), self.records())?;
        Ok(self.push(y))
    }

    fn first_tokens(&mut self, x: &Var<B>) -> Result<Var<B>> {
        let y = pool::first_tokens(&self.at(), x, self.records())?;
        Ok(self.push(y))
    }

    fn mean_tokens(&mut self, x: &Var<B>) -> Result<Var<B>> {
        let y = pool::mean_tokens(&self.at(), x, self.records())?;
        Ok(self.push(y))
    }

    fn dropout(&mut self, x: &Var<B>, rate: f32) -> Result<Var<B>> {
        match self.site(rate) {
            None => Ok(x.clone()),
            Some(site) => {
                let y = dropout::forward(&self.at(), x, site, self.records())?;
                Ok(self.push(y))
            }
        }
    }
}

impl<B: Backend> Tape<'_, B> {
    /// Attention by one query a text, its keys and values absorbed: in int8, and of `x` as it is.
    fn absorbed(&mut self, attention: &Attention, x: &Var<B>) -> Result<[Var<B>; 2]> {
        let Attention { attend, key, value, .. } = attention;
        let first = self.first_tokens(x)?;
        let query = attention.query.forward(self, &first)?;
        let site = self.site(attend.dropout);
        let absorbed = match &site {
            None => Some(self.absorbed_context(attention, x, &query)?),
            Some(_) => None,
        };
        if let (Some(context), false) = (&absorbed, self.records()) {
            return Ok([self.push((context.clone(), None)), first]);
        }
        // For the gradient, and for probabilities that dropout acts on.
        let [key, value] = [key, value].map(|layer| linear::forward(&self.at(), layer, x, self.records()));
        let (key, value) = (self.push(key?), self.push(value?));
        let qkv = [&query, &key, &value];
        let context = attention::forward(&self.at(), attend, qkv, site, absorbed, self.records())?;
        Ok([self.push(context), first])
    }

    fn absorbed_context(&self, attention: &Attention, x: &Var<B>, query: &Var<B>) -> Result<Tensor<B>> {
        let Attention { key, value, .. } = attention;
        let weights = [key, value].map(|layer| self.params.rounded(self.backend, layer.weight));
        let [of_key, of_value] = weights;
        let weights = [of_key?, of_value?].map(|weight| weight.expect("all weights are rounded"));
        let biases = [self.params.bias(self.backend, key)?, self.params.bias(self.backend, value)?];
        let layers = [0, 1].map(|i| RoundedLayer { weight: &weights[i].weight, bias: &biases[i] });
        self.backend.absorbed_attention(self.batch, &attention.attend, x.tensor(), query.tensor(), layers)
    }
}
