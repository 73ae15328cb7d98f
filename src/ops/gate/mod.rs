//! How the loss would change if a gate on a group of columns closed: `∂L/∂ξ` for `y = ξ·x` at `ξ = 1`.
//!
//! For one text the derivative is `Σ x·dx` over its rows and the group's columns. Its absolute value, summed over
//! texts, is one importance of the group (Michel, Levy and Neubig, arXiv:1905.10650, for attention heads; Molchanov et
//! al., arXiv:1611.06440, for units), its square another: the diagonal of the gates' empirical Fisher information.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Batch;
use crate::Result;
use crate::backend::Device;
use crate::tensor::Tensor;

/// Gate derivatives on a device.
pub trait GateOps: Device {
    /// `Σ x·dx` of each text of `batch` and each group of `width` columns: `[texts, groups]`, row-major.
    ///
    /// # Errors
    /// The device's.
    fn gate_gradients(
        &self,
        batch: &Batch,
        x: &Tensor<Self>,
        dx: &Tensor<Self>,
        width: usize,
    ) -> Result<Vec<f64>>;
}
