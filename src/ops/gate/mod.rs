//! How much the loss would change if a gate on a group of columns closed: `|∂L/∂ξ|` for `y = ξ·x` at `ξ = 1`.
//!
//! For one text the derivative is `Σ x·dx` over its rows and the group's columns; its absolute value, summed
//! over texts, is the importance of the group (Michel, Levy and Neubig, arXiv:1905.10650, for attention
//! heads; Molchanov et al., arXiv:1611.06440, for units).

mod cpu;

use crate::Batch;
use crate::Result;
use crate::backend::Device;
use crate::tensor::Tensor;

/// Gate derivatives on a device.
pub trait GateOps: Device {
    /// Adds to `scores`, one for each group of `width` columns, the sum over the texts of `batch` of
    /// `|Σ x·dx|`.
    ///
    /// # Errors
    /// The device's.
    fn gate_scores(
        &self,
        batch: &Batch,
        x: &Tensor<Self>,
        dx: &Tensor<Self>,
        width: usize,
        scores: &mut [f64],
    ) -> Result<()>;
}
