//! The mean square on the CPU: blocks of elements, summed in their order.

use super::MeanSquareOps;
use crate::Result;
use crate::backend::Cpu;
use crate::tensor::Tensor;
use rayon::prelude::*;

/// Elements of one task.
const BLOCK: usize = 1 << 14;

impl MeanSquareOps for Cpu {
    fn mean_square(&self, x: &Tensor<Self>, y: &Tensor<Self>, weight: f64) -> Result<(f64, Tensor<Self>)> {
        let shape = x.shape();
        assert_eq!(shape, y.shape(), "a teacher's state for each of the student's");
        let count = shape.len().max(1) as f64;
        let slope = (2.0 * weight / count) as f32;
        let mut dx = self.buffer(shape.len());
        let (xs, ys) = (x.buffer().par_chunks(BLOCK), y.buffer().par_chunks(BLOCK));
        let blocks = dx.par_chunks_mut(BLOCK).zip(xs.zip(ys));
        let of_block = |(dx, (x, y)): (&mut [f32], (&[f32], &[f32]))| -> f64 {
            let mut squares = 0.0;
            for (dx, (x, y)) in dx.iter_mut().zip(x.iter().zip(y)) {
                let difference = x - y;
                *dx = slope * difference;
                squares += f64::from(difference) * f64::from(difference);
            }
            squares
        };
        let sums: Vec<f64> = blocks.map(of_block).collect();
        Ok((sums.into_iter().sum::<f64>() / count, Tensor::from_buffer(dx, shape)))
    }
}
