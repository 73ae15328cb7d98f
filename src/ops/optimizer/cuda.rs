//! AdamW on a GPU: all parameters in three launches, clipping without a word to the host.

use super::{AdamWOps, AdamWStep, Update};
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid, Memory, Plain, Readback, Storage};
use crate::params::Mask;
use crate::tensor::Tensor;
use std::sync::Arc;

const THREADS: usize = 256;

/// Elements of a block, as `optimizer.cu` says.
const CHUNK: usize = 1 << 14;

/// As in `optimizer.cu`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Parameter {
    /// Addresses of w, m, v, the gradient and the mask.
    addresses: [u64; 5],
    len: u64,
    first_chunk: u64,
    decay: f32,
    _padding: u32,
}

// SAFETY: numbers, and no gaps between them.
unsafe impl Plain for Parameter {}

/// As in `optimizer.cu`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Told {
    scale: f64,
    clip: f64,
    /// β₁, 1 - β₁, β₂, 1 - β₂, 1 / √(1 - β₂ᵗ), ε, learning rate / (1 - β₁ᵗ).
    factors: [f32; 7],
    _padding: u32,
}

// SAFETY: numbers, and no gaps between them.
unsafe impl Plain for Told {}

/// The norm of the gradients, and the factor that they were multiplied by, in device memory.
pub struct Found(Readback);

impl AdamWOps for Cuda {
    type Norm = Found;

    fn mask(&self, x: &mut Tensor<Self>, mask: &Mask) -> Result<()> {
        let len = x.shape().len();
        assert_eq!(len, mask.0.len(), "a mask has a byte for each element");
        let mask = self.constant(&mask.0)?;
        let arguments: [&dyn Argument; 3] = [x.buffer(), &*mask, &(len as u64)];
        let grid = Grid::blocks(len.div_ceil(THREADS), THREADS);
        self.launch("optimizer", Storage::F32, "mask_zeros", grid, &arguments)
    }

    fn adamw(&self, updates: Vec<Update<'_, Self>>, clip: f64, step: &AdamWStep) -> Result<Found> {
        let AdamWStep { learning_rate, beta1, beta2, eps, weight_decay, gradient_scale, .. } = *step;
        let decayed = (1.0 - learning_rate * weight_decay) as f32;
        let masks = updates.iter().map(|update| update.mask.map(|mask| self.constant(&mask.0)).transpose());
        let masks: Vec<Option<Arc<Memory>>> = masks.collect::<Result<_>>()?;
        let mut chunks = 0;
        let parameters: Vec<Parameter> = updates
            .into_iter()
            .zip(&masks)
            .filter(|(update, _)| !update.w.shape().is_empty())
            .map(|(Update { w, moments: [m, v], gradient, decays, .. }, mask)| {
                let len = w.shape().len();
                let first_chunk = chunks as u64;
                chunks += len.div_ceil(CHUNK);
                let [w, m, v] = [w, m, v].map(|state| state.buffer_mut().memory().address());
                let addresses = [
                    w,
                    m,
                    v,
                    gradient.buffer().memory().address(),
                    mask.as_ref().map_or(0, |mask| mask.address()),
                ];
                let decay = if decays { decayed } else { 1.0 };
                Parameter { addresses, len: len as u64, first_chunk, decay, _padding: 0 }
            })
            .collect();
        let factors = [
            beta1,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            1.0 / step.bias_correction(beta2).sqrt(),
            eps,
            learning_rate / step.bias_correction(beta1),
        ]
        .map(|factor| factor as f32);
        let told = self.upload_all(&[Told { scale: gradient_scale, clip, factors, _padding: 0 }])?;
        let (table, count) = (self.upload_all(&parameters)?, parameters.len() as i32);
        let partial = self.memory(chunks * size_of::<f64>())?;
        let found = self.memory(2 * size_of::<f64>())?;
        let grid = Grid::blocks(chunks, THREADS);
        self.launch("optimizer", Storage::F32, "gradient_squares", grid, &[&table, &count, &partial])?;
        let arguments: [&dyn Argument; 4] = [&partial, &(chunks as i32), &told, &found];
        self.launch("optimizer", Storage::F32, "clip_factor", Grid::blocks(1, 1024), &arguments)?;
        self.launch("optimizer", Storage::F32, "adamw", grid, &[&table, &count, &found, &told])?;
        Ok(Found(Readback::new(found, 2)))
    }

    fn start_norm_readback(&self, Found(found): &mut Found) -> Result<()> {
        self.call(found)
    }

    fn norm(&self, Found(found): Found) -> Result<f64> {
        Ok(self.receive(found)?[0])
    }
}
