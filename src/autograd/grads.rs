//! Gradients, collected: those of parameters until the optimizer takes them, those of results in between
//! until the node that made the result takes them.

use super::tape::VarId;
use crate::Result;
use crate::backend::Device;
use crate::nn::ParamId;
use crate::tensor::{Shape, Tensor};

/// Gradients of a loss.
pub struct Grads<D: Device> {
    params: Vec<Option<Tensor<D>>>,
    vars: Vec<Option<Tensor<D>>>,
    retained: Vec<bool>,
}

impl<D: Device> Grads<D> {
    pub(super) fn new(params: usize, vars: usize, retained: &[VarId]) -> Grads<D> {
        let mut keep = vec![false; vars];
        retained.iter().for_each(|var| keep[var.index()] = true);
        Grads { params: vec![None; params], vars: vec![None; vars], retained: keep }
    }

    /// The gradient of a parameter; `None` if the loss does not depend on it.
    pub fn param(&self, id: ParamId) -> Option<&Tensor<D>> {
        self.params[id.index()].as_ref()
    }

    /// The gradient of a parameter, to change.
    pub fn param_mut(&mut self, id: ParamId) -> Option<&mut Tensor<D>> {
        self.params[id.index()].as_mut()
    }

    /// The gradient of a leaf, or of a result that the tape was told to retain.
    pub fn var(&self, id: VarId) -> Option<&Tensor<D>> {
        self.vars[id.index()].as_ref()
    }

    pub(super) fn take_var(&mut self, id: VarId) -> Option<Tensor<D>> {
        if self.retained[id.index()] { self.vars[id.index()].clone() } else { self.vars[id.index()].take() }
    }

    /// What has been collected for `id`, to be added to and put back with [`Grads::put_var`]; `None` if
    /// nothing has, or if somebody else still reads it.
    pub fn take_partial(&mut self, id: VarId) -> Option<Tensor<D>> {
        let mut partial = self.vars[id.index()].take()?;
        if partial.unique().is_some() {
            Some(partial)
        } else {
            self.vars[id.index()] = Some(partial);
            None
        }
    }

    /// Puts back what [`Grads::take_partial`] took, added to; or adds `gradient` to what is there.
    ///
    /// # Errors
    /// The device's.
    pub fn put_var(&mut self, device: &D, id: VarId, gradient: Tensor<D>) -> Result<()> {
        let place = &mut self.vars[id.index()];
        *place = Some(match place.take() {
            None => gradient,
            Some(there) => sum(device, there, gradient)?,
        });
        Ok(())
    }

    /// Lets `write` write or add to a parameter's gradient: it is given the tensor, and whether the tensor
    /// already holds a part to be kept.
    ///
    /// # Errors
    /// The device's, and those of `write`.
    pub fn with_param(
        &mut self,
        device: &D,
        id: ParamId,
        shape: Shape,
        write: impl FnOnce(&mut Tensor<D>, bool) -> Result<()>,
    ) -> Result<()> {
        let place = &mut self.params[id.index()];
        let accumulate = place.is_some();
        let tensor = match place {
            Some(tensor) => tensor,
            None => place.insert(Tensor::from_buffer(device.empty(shape.len())?, shape)),
        };
        write(tensor, accumulate)
    }

    /// As [`Grads::with_param`], for two parameters that one pass writes.
    ///
    /// # Errors
    /// The device's, and those of `write`.
    pub fn with_params(
        &mut self,
        device: &D,
        params: [(ParamId, Shape); 2],
        write: impl FnOnce([&mut Tensor<D>; 2], bool) -> Result<()>,
    ) -> Result<()> {
        let accumulate = self.params[params[0].0.index()].is_some();
        let mut take = |(id, shape): (ParamId, Shape)| match self.params[id.index()].take() {
            Some(tensor) => Ok(tensor),
            None => device.empty(shape.len()).map(|buffer| Tensor::from_buffer(buffer, shape)),
        };
        let (mut first, mut second) = (take(params[0])?, take(params[1])?);
        write([&mut first, &mut second], accumulate)?;
        self.params[params[0].0.index()] = Some(first);
        self.params[params[1].0.index()] = Some(second);
        Ok(())
    }

    /// The Euclidean norm over all parameters' gradients.
    ///
    /// # Errors
    /// The device's.
    pub fn global_norm(&self, device: &D) -> Result<f64> {
        let mut squares = 0.0;
        for gradient in self.params.iter().flatten() {
            squares += device.sum_squares(gradient.buffer())?;
        }
        Ok(squares.sqrt())
    }

    /// The first parameter whose gradient is not finite.
    ///
    /// # Errors
    /// The device's.
    pub fn first_not_finite(&self, device: &D) -> Result<Option<ParamId>> {
        for (i, gradient) in self.params.iter().enumerate() {
            if let Some(gradient) = gradient
                && !device.sum_squares(gradient.buffer())?.is_finite()
            {
                return Ok(Some(ParamId(i as u32)));
            }
        }
        Ok(None)
    }
}

/// `a + b`, in the storage of whichever is nobody else's.
fn sum<D: Device>(device: &D, mut a: Tensor<D>, mut b: Tensor<D>) -> Result<Tensor<D>> {
    if let Some(buffer) = a.unique() {
        device.add(b.buffer(), buffer)?;
        return Ok(a);
    }
    if let Some(buffer) = b.unique() {
        device.add(a.buffer(), buffer)?;
        return Ok(b);
    }
    let mut copy = device.zeros(a.shape().len())?;
    device.add(a.buffer(), &mut copy)?;
    device.add(b.buffer(), &mut copy)?;
    Ok(Tensor::from_buffer(copy, a.shape()))
}
