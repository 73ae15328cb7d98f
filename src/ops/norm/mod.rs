//! `y = (z - mean)·rstd·gamma + beta` over each row, with `z = x`, or `z = dropout(x) + residual`.
//!
//! `rstd = 1 / sqrt(variance + eps)`, the variance biased (Ba et al., arXiv:1607.06450). With
//! `n = (z - mean)·rstd` and `g = dy·gamma`:
//!
//! ```text
//! dz = rstd·(g - mean(g) - n·mean(g·n))     dgamma = Σ dy·n     dbeta = Σ dy     dresidual = dz     dx = dropout(dz)
//! ```
//!
//! Saved: z, and mean and rstd of each row.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Batch;
use crate::Result;
use crate::autograd::{Context, Grads, Node, Recorded, Var, VarId};
use crate::backend::Device;
use crate::nn::{LayerNorm, ParamId};
use crate::ops::Backend;
use crate::ops::dropout::DropoutSite;
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

/// Where dropout acts on what is normalized, and on the texts of which batch.
pub type DropoutArgs<'a> = (&'a Batch, &'a DropoutSite);

/// Layer norm on a device.
pub trait NormOps: Device {
    /// `y`, and what the backward pass needs.
    ///
    /// # Errors
    /// The device's.
    fn norm_forward(
        &self,
        x: &Tensor<Self>,
        dropout: Option<DropoutArgs<'_>>,
        residual: Option<&Tensor<Self>>,
        gamma: &Tensor<Self>,
        beta: &Tensor<Self>,
        eps: f32,
    ) -> Result<(Tensor<Self>, NormSaved<Self>)>;

    /// `dx` and `dz`, one tensor where nothing was dropped; the gradients of `gamma` and `beta` are written or, with
    /// `accumulate`, added to.
    ///
    /// # Errors
    /// The device's.
    fn norm_backward(
        &self,
        dy: &Tensor<Self>,
        saved: &NormSaved<Self>,
        dropout: Option<DropoutArgs<'_>>,
        gamma: &Tensor<Self>,
        parameters: [&mut Tensor<Self>; 2],
        accumulate: bool,
    ) -> Result<[Tensor<Self>; 2]>;
}

struct Saved<B: Backend> {
    norm: LayerNorm,
    inputs: [Option<VarId>; 2],
    dropout: Option<DropoutSite>,
    saved: NormSaved<B>,
}

/// Runs the norm over `x`, or over `dropout(x) + residual`.
///
/// # Errors
/// The device's.
pub fn forward<B: Backend>(
    at: &Context<'_, B>,
    norm: &LayerNorm,
    x: &Var<B>,
    dropout: Option<DropoutSite>,
    residual: Option<&Var<B>>,
    record: bool,
) -> Result<Recorded<B>> {
    let (gamma, beta) = (at.params.value(norm.gamma), at.params.value(norm.beta));
    let dropped = dropout.as_ref().map(|site| (at.batch, site));
    let (y, saved) =
        at.backend.norm_forward(x.tensor(), dropped, residual.map(Var::tensor), gamma, beta, norm.eps)?;
    let node = record.then(|| {
        let inputs = [Some(x.id()), residual.map(Var::id)];
        Box::new(Saved { norm: norm.clone(), inputs, dropout, saved }) as Box<dyn Node<B>>
    });
    Ok((y, node))
}

impl<B: Backend> Node<B> for Saved<B> {
    fn params(&self) -> Vec<ParamId> {
        vec![self.norm.gamma, self.norm.beta]
    }

    fn backward(self: Box<Self>, at: &Context<'_, B>, dy: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        let (norm, gamma) = (&self.norm, at.params.value(self.norm.gamma));
        let shape = gamma.shape();
        let dropped = self.dropout.as_ref().map(|site| (at.batch, site));
        let mut gradients = None;
        grads.with_params(
            at.backend,
            [(norm.gamma, shape), (norm.beta, shape)],
            |parameters, accumulate| {
                let backend = at.backend;
                gradients =
                    Some(backend.norm_backward(dy, &self.saved, dropped, gamma, parameters, accumulate)?);
                Ok(())
            },
        )?;
        for (input, gradient) in self.inputs.into_iter().zip(gradients.expect("set above")) {
            let Some(input) = input else { continue };
            grads.put_var(at.backend, input, gradient)?;
        }
        Ok(())
    }
}
