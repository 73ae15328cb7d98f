//! `y = activation(x·Wᵀ + b)`.
//!
//! x: `[rows, inputs]`, W: `[outputs, inputs]`, b: `[outputs]`, y: `[rows, outputs]`. With `z = x·Wᵀ + b` and
//! `dz = dy · activation'(z)`:
//!
//! ```text
//! dx = dz·W        dW = dzᵀ·x        db = Σ over rows of dz
//! ```
//!
//! Saved: x, and z for GELU or y for ReLU and tanh. The weight is packed once for each of the two products
//! it takes part in, and again only after it has changed (`ParamStore::packed`).

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

use crate::Result;
use crate::autograd::{Context, Grads, Node, Recorded, Var, VarId};
use crate::backend::Device;
use crate::models::config::Activation;
use crate::nn::{Linear, ParamId};
use crate::ops::Backend;
use crate::ops::rounded::{self, Forward, Rounded, RoundedOps};
use crate::tensor::Tensor;

/// Which product a weight is packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// `x·Wᵀ`.
    Forward = 0,
    /// `dz·W`.
    Backward = 1,
}

/// One of several weight gradients: `dw = dzᵀ·x`.
pub struct WeightGradient<'a, D: Device> {
    /// By the layer's sums: `[rows, outputs]`.
    pub dz: &'a Tensor<D>,
    /// The layer's input: `[rows, inputs]`.
    pub x: &'a Tensor<D>,
    /// `[outputs, inputs]`, f32.
    pub dw: &'a mut Tensor<D>,
    /// Whether it is added to what is there.
    pub accumulate: bool,
}

/// The products of a linear layer on a device.
pub trait LinearOps: RoundedOps {
    /// A weight in the layout and precision of the device's multiplication.
    type Packed;

    /// Whether a packed weight serves both products and may share the weight's memory. Then there is one, and it is dropped
    /// before the weight is changed.
    const SHARED_PACKS: bool = false;

    /// Packs `weight`: `[outputs, inputs]`. `recycle` lends its memory.
    ///
    /// # Errors
    /// No memory.
    fn pack_weight(
        &self,
        weight: &Tensor<Self>,
        orientation: Orientation,
        recycle: Option<Self::Packed>,
    ) -> Result<Self::Packed>;

    /// Whether `packed` is in the precision that the device multiplies in now.
    fn fits(&self, packed: &Self::Packed) -> bool;

    /// `y`, and, if `keep` is set and `activation` is not the identity, what [`LinearOps::activation_backward`]
    /// needs.
    ///
    /// # Errors
    /// The device's, as for all that follow.
    fn linear_forward(
        &self,
        x: &Tensor<Self>,
        weight: &Self::Packed,
        bias: &Tensor<Self>,
        activation: Activation,
        keep: bool,
    ) -> Result<(Tensor<Self>, Option<Tensor<Self>>)>;

    /// `dz` from `dy` and what the forward pass kept.
    ///
    /// # Errors
    /// The device's.
    fn activation_backward(
        &self,
        dy: &Tensor<Self>,
        kept: &Tensor<Self>,
        activation: Activation,
    ) -> Result<Tensor<Self>>;

    /// `dz·W`, added to `into` if there is one.
    ///
    /// # Errors
    /// The device's.
    fn input_gradient(
        &self,
        dz: &Tensor<Self>,
        weight: &Self::Packed,
        inputs: usize,
        into: Option<Tensor<Self>>,
    ) -> Result<Tensor<Self>>;

    /// `dW = dzᵀ·x`, written or, with `accumulate`, added.
    ///
    /// # Errors
    /// The device's.
    fn weight_gradient(
        &self,
        dz: &Tensor<Self>,
        x: &Tensor<Self>,
        dw: &mut Tensor<Self>,
        accumulate: bool,
    ) -> Result<()>;

    /// Whether weight gradients wait for the end of the backward pass, or until they are to be summed over ranks, to be made together
    /// ([`LinearOps::weight_gradients`]).
    const DEFERS: bool = false;

