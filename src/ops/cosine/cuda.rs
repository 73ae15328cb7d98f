//! The cosine loss on a GPU: a warp a row, whose cosines the host adds up in order.

use super::CosineOps;
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid};
use crate::tensor::Tensor;

/// Rows of a block.
const ROWS: usize = 8;

impl CosineOps for Cuda {
    fn cosine(&self, x: &Tensor<Self>, y: &Tensor<Self>, weight: f64) -> Result<(f64, Tensor<Self>)> {
        let shape = x.shape();
        assert_eq!(shape, y.shape(), "a teacher's state for each of the student's");
        let rows = shape.rows.max(1) as f64;
        let (x, y, dx) = (self.activation(x)?, self.activation(y)?, self.activations(shape)?);
        let cosines = self.memory(shape.rows * size_of::<f64>())?;
        let arguments: [&dyn Argument; 7] = [
            x.buffer(),
            y.buffer(),
            &(-weight / rows),
            &(shape.rows as i32),
            &(shape.cols as i32),
            dx.buffer(),
            &cosines,
        ];
        let grid = Grid::blocks(shape.rows.div_ceil(ROWS), 32 * ROWS);
        self.launch("terms", self.storage(), "cosine", grid, &arguments)?;
        let cosines: Vec<f64> = self.download_all(&cosines, shape.rows)?;
        Ok((cosines.into_iter().map(|cosine| 1.0 - cosine).sum::<f64>() / rows, dx))
    }
}
