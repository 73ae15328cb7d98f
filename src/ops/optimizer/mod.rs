//! AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), as PyTorch computes it, with
//! masks.
//!
//! With `g` the gradient scaled by the clipping factor and `t` the step, counted from 1:
//!
//! ```text
//! m = β₁·m + (1-β₁)·g    v = β₂·v + (1-β₂)·g²
//! w = w·(1 - lr·decay) - lr·(m/(1-β₁ᵗ)) / (sqrt(v/(1-β₂ᵗ)) + eps)
//! ```
//!
//! A masked element's w, m and v are exactly zero after every step, whatever its gradient.

mod cpu;

use crate::Result;
use crate::backend::Device;
use crate::params::Mask;
use crate::tensor::Tensor;

pub use limbeck_kernels::rows::AdamWStep;

/// AdamW on a device.
pub trait AdamWOps: Device {
    /// Sets to exactly zero what the mask drops, whatever is there.
    ///
    /// # Errors
    /// The device's.
    fn mask(&self, x: &mut Tensor<Self>, mask: &Mask) -> Result<()>;

    /// One step of one parameter.
    ///
    /// # Errors
    /// The device's.
    fn adamw(
        &self,
        w: &mut Tensor<Self>,
        moments: [&mut Tensor<Self>; 2],
        g: &Tensor<Self>,
        mask: Option<&Mask>,
        step: &AdamWStep,
    ) -> Result<()>;
}