    /// Several weight gradients, each of another parameter.
    ///
    /// # Errors
    /// The device's.
    fn weight_gradients(&self, wanted: &mut [WeightGradient<'_, Self>]) -> Result<()> {
        wanted.iter_mut().try_for_each(|of| self.weight_gradient(of.dz, of.x, of.dw, of.accumulate))
    }

    /// `db`: the sums of `dz`'s columns, written or added.
    ///
    /// # Errors
    /// The device's.
    fn bias_gradient(&self, dz: &Tensor<Self>, db: &mut Tensor<Self>, accumulate: bool) -> Result<()>;
}

struct Saved<B: Backend> {
    layer: Linear,
    input: VarId,
    x: Tensor<B>,
    kept: Option<Tensor<B>>,
}

/// Runs the layer; records it if `record` is set.
///
/// # Errors
/// The device's.
pub fn forward<B: Backend>(
    at: &Context<'_, B>,
    layer: &Linear,
    x: &Var<B>,
    record: bool,
) -> Result<Recorded<B>> {
    assert_eq!(x.tensor().cols(), layer.inputs, "linear: columns of x");
    let weight = at.params.packed(at.backend, layer.weight, Orientation::Forward)?;
    let bias = at.params.bias(at.backend, layer)?;
    let (y, kept) = at.backend.linear_forward(x.tensor(), &weight, &bias, layer.activation, record)?;
    let node = record.then(|| {
        let saved = Saved { layer: layer.clone(), input: x.id(), x: x.tensor().clone(), kept };
        Box::new(saved) as Box<dyn Node<B>>
    });
    Ok((y, node))
}

/// Runs the layer in int8, as [`rounded`] says, with a weight that is rounded already; records it if `record` is set. Gives
/// `y`'s rows too, if the layer rounds them.
///
/// # Errors
/// The device's.
pub fn rounded_forward<B: Backend>(
    at: &Context<'_, B>,
    layer: &Linear,
    x: &Var<B>,
    weight: &Rounded<B>,
    record: bool,
) -> Result<(Recorded<B>, Option<B::Rows>)> {
    assert_eq!(x.tensor().cols(), layer.inputs, "linear: columns of x");
    let Forward { y, rows, x: read, kept } = rounded::linear(at, layer, x, weight)?;
    let node = record.then(|| {
        let saved = Saved { layer: layer.clone(), input: x.id(), x: read, kept };
        Box::new(saved) as Box<dyn Node<B>>
    });
    Ok(((y, node), rows))
}

impl<B: Backend> Node<B> for Saved<B> {
    fn params(&self) -> Vec<ParamId> {
        std::iter::once(self.layer.weight).chain(self.layer.bias).collect()
    }

    fn backward(self: Box<Self>, at: &Context<'_, B>, dy: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        let Saved { layer, input, x, kept } = *self;
        let dz = match &kept {
            Some(kept) => at.backend.activation_backward(dy, kept, layer.activation)?,
            None => dy.clone(),
        };
        drop(kept);
        for (id, weight) in [(Some(layer.weight), true), (layer.bias, false)] {
            let Some(id) = id else { continue };
            if weight && B::DEFERS {
                grads.defer(id, dz.clone(), x.clone());
                continue;
            }
            let shape = at.params.value(id).shape();
            grads.with_param(at.backend, id, shape, |gradient, accumulate| match weight {
                true => at.backend.weight_gradient(&dz, &x, gradient, accumulate),
                false => at.backend.bias_gradient(&dz, gradient, accumulate),
            })?;
        }
        drop(x);
        let weight = at.params.packed(at.backend, layer.weight, Orientation::Backward)?;
        let partial = grads.take_partial(input);
        let dx = at.backend.input_gradient(&dz, &weight, layer.inputs, partial)?;
        grads.put_var(at.backend, input, dx)
    }
}
