//! One row a text, from a row a token: its first token's, or the mean over its tokens.
//!
//! The gradient goes back to the first token's row, or `dy / tokens` to each. Saved: nothing.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Batch;
use crate::Result;
use crate::autograd::{Context, Grads, Node, Recorded, Var, VarId};
use crate::backend::Device;
use crate::ops::Backend;
use crate::tensor::Tensor;

/// How rows are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The first token's row.
    First,
    /// The mean of all rows.
    Mean,
}

/// Pooling on a device.
pub trait PoolOps: Device {
    /// `[tokens, n]` to `[texts, n]`.
    ///
    /// # Errors
    /// The device's.
    fn pool_forward(&self, batch: &Batch, x: &Tensor<Self>, pool: Pool) -> Result<Tensor<Self>>;

    /// `[texts, n]` to `[tokens, n]`.
    ///
    /// # Errors
    /// The device's.
    fn pool_backward(&self, batch: &Batch, dy: &Tensor<Self>, pool: Pool) -> Result<Tensor<Self>>;
}

struct Saved {
    input: VarId,
    pool: Pool,
}

/// Takes each text's first row.
///
/// # Errors
/// The device's.
pub fn first_tokens<B: Backend>(at: &Context<'_, B>, x: &Var<B>, record: bool) -> Result<Recorded<B>> {
    forward(at, x, Pool::First, record)
}

/// Takes the mean of each text's rows.
///
/// # Errors
/// The device's.
pub fn mean_tokens<B: Backend>(at: &Context<'_, B>, x: &Var<B>, record: bool) -> Result<Recorded<B>> {
    forward(at, x, Pool::Mean, record)
}

fn forward<B: Backend>(at: &Context<'_, B>, x: &Var<B>, pool: Pool, record: bool) -> Result<Recorded<B>> {
    let y = at.backend.pool_forward(at.batch, x.tensor(), pool)?;
    Ok((y, record.then(|| Box::new(Saved { input: x.id(), pool }) as Box<dyn Node<B>>)))
}

impl<B: Backend> Node<B> for Saved {
    fn backward(self: Box<Self>, at: &Context<'_, B>, dy: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        let dx = at.backend.pool_backward(at.batch, dy, self.pool)?;
        grads.put_var(at.backend, self.input, dx)
    }
}
