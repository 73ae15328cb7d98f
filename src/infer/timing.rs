//! Which part of a network the time goes to.
//!
//! An executor around the session's own, which reads the clock before and after each operation. An operation
//! belongs to the part whose parameters it reads; one without parameters, to the part that ran last, which is
//! attention for attention itself, and to the head for a pooling. A deferred nonlinear layer is computed by the
//! one that reads it, in the same part. What passes between operations is in no part; it is next to nothing.

use crate::Result;
use crate::models::Classifier;
use crate::nn::{Attend, Attention, Embeddings, Exec, LayerNorm, Linear, ParamId};
use std::time::{Duration, Instant};

/// Time spent in each part of a network.
pub struct PartTimes {
    /// The part of each parameter.
    part_of: Vec<usize>,
    /// One sum for each of [`Classifier::parts`], in their order.
    pub spent: Vec<Duration>,
}

impl PartTimes {
    /// Nothing spent yet.
    pub fn new(model: &Classifier) -> PartTimes {
        let parts = model.parts();
        let mut part_of = vec![0; parts.iter().map(|part| part.params.len()).sum()];
        for (place, part) in parts.iter().enumerate() {
            part.params.iter().for_each(|id| part_of[id.index()] = place);
        }
        PartTimes { part_of, spent: vec![Duration::ZERO; parts.len()] }
    }

    /// Forgets what was spent.
    pub fn clear(&mut self) {
        self.spent.fill(Duration::ZERO);
    }
}

/// Runs operations on another executor and books their times.
pub(super) struct Timed<'t, E> {
    pub exec: &'t mut E,
    pub times: &'t mut PartTimes,
    /// The part that ran last.
    pub last: usize,
    /// Layers begun: parameters of a layer that others use too belong to its parts, and are booked to those that run.
    pub layers: usize,
}

impl<E> Timed<'_, E> {
    fn of<T>(&mut self, id: ParamId, run: impl FnOnce(&mut E) -> T) -> T {
        self.last = self.times.part_of[id.index()];
        // Between the embeddings and the head there are two parts a layer.
        if (1..self.times.spent.len() - 1).contains(&self.last) {
            self.last = 2 * self.layers - self.last % 2;
        }
        self.in_last(run)
    }

    fn in_last<T>(&mut self, run: impl FnOnce(&mut E) -> T) -> T {
        let start = Instant::now();
        let result = run(self.exec);
        self.times.spent[self.last] += start.elapsed();
        result
    }
}

impl<E: Exec> Exec for Timed<'_, E> {
    type Var = E::Var;

    fn embed(&mut self, tables: &Embeddings) -> Result<E::Var> {
        self.of(tables.words, |exec| exec.embed(tables))
    }

    fn words(&mut self, tables: &Embeddings) -> Result<E::Var> {
        self.of(tables.words, |exec| exec.words(tables))
    }

    fn embed_words(&mut self, tables: &Embeddings, words: &E::Var) -> Result<E::Var> {
        self.of(tables.words, |exec| exec.embed_words(tables, words))
    }

    fn linear(&mut self, layer: &Linear, x: &E::Var) -> Result<E::Var> {
        self.of(layer.weight, |exec| exec.linear(layer, x))
    }

    fn attend(&mut self, attend: &Attend, query: &E::Var, key: &E::Var, value: &E::Var) -> Result<E::Var> {
        self.in_last(|exec| exec.attend(attend, query, key, value))
    }

    fn self_attention(&mut self, attention: &Attention, x: &E::Var, first_only: bool) -> Result<[E::Var; 2]> {
        self.layers += 1;
        self.of(attention.query.weight, |exec| exec.self_attention(attention, x, first_only))
    }

    fn add_norm(&mut self, norm: &LayerNorm, x: &E::Var, residual: &E::Var, dropout: f32) -> Result<E::Var> {
        self.of(norm.gamma, |exec| exec.add_norm(norm, x, residual, dropout))
    }

    fn first_tokens(&mut self, x: &E::Var) -> Result<E::Var> {
        self.in_last(|exec| exec.first_tokens(x))
    }

    fn mean_tokens(&mut self, x: &E::Var) -> Result<E::Var> {
        self.last = self.times.spent.len() - 1;
        self.in_last(|exec| exec.mean_tokens(x))
    }

    fn dropout(&mut self, x: &E::Var, rate: f32) -> Result<E::Var> {
        self.in_last(|exec| exec.dropout(x, rate))
    }
}
