//! Pooling on a GPU: a block a text, and a warp a token back.

use super::{Pool, PoolOps};
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid, RowLayout};
use crate::tensor::{Shape, Tensor};
use crate::{Batch, Result};

/// Rows of a block.
const ROWS: usize = 8;

impl PoolOps for Cuda {
    fn pool_forward(&self, batch: &Batch, x: &Tensor<Self>, pool: Pool) -> Result<Tensor<Self>> {
        let (on_device, x) = (self.batch(batch)?, self.activation(x)?);
        let y = self.activations(Shape::new(batch.texts(), x.cols()))?;
        let offsets = (RowLayout::of(batch, x.rows()) == RowLayout::Tokens).then_some(&on_device.offsets);
        let arguments: [&dyn Argument; 5] =
            [x.buffer(), &offsets, &i32::from(pool == Pool::Mean), &(x.cols() as i32), y.buffer()];
        self.launch("pool", self.storage(), "pool_forward", Grid::blocks(batch.texts(), 256), &arguments)?;
        Ok(y)
    }

    fn pool_backward(&self, batch: &Batch, dy: &Tensor<Self>, pool: Pool) -> Result<Tensor<Self>> {
        let (on_device, dy) = (self.batch(batch)?, self.activation(dy)?);
        let dx = self.activations(Shape::new(batch.tokens(), dy.cols()))?;
        let arguments: [&dyn Argument; 7] = [
            dy.buffer(),
            &on_device.offsets,
            &on_device.text_of_token,
            &i32::from(pool == Pool::Mean),
            &(dx.rows() as i32),
            &(dx.cols() as i32),
            dx.buffer(),
        ];
        let grid = Grid::blocks(dx.rows().div_ceil(ROWS), 32 * ROWS);
        self.launch("pool", self.storage(), "pool_backward", grid, &arguments)?;
        Ok(dx)
    }
}
