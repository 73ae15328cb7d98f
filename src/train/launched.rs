//! A step that the device has been asked for, and whose numbers the host has not seen yet.
//!
//! Where a device runs by itself, the next step may be launched before a step's loss is read: the device then never waits for the
//! host. A step whose gradients are not finite changes nothing, so that it is early enough to learn of it one step later.

use super::terms::Terms;
use crate::Result;
use crate::autograd::Grads;
use crate::ops::Backend;
use crate::ops::loss::LossOps;
use crate::ops::optimizer::AdamWOps;

/// What a step leaves on the device.
pub(super) struct LaunchedStep<B: Backend> {
    pub(super) pending: Option<<B as LossOps>::Pending>,
    pub(super) terms: Terms<Option<f64>>,
    /// None where the next step may have taken their memory by now.
    pub(super) grads: Option<Grads<B>>,
    pub(super) norm: <B as AdamWOps>::Norm,
}

impl<B: Backend> LaunchedStep<B> {
    /// Starts copying the numbers to the host, behind this step and before whatever follows it.
    pub(super) fn call(mut self, backend: &B) -> Result<LaunchedStep<B>> {
        self.pending.as_mut().map_or(Ok(()), |pending| backend.start_losses_readback(pending))?;
        backend.start_norm_readback(&mut self.norm)?;
        Ok(LaunchedStep { grads: None, ..self })
    }
}
