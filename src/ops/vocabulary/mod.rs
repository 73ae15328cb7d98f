//! The loss of a head over a vocabulary, as masked language models have it, and its gradients, without the logits of all rows.
//!
//! ```text
//! s = h·Eᵀ + b        t = h'·E'ᵀ + b', a teacher's
//! L = (1 - alpha) · mean over rows of (log Σ exp s - s[target])
//!   + alpha · T² · mean over rows of KL(softmax(t/T) ‖ softmax(s/T))
//! ds = ((1 - alpha)·(softmax(s) - onehot) + alpha·T·(softmax(s/T) - softmax(t/T))) / rows
//! dh = ds·E        dE = dsᵀ·h        db = Σ over rows of ds
//! ```
//!
//! h: `[rows, hidden]`, the masked tokens alone; E: `[vocabulary, hidden]`, tied to the word table; b: `[vocabulary]`; targets: an id a row.
//!
//! All logits would be `rows × vocabulary` numbers, more than the rest of a network's activations together, and nobody needs them
//! afterwards: the loss is a number, so that its gradient by the logits is known as soon as they are. So rows are taken in chunks, and of
//! each the logits are made, turned into `ds` in place, multiplied into the three gradients, and forgotten, in one pass (the idea is that
//! of Cut Cross-Entropy, arXiv:2411.09009, and of Liger Kernel, arXiv:2410.10989). What is held beside the gradients is one chunk's
//! logits, and a teacher's of the same rows: [`VocabularyOps::CHUNK`] numbers each, whatever the number of rows. A loss on a GPU reads
//! logits as activations are stored; its sums are in f32 and f64.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Result;
use crate::autograd::Context;
use crate::models::config::Activation;
use crate::nn::{Linear, ParamId};
use crate::ops::Backend;
use crate::ops::linear::{LinearOps, Orientation};
use crate::ops::loss::{Distillation, LossOps};
use crate::ops::select::SelectOps;
use crate::params::ParamStore;
use crate::tensor::{Shape, Tensor};
use std::ops::Range;

/// What of the head is not a product.
pub trait VocabularyOps: LinearOps + LossOps + SelectOps {
    /// Numbers of a chunk's logits, about: few enough that they cost no memory to speak of, enough that the products of a chunk are
    /// large ones.
    const CHUNK: usize;

    /// Losses of rows, as chunks bring them.
    type RowLosses;

    /// An empty accumulator of a row for each target, which `logit_gradient` fills chunk by chunk. `scale` multiplies the gradient of
    /// the mean loss over all rows.
    ///
    /// # Errors
    /// The device's.
    fn row_losses(&self, targets: &[u32], how: Distillation, scale: f64) -> Result<Self::RowLosses>;

    /// The losses of the rows from `first` on, whose logits are these (`[rows, vocabulary]`) and a teacher's; what is given back is
    /// the gradient by the logits, in their memory. A row whose loss is not finite has a gradient that is not.
    ///
    /// # Errors
    /// The device's.
    fn logit_gradient(
        &self,
        logits: Tensor<Self>,
        teacher: Option<Tensor<Self>>,
        first: usize,
        losses: &mut Self::RowLosses,
    ) -> Result<Tensor<Self>>;

    /// The mean over all rows.
    fn mean_of_rows(&self, losses: Self::RowLosses) -> Self::Pending;
}

/// Whose distribution over words is learned.
pub struct Teacher<'a, B: Backend> {
    /// Its parameters.
    pub params: &'a ParamStore<B>,
    /// Its head: of as many words.
    pub layer: &'a Linear,
    /// What its head reads, of the same tokens: `[rows, its hidden size]`.
    pub h: &'a Tensor<B>,
    /// How it teaches.
    pub how: Distillation,
}

