//! `y = (z - mean)·rstd·gamma + beta` over each row, with `z = x`, or `z = x + residual`.
//!
//! `rstd = 1 / sqrt(variance + eps)`, the variance biased (Ba et al., arXiv:1607.06450). With
//! `n = (z - mean)·rstd` and `g = dy·gamma`:
//!
//! ```text
//! dz = rstd·(g - mean(g) - n·mean(g·n))     dgamma = Σ dy·n     dbeta = Σ dy     dx = dresidual = dz
//! ```
//!
//! Saved: z, and mean and rstd of each row.

mod cpu;

use crate::Result;
use crate::autograd::{Context, Grads, Node, Recorded, Var, VarId};
use crate::backend::Device;
use crate::nn::LayerNorm;
use crate::ops::Backend;
use crate::tensor::Tensor;

/// What layer norm's backward pass needs.
pub struct NormSaved<D: Device> {
    /// What was normalized: `[rows, hidden]`.
    pub z: Tensor<D>,
    /// Mean of each row: `[1, rows]`.
    pub mean: Tensor<D>,
    /// Reciprocal standard deviation of each row: `[1, rows]`.
    pub rstd: Tensor<D>,
}

/// Layer norm on a device.
pub trait NormOps: Device {
    /// `y`, and what the backward pass needs.
    ///
    /// # Errors
    /// The device's.
    fn norm_forward(
        &self,
        x: &Tensor<Self>,
        residual: Option<&Tensor<Self>>,
        gamma: &Tensor<Self>,
        beta: &Tensor<Self>,
        eps: f32,
    ) -> Result<(Tensor<Self>, NormSaved<Self>)>;

    /// `dz`; `dgamma` and `dbeta` are written or, with `accumulate`, added to.
    ///
    /// # Errors
    /// The device's.
    fn norm_backward(
        &self,
        dy: &Tensor<Self>,
        saved: &NormSaved<Self>,
        gamma: &Tensor<Self>,
        dgamma: &mut Tensor<Self>,
        dbeta: &mut Tensor<Self>,
        accumulate: bool,
    ) -> Result<Tensor<Self>>;
}

struct Saved<B: Backend> {
    norm: LayerNorm,
    inputs: [Option<VarId>; 2],
    saved: NormSaved<B>,
}

/// Runs the norm over `x`, or over `x + residual`.
///
/// # Errors
/// The device's.
pub fn forward<B: Backend>(
    at: &Context<'_, B>,
    norm: &LayerNorm,
    x: &Var<B>,
    residual: Option<&Var<B>>,
    record: bool,
) -> Result<Recorded<B>> {
    let (gamma, beta) = (at.params.value(norm.gamma), at.params.value(norm.beta));
    let (y, saved) = at.backend.norm_forward(x.tensor(), residual.map(Var::tensor), gamma, beta, norm.eps)?;
    let node = record.then(|| {
        let inputs = [Some(x.id()), residual.map(Var::id)];
        Box::new(Saved { norm: norm.clone(), inputs, saved }) as Box<dyn Node<B>>
    });
    Ok((y, node))
}

impl<B: Backend> Node<B> for Saved<B> {
    fn backward(self: Box<Self>, at: &Context<'_, B>, dy: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        let (norm, gamma) = (&self.norm, at.params.value(self.norm.gamma));
        let shape = gamma.shape();
        let mut dz = None;
        grads.with_params(
            at.backend,
            [(norm.gamma, shape), (norm.beta, shape)],
            |[dgamma, dbeta], accumulate| {
                dz = Some(at.backend.norm_backward(dy, &self.saved, gamma, dgamma, dbeta, accumulate)?);
                Ok(())
            },
        )?;
        let dz = dz.expect("set above");
        for input in self.inputs.into_iter().flatten() {
            grads.put_var(at.backend, input, dz.clone())?;
        }
        Ok(())
    }
}
