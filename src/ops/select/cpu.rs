//! Rows picked on the CPU: copies.

use super::SelectOps;
use crate::Result;
use crate::backend::Cpu;
use crate::tensor::{Shape, Tensor};

impl SelectOps for Cpu {
    fn select(&self, x: &Tensor<Self>, rows: &[u32]) -> Result<Tensor<Self>> {
        let shape = Shape::new(rows.len(), x.cols());
        let mut y = self.buffer(shape.len());
        for (y, row) in y.chunks_mut(shape.cols.max(1)).zip(rows) {
            y.copy_from_slice(&x.buffer()[*row as usize * shape.cols..][..shape.cols]);
        }
        Ok(Tensor::from_buffer(y, shape))
    }

    fn put(&self, y: &Tensor<Self>, rows: &[u32], x: &mut Tensor<Self>) -> Result<()> {
        let cols = x.cols();
        assert_eq!(y.shape(), Shape::new(rows.len(), cols), "a row for each place");
        for (y, row) in y.buffer().chunks(cols.max(1)).zip(rows) {
            x.buffer_mut()[*row as usize * cols..][..cols].copy_from_slice(y);
        }
        Ok(())
    }

    fn zero_activations(&self, shape: Shape) -> Result<Tensor<Self>> {
        Ok(Tensor::from_buffer(self.zeroed(shape.len()), shape))
    }
}
