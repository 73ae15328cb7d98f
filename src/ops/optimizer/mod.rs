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
#[cfg(feature = "cuda")]
mod cuda;

use crate::Result;
use crate::backend::Device;
use crate::params::Mask;
use crate::tensor::Tensor;

pub use limbeck_kernels::rows::AdamWStep;

/// One parameter's part of a step.
pub struct Update<'a, D: Device> {
    /// The parameter.
    pub w: &'a mut Tensor<D>,
    /// Its moments.
    pub moments: &'a mut [Tensor<D>; 2],
    /// Its gradient.
    pub gradient: &'a mut Tensor<D>,
    /// What is kept of it.
    pub mask: Option<&'a Mask>,
    /// Whether it decays.
    pub decays: bool,
}

/// AdamW on a device.
pub trait AdamWOps: Device {
    /// A norm that the host need not know yet.
    type Norm;

    /// Sets to exactly zero what the mask drops, whatever is there.
    ///
    /// # Errors
    /// The device's.
    fn mask(&self, x: &mut Tensor<Self>, mask: &Mask) -> Result<()>;

    /// One step of all parameters. Gradients of what masks drop do not count, whatever they are; the others are scaled by
    /// `step.gradient_scale`, and then to a global norm of at most `clip` (0: no limit). Gives the norm before clipping: if it
    /// is not finite, no parameter has changed.
    ///
    /// # Errors
    /// The device's.
    fn adamw(&self, updates: Vec<Update<'_, Self>>, clip: f64, step: &AdamWStep) -> Result<Self::Norm>;

    /// Starts an asynchronous copy to the host, ordered after the work launched so far: later launches may reuse the memory.
    /// Does nothing where the host has the value already.
    ///
    /// # Errors
    /// The device's.
    fn start_norm_readback(&self, _norm: &mut Self::Norm) -> Result<()> {
        Ok(())
    }

    /// What it is: waits for the device.
    ///
    /// # Errors
    /// The device's: something that was launched has failed.
    fn norm(&self, norm: Self::Norm) -> Result<f64>;
}

/// What gradients of that global norm are multiplied by: as torch.nn.utils.clip_grad_norm_ does it, its 1e-6 included.
fn clipping(norm: f64, clip: f64) -> f64 {
    if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 }
}
