//! Where tensors live and operations run: the CPU, and GPUs through CUDA.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub use cpu::Cpu;
#[cfg(feature = "cuda")]
pub use cuda::Cuda;

use crate::Result;
use crate::ranks::{Give, Ranks, Summed};

/// Memory that holds `f32` values, and the few operations that no op of its own is worth.
///
/// What an operation does on a device stands in that operation's folder under [`crate::ops`].
pub trait Device: Clone + 'static {
    /// Storage of a tensor.
    type Buffer: 'static;

    /// Storage with unspecified content, to be overwritten.
    ///
    /// # Errors
    /// No memory.
    fn empty(&self, len: usize) -> Result<Self::Buffer>;

    /// Storage of zeros.
    ///
    /// # Errors
    /// No memory.
    fn zeros(&self, len: usize) -> Result<Self::Buffer>;

    /// Copies from the host.
    ///
    /// # Errors
    /// No memory.
    fn upload(&self, data: &[f32]) -> Result<Self::Buffer>;

    /// Copies to the host.
    ///
    /// # Errors
    /// The device failed.
    fn download(&self, buffer: &Self::Buffer) -> Result<Vec<f32>>;

    /// Runs `compute`, which hands over buckets of `f32` buffers; each is summed over ranks while it goes on. Gives back what it gave,
    /// and the buckets. Every rank hands over as many, of the same sizes, in the same order.
    ///
    /// # Errors
    /// Those of `compute`, of which the other ranks learn; [`Error::Ranks`](crate::Error::Ranks); the device failed.
    fn while_summing<T>(
        &self,
        ranks: &dyn Ranks,
        compute: impl FnOnce(&mut Give<'_, Self::Buffer>) -> Result<T>,
    ) -> Result<(T, Summed<Self::Buffer>)>;

    /// Tells the other ranks that this one has failed: those that wait for it are not to wait any longer, and it not for them.
    fn abandon(&self, ranks: &dyn Ranks) {
        ranks.abandon();
    }

    /// What losses are multiplied by at first, so that gradients do not vanish in what they are stored as; `None` where they do not.
    fn loss_scale(&self) -> Option<f64> {
        None
    }

    /// `y += x`, element by element.
    ///
    /// # Errors
    /// The device failed.
    fn add(&self, x: &Self::Buffer, y: &mut Self::Buffer) -> Result<()>;

    /// The sum of squares, in an order that depends on the length alone.
    ///
    /// # Errors
    /// The device failed.
    fn sum_squares(&self, x: &Self::Buffer) -> Result<f64>;
}
