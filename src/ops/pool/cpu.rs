//! Pooling on the CPU.

use super::{Pool, PoolOps};
use crate::Batch;
use crate::Result;
use crate::backend::Cpu;
use crate::tensor::{Shape, Tensor};

impl PoolOps for Cpu {
    fn pool_forward(&self, batch: &Batch, x: &Tensor<Self>, pool: Pool) -> Result<Tensor<Self>> {
        let shape = Shape::new(batch.texts(), x.cols());
        let mut y = self.zeroed(shape.len());
        for (text, y) in y.chunks_mut(shape.cols.max(1)).enumerate() {
            let rows = batch.rows_of(text, x.rows());
            let x = &x.buffer()[rows.start * shape.cols..rows.end * shape.cols];
            match pool {
                Pool::First => y.copy_from_slice(&x[..shape.cols]),
                Pool::Mean => {
                    self.kernels().column_sums(x, y);
                    self.kernels().scale(y, 1.0 / rows.len() as f32);
                }
            }
        }
        Ok(Tensor::from_buffer(y, shape))
    }

    fn pool_backward(&self, batch: &Batch, dy: &Tensor<Self>, pool: Pool) -> Result<Tensor<Self>> {
        let shape = Shape::new(batch.tokens(), dy.cols());
        let mut dx = self.zeroed(shape.len());
        for (text, dy) in dy.buffer().chunks(shape.cols.max(1)).enumerate() {
            let rows = batch.text(text);
            let share = match pool {
                Pool::First => rows.start..rows.start + 1,
                Pool::Mean => rows.clone(),
            };
            let weight = 1.0 / share.len() as f32;
            for row in share {
                let dx = &mut dx[row * shape.cols..(row + 1) * shape.cols];
                dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = dy * weight);
            }
        }
        Ok(Tensor::from_buffer(dx, shape))
    }
}
