//! Dropout on a GPU: a warp a row.

use super::{DropoutOps, DropoutSite};
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid, Memory, RowLayout};
use crate::tensor::Tensor;
use crate::{Batch, Result};

/// Rows of a block.
const ROWS: usize = 8;

impl DropoutSite {
    /// What the hash of an index is compared with, and the factor of what is kept, as on the CPU.
    pub(in crate::ops) fn threshold_and_factor(&self) -> (u32, f32) {
        ((f64::from(self.rate) * f64::from(1u32 << 31)) as u32, 1.0 / (1.0 - self.rate))
    }
}

impl Cuda {
    /// The key of each text at `site`, in device memory: `u64[texts]`.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub(in crate::ops) fn dropout_keys(&self, batch: &Batch, site: &DropoutSite) -> Result<Memory> {
        let (texts, on_device) = (batch.texts(), self.batch(batch)?);
        let (keys, step) = (self.memory(texts * size_of::<u64>())?, self.step_key(site.seed.key())?);
        let arguments: [&dyn Argument; 5] =
            [&on_device.samples, &*step, &u64::from(site.place), &(texts as i32), &keys];
        self.launch(
            "dropout",
            self.storage(),
            "dropout_keys",
            Grid::blocks(texts.div_ceil(256), 256),
            &arguments,
        )?;
        Ok(keys)
    }
}

impl DropoutOps for Cuda {
    fn dropout(&self, batch: &Batch, x: &Tensor<Self>, site: &DropoutSite) -> Result<Tensor<Self>> {
        let (shape, on_device) = (x.shape(), self.batch(batch)?);
        let (x, y) = (self.activation(x)?, self.activations(shape)?);
        let (threshold, factor) = site.threshold_and_factor();
        let step = self.step_key(site.seed.key())?;
        let texts =
            (RowLayout::of(batch, shape.rows) == RowLayout::Tokens).then_some(&on_device.text_of_token);
        let arguments: [&dyn Argument; 11] = [
            x.buffer(),
            &texts,
            &on_device.offsets,
            &on_device.samples,
            &*step,
            &u64::from(site.place),
            &threshold,
            &factor,
            &(shape.rows as i32),
            &(shape.cols as i32),
            y.buffer(),
        ];
        let grid = Grid::blocks(shape.rows.div_ceil(ROWS), 32 * ROWS);
        self.launch("dropout", self.storage(), "dropout", grid, &arguments)?;
        Ok(y)
    }
}
