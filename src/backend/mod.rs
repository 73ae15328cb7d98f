//! Where tensors live and operations run: the CPU, and GPUs through CUDA.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub use cpu::Cpu;
#[cfg(feature = "cuda")]
pub use cuda::Cuda;

use crate::ranks::{ProcessGroup, Submit, SummedBuckets};
use crate::{Batch, Result};

/// What has come of work that could be repeated ([`Device::repeated`]): training steps, as CUDA graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// Graphs that were made.
    pub captured: u64,
    /// Steps that were launches of a graph.
    pub replayed: u64,
    /// Steps that were launched one kernel after the other.
    pub ordinary: u64,
    /// Of those, steps that were not what had been written of their kind.
    pub differed: u64,
    /// Kinds of steps that cannot be graphs, because the host waits in them or the driver refused.
    pub unfit: u64,
}

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
        ranks: &dyn ProcessGroup,
        compute: impl FnOnce(&mut Submit<'_, Self::Buffer>) -> Result<T>,
    ) -> Result<(T, SummedBuckets<Self::Buffer>)>;

    /// Tells the other ranks that this one has failed: those that wait for it are not to wait any longer, and it not for them.
    fn abort(&self, ranks: &dyn ProcessGroup) {
        ranks.abort();
    }

    /// Whether batches are to be filled up to sizes that come again, so that [`Device::repeated`] gains by it.
    fn fills(&self) -> bool {
        false
    }

    /// Runs `work` on a batch; a device may record it, and replay the recording for later batches of the same sizes. `work`
    /// * uses the device that it is handed;
    /// * asks the same of it for every batch of the same sizes, but for what it uploads;
    /// * may be called twice;
    /// * leaves nothing in the host's memory that depends on what the device has computed, for the device may only have compared
    ///   it with earlier work when it returns.
    ///
    /// What `work` gives can be read once this returns, and until the next call.
    ///
    /// # Errors
    /// Those of `work`; the device failed.
    fn repeated<T>(&self, _batch: &Batch, mut work: impl FnMut(&Self) -> Result<T>) -> Result<T> {
        work(self)
    }

    /// Gives back memory that is kept for buffers to come: those of a network that has changed are of other sizes.
    fn forget_buffers(&self) {}

    /// Whether a step may be launched before the numbers of the one before are known.
    fn runs_ahead(&self) -> bool {
        false
    }

    /// What has come of [`Device::repeated`]; `None` where it repeats nothing.
    fn repeats(&self) -> Option<Repeats> {
        None
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
