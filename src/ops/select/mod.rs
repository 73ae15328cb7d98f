//! Some rows of a result: `y[i] = x[rows[i]]`, as the masked tokens of a batch are picked from all.
//!
//! The gradient goes back to the rows that were picked, and is zero elsewhere. Saved: which they were. No row is picked twice, so that
//! nothing is summed.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Result;
use crate::autograd::{Context, Grads, Node, Recorded, Var, VarId};
use crate::backend::Device;
use crate::ops::Backend;
use crate::tensor::{Shape, Tensor};

/// Rows picked and put back, on a device.
pub trait SelectOps: Device {
    /// `y[i] = x[rows[i]]`: `[rows of x, n]` to `[rows, n]`. On a GPU stored as activations are.
    ///
    /// # Errors
    /// The device's.
    fn select(&self, x: &Tensor<Self>, rows: &[u32]) -> Result<Tensor<Self>>;

    /// `x[rows[i]] = y[i]`; the other rows of `x` stay as they are. On a GPU `x` is stored as activations are.
    ///
    /// # Errors
    /// The device's.
    fn put(&self, y: &Tensor<Self>, rows: &[u32], x: &mut Tensor<Self>) -> Result<()>;

    /// Zeros, stored as activations are.
    ///
    /// # Errors
    /// The device's.
    fn zero_activations(&self, shape: Shape) -> Result<Tensor<Self>>;
}

struct Saved {
    input: VarId,
    of: Shape,
    rows: Vec<u32>,
}

/// Picks rows; records it if `record` is set.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the rows do not ascend, or one is beyond the last.
pub fn forward<B: Backend>(
    at: &Context<'_, B>,
    x: &Var<B>,
    rows: &[u32],
    record: bool,
) -> Result<Recorded<B>> {
    assert!(rows.is_sorted_by(|a, b| a < b), "rows are picked in their order, each once");
    let of = x.tensor().shape();
    assert!(
        rows.last().is_none_or(|row| (*row as usize) < of.rows),
        "row {:?} is beyond {of:?}",
        rows.last()
    );
    let y = at.backend.select(x.tensor(), rows)?;
    Ok((y, record.then(|| Box::new(Saved { input: x.id(), of, rows: rows.to_vec() }) as Box<dyn Node<B>>)))
}

impl<B: Backend> Node<B> for Saved {
    fn backward(self: Box<Self>, at: &Context<'_, B>, dy: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        let mut dx = at.backend.zero_activations(self.of)?;
        at.backend.put(dy, &self.rows, &mut dx)?;
        grads.put_var(at.backend, self.input, dx)
    }
}
