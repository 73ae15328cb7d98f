//! How far a student's states are from its teacher's: the mean square.
//!
//! ```text
//! L = Σ (x - y)² / elements        dx = 2·weight·(x - y) / elements
//! ```
//!
//! x: the student's, y: the teacher's, both `[rows, hidden]`; the mean is over rows and columns, so that neither the
//! batch nor the width changes its size (Romero et al., arXiv:1412.6550; Jiao et al., arXiv:1909.10351, equation 8).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Result;
use crate::backend::Device;
use crate::tensor::Tensor;

/// The mean square on a device.
pub trait MeanSquareOps: Device {
    /// `L`, and `weight · dL/dx`.
    ///
    /// # Errors
    /// The device's.
    fn mean_square(&self, x: &Tensor<Self>, y: &Tensor<Self>, weight: f64) -> Result<(f64, Tensor<Self>)>;
}
