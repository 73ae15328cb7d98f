//! Whether a student's states point where its teacher's do: one minus the cosine, token by token.
//!
//! ```text
//! c = x·y / (|x|·|y|)        L = mean over rows of 1 - c
//! dx = -weight / rows · (y / (|x|·|y|) - c·x / |x|²)
//! ```
//!
//! x: the student's, y: the teacher's, both `[rows, hidden]` (Sanh et al., arXiv:1910.01108). A row of zeros has no
//! direction: it counts as `c = 0` and has no gradient.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Result;
use crate::backend::Device;
use crate::tensor::Tensor;

/// The cosine loss on a device.
pub trait CosineOps: Device {
    /// `L`, and `weight · dL/dx`.
    ///
    /// # Errors
    /// The device's.
    fn cosine(&self, x: &Tensor<Self>, y: &Tensor<Self>, weight: f64) -> Result<(f64, Tensor<Self>)>;
}
