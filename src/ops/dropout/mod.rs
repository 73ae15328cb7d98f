//! Dropout: `y = x·kept / (1 - rate)`, and the same for the gradient.
//!
//! Which values are kept is a function of (seed, step, sample, place in the network, index within the
//! sample): not of the batch a text is in, its place there, the thread or the process. The backward pass
//! computes it again, so nothing is saved.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Batch;
use crate::Result;
use crate::autograd::{Context, Grads, Node, Recorded, Var, VarId};
use crate::backend::Device;
use crate::ops::Backend;
use crate::tensor::Tensor;
use limbeck_kernels::random::mix;

/// What all dropout of one training step has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutSeed {
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step.
    pub step: u64,
}

impl DropoutSeed {
    /// What the keys of all texts and places begin with.
    pub fn key(&self) -> u64 {
        [self.seed, self.step].into_iter().fold(0x6c69_6d62_6563_6b00, |key, part| mix(key ^ part))
    }
}

/// One place in the network where dropout acts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutSite {
    /// The step's part of the key.
    pub seed: DropoutSeed,
    /// The place's part.
    pub place: u32,
    /// Probability with which a value is dropped.
    pub rate: f32,
}

impl DropoutSite {
    /// The key of one text at this place.
    pub fn key(&self, sample: u64) -> u64 {
        [sample, u64::from(self.place)].into_iter().fold(self.seed.key(), |key, part| mix(key ^ part))
    }
}

/// Dropout on a device.
pub trait DropoutOps: Device {
    /// Drops values of `x`, whose rows are those of `batch`.
    ///
    /// # Errors
    /// The device's.
    fn dropout(&self, batch: &Batch, x: &Tensor<Self>, site: &DropoutSite) -> Result<Tensor<Self>>;
}

struct Saved {
    input: VarId,
    site: DropoutSite,
}

/// Drops values at `site`.
///
/// # Errors
/// The device's.
pub fn forward<B: Backend>(
    at: &Context<'_, B>,
    x: &Var<B>,
    site: DropoutSite,
    record: bool,
) -> Result<Recorded<B>> {
    let y = at.backend.dropout(at.batch, x.tensor(), &site)?;
    Ok((y, record.then(|| Box::new(Saved { input: x.id(), site }) as Box<dyn Node<B>>)))
}

impl<B: Backend> Node<B> for Saved {
    fn backward(self: Box<Self>, at: &Context<'_, B>, dy: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        let dx = at.backend.dropout(at.batch, dy, &self.site)?;
        grads.put_var(at.backend, self.input, dx)
    }
}
