//! Sums over blocks on a GPU: a thread a block.

use super::{BlockOps, BlockShape, Summed};
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid, Storage};
use crate::tensor::Tensor;

impl BlockOps for Cuda {
    fn block_sums(
        &self,
        summed: Summed,
        x: &Tensor<Self>,
        y: &Tensor<Self>,
        block: BlockShape,
        sums: &mut [f64],
    ) -> Result<()> {
        let (shape, count) = (x.shape(), block.count(x.shape()));
        assert_eq!(shape, y.shape(), "products of two matrices of one shape");
        assert_eq!(sums.len(), count, "a sum for each block");
        let (x, y) = (self.stored(x, Storage::F32)?, self.stored(y, Storage::F32)?);
        let found = self.memory(count * size_of::<f64>())?;
        let arguments: [&dyn Argument; 8] = [
            x.buffer(),
            y.buffer(),
            &i32::from(summed == Summed::Squares),
            &(shape.rows as i32),
            &(shape.cols as i32),
            &(block.outputs as i32),
            &(block.inputs as i32),
            &found,
        ];
        self.launch("terms", Storage::F32, "block_sums", Grid::blocks(count.div_ceil(256), 256), &arguments)?;
        let found: Vec<f64> = self.download_all(&found, count)?;
        sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        Ok(())
    }
}