/// What is to be found out.
pub struct Task<'a, B: Backend> {
    /// The head: E as its matrix, and b. Not factored.
    pub layer: &'a Linear,
    /// What it reads: `[rows, hidden]`.
    pub h: &'a Tensor<B>,
    /// The word of each row.
    pub targets: &'a [u32],
    /// Whose distribution is learned beside the targets, if anybody's.
    pub teacher: Option<Teacher<'a, B>>,
    /// What gradients are multiplied by.
    pub scale: f64,
}

/// Gradients of a loss over a vocabulary.
pub struct Gradients<B: Backend> {
    /// By what the head read: `[rows, hidden]`.
    pub h: Tensor<B>,
    /// By its parameters: `[vocabulary, hidden]` and `[vocabulary]`.
    pub params: Vec<(ParamId, Tensor<B>)>,
}

/// Rows of a chunk: as many as hold `numbers` logits, and one at least; all chunks of a task are about equally large.
pub fn rows_of_chunk(rows: usize, vocabulary: usize, numbers: usize) -> usize {
    let most = (numbers / vocabulary.max(1)).max(1);
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// The loss, and if `gradients` is set its gradients.
///
/// # Errors
/// The device's.
pub fn loss<B: Backend>(
    at: &Context<'_, B>,
    task: &Task<'_, B>,
    gradients: bool,
) -> Result<(B::Pending, Option<Gradients<B>>)> {
    let chunk = rows_of_chunk(task.targets.len(), task.layer.outputs, B::CHUNK);
    loss_in_chunks(at, task, gradients, chunk)
}

/// As [`loss`], in chunks of so many rows.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If sizes do not fit each other, or a target is no word.
pub fn loss_in_chunks<B: Backend>(
    at: &Context<'_, B>,
    task: &Task<'_, B>,
    gradients: bool,
    chunk: usize,
) -> Result<(B::Pending, Option<Gradients<B>>)> {
    let Task { layer, h, targets, teacher, scale } = task;
    check(task);
    let (backend, rows) = (at.backend, targets.len());
    let how = teacher.as_ref().map_or(Distillation { temperature: 1.0, alpha: 0.0 }, |teacher| teacher.how);
    let mut losses = backend.row_losses(targets, how, *scale)?;
    let mut sums = gradients.then(|| Sums::new(at, layer, rows)).transpose()?;
    for first in (0..rows).step_by(chunk.max(1)) {
        let range = first..(first + chunk.max(1)).min(rows);
        let h = part(backend, h, &range)?;
        let logits = logits(backend, at.params, layer, &h)?;
        let of_teacher = teacher.as_ref().map(|teacher| logits_of(backend, teacher, &range));
        let ds = backend.logit_gradient(logits, of_teacher.transpose()?, first, &mut losses)?;
        if let Some(sums) = &mut sums {
            sums.add(at, layer, &h, &ds, &range)?;
        }
    }
    Ok((backend.mean_of_rows(losses), sums.map(Sums::done)))
}

fn check<B: Backend>(Task { layer, h, targets, teacher, .. }: &Task<'_, B>) {
    let one = |layer: &Linear| layer.down.is_none() && layer.activation == Activation::Identity;
    assert!(one(layer), "a head over a vocabulary is one matrix, and a bias");
    assert_eq!(h.shape(), Shape::new(targets.len(), layer.inputs), "a row for each target");
    let beyond = targets.iter().find(|target| **target as usize >= layer.outputs);
    assert!(beyond.is_none(), "word {beyond:?} is beyond a vocabulary of {}", layer.outputs);
    if let Some(Teacher { layer: of_teacher, h, .. }) = teacher {
        assert!(one(of_teacher), "a teacher's head is one matrix, and a bias");
        assert_eq!(of_teacher.outputs, layer.outputs, "a teacher of the same words");
        assert_eq!(
            h.shape(),
            Shape::new(targets.len(), of_teacher.inputs),
            "a teacher's row for each target"
        );
    }
}

/// These rows of `x`; itself, where they are all.
fn part<B: Backend>(backend: &B, x: &Tensor<B>, range: &Range<usize>) -> Result<Tensor<B>> {
    if range.len() == x.rows() {
        return Ok(x.clone());
    }
    backend.select(x, &list(range))
}

fn list(range: &Range<usize>) -> Vec<u32> {
    range.clone().map(|row| row as u32).collect()
}

fn logits<B: Backend>(
    backend: &B,
    params: &ParamStore<B>,
    layer: &Linear,
    h: &Tensor<B>,
) -> Result<Tensor<B>> {
    let table = params.packed(backend, layer.weight, Orientation::Forward)?;
    let bias = params.bias(backend, layer)?;
    Ok(backend.linear_forward(h, &table, &bias, layer.activation, false)?.0)
}

fn logits_of<B: Backend>(backend: &B, teacher: &Teacher<'_, B>, range: &Range<usize>) -> Result<Tensor<B>> {
    logits(backend, teacher.params, teacher.layer, &part(backend, teacher.h, range)?)
}

/// Gradients, so far as chunks have brought them.
struct Sums<B: Backend> {
    /// None until the first chunk: where it is the only one, its gradient is all.
    dh: Option<Tensor<B>>,
    rows: usize,
    table: (ParamId, Tensor<B>),
    bias: Option<(ParamId, Tensor<B>)>,
    /// Whether there is something to add to.
    begun: bool,
}

impl<B: Backend> Sums<B> {
    fn new(at: &Context<'_, B>, layer: &Linear, rows: usize) -> Result<Sums<B>> {
        // Of no rows, gradients are zeros; otherwise the first chunk writes them.
        let room = |id: ParamId| -> Result<(ParamId, Tensor<B>)> {
            let shape = at.params.value(id).shape();
            let buffer =
                if rows == 0 { at.backend.zeros(shape.len()) } else { at.backend.empty(shape.len()) };
            Ok((id, Tensor::from_buffer(buffer?, shape)))
        };
        let dh = (rows == 0).then(|| at.backend.zero_activations(Shape::new(0, layer.inputs))).transpose()?;
        Ok(Sums {
            dh,
            rows,
            table: room(layer.weight)?,
            bias: layer.bias.map(room).transpose()?,
            begun: false,
        })
    }

    fn add(
        &mut self,
        at: &Context<'_, B>,
        layer: &Linear,
        h: &Tensor<B>,
        ds: &Tensor<B>,
        range: &Range<usize>,
    ) -> Result<()> {
        let backend = at.backend;
        let table = at.params.packed(backend, layer.weight, Orientation::Backward)?;
        let dh = backend.input_gradient(ds, &table, layer.inputs, None)?;
        if range.len() == self.rows {
            self.dh = Some(dh);
        } else {
            if self.dh.is_none() {
                self.dh = Some(backend.zero_activations(Shape::new(self.rows, layer.inputs))?);
            }
            let all = self.dh.as_mut().expect("made above");
            backend.put(&dh, &list(range), all)?;
        }
        backend.weight_gradient(ds, h, &mut self.table.1, self.begun)?;
        if let Some((_, db)) = &mut self.bias {
            backend.bias_gradient(ds, db, self.begun)?;
        }
        self.begun = true;
        Ok(())
    }

    fn done(self) -> Gradients<B> {
        let Sums { dh, table, bias, .. } = self;
        let h = dh.expect("there was a chunk, or there are no rows");
        Gradients { h, params: std::iter::once(table).chain(bias).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::rows_of_chunk;

    #[test]
    fn chunks_are_even_and_hold_no_more_than_they_may() {
        assert_eq!(rows_of_chunk(0, 10, 100), 1);
        assert_eq!(rows_of_chunk(7, 10, 100), 7);
        assert_eq!(rows_of_chunk(11, 10, 100), 6);
        assert_eq!(rows_of_chunk(3, 1000, 100), 1);
        for rows in 1..200 {
            let chunk = rows_of_chunk(rows, 7, 100);
            assert!(chunk * 7 <= 100 && rows.div_ceil(chunk) == rows.div_ceil(100 / 7), "{rows}: {chunk}");
        }
    }
}
