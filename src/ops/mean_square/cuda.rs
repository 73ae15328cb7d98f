//! The mean square on a GPU: blocks of elements, whose sums the host adds up in order.

use super::MeanSquareOps;
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid};
use crate::tensor::Tensor;

/// Elements of a block, as `terms.cu` says.
const BLOCK: usize = 1 << 12;

impl MeanSquareOps for Cuda {
    fn mean_square(&self, x: &Tensor<Self>, y: &Tensor<Self>, weight: f64) -> Result<(f64, Tensor<Self>)> {
        let shape = x.shape();
        assert_eq!(shape, y.shape(), "a teacher's state for each of the student's");
        let count = shape.len().max(1) as f64;
        let (x, y, dx) = (self.activation(x)?, self.activation(y)?, self.activations(shape)?);
        let blocks = shape.len().div_ceil(BLOCK);
        let partial = self.memory(blocks * size_of::<f64>())?;
        let arguments: [&dyn Argument; 6] = [
            x.buffer(),
            y.buffer(),
            &((2.0 * weight / count) as f32),
            &(shape.len() as u64),
            dx.buffer(),
            &partial,
        ];
        self.launch("terms", self.storage(), "mean_square", Grid::blocks(blocks, 256), &arguments)?;
        let sums: Vec<f64> = self.download_all(&partial, blocks)?;
        Ok((sums.into_iter().sum::<f64>() / count, dx))
    }
}
