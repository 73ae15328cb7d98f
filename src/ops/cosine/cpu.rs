//! The cosine loss on the CPU: each row whole in one task, with sums in f64, added up in the order of the rows.

use super::CosineOps;
use crate::Result;
use crate::backend::Cpu;
use crate::backend::cpu::threads::rows_per_block;
use crate::tensor::Tensor;
use rayon::prelude::*;

impl CosineOps for Cpu {
    fn cosine(&self, x: &Tensor<Self>, y: &Tensor<Self>, weight: f64) -> Result<(f64, Tensor<Self>)> {
        let (shape, cols) = (x.shape(), x.cols().max(1));
        assert_eq!(shape, y.shape(), "a teacher's state for each of the student's");
        let rows = shape.rows.max(1) as f64;
        let mut dx = self.buffer(shape.len());
        let block = rows_per_block(cols) * cols;
        let (xs, ys) = (x.buffer().par_chunks(block), y.buffer().par_chunks(block));
        let blocks = dx.par_chunks_mut(block).zip(xs.zip(ys));
        let of_block = |(dx, (x, y)): (&mut [f32], (&[f32], &[f32]))| -> f64 {
            let rows_of_block = dx.chunks_mut(cols).zip(x.chunks(cols).zip(y.chunks(cols)));
            rows_of_block.map(|(dx, (x, y))| 1.0 - row(x, y, -weight / rows, dx)).sum()
        };
        let sums: Vec<f64> = blocks.map(of_block).collect();
        Ok((sums.into_iter().sum::<f64>() / rows, Tensor::from_buffer(dx, shape)))
    }
}

/// The cosine of two rows; `dx` becomes `slope` times its derivative by `x`.
fn row(x: &[f32], y: &[f32], slope: f64, dx: &mut [f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let (xx, yy) = (dot(x, x), dot(y, y));
    if xx == 0.0 || yy == 0.0 {
        dx.fill(0.0);
        return 0.0;
    }
    let norms = (xx * yy).sqrt();
    let cosine = dot(x, y) / norms;
    let (of_y, of_x) = (slope / norms, slope * cosine / xx);
    for (dx, (x, y)) in dx.iter_mut().zip(x.iter().zip(y)) {
        *dx = (of_y * f64::from(*y) - of_x * f64::from(*x)) as f32;
    }
    cosine
}
