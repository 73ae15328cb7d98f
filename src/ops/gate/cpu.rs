//! Gate derivatives on the CPU: one task a text.

use super::GateOps;
use crate::Batch;
use crate::Result;
use crate::backend::Cpu;
use crate::tensor::Tensor;
use rayon::prelude::*;

impl GateOps for Cpu {
    fn gate_gradients(
        &self,
        batch: &Batch,
        x: &Tensor<Self>,
        dx: &Tensor<Self>,
        width: usize,
    ) -> Result<Vec<f64>> {
        let (cols, x_rows) = (x.cols(), x.rows());
        assert!(cols.is_multiple_of(width), "groups of {width} of {cols} columns");
        if cols == 0 {
            return Ok(Vec::new());
        }
        let (x, dx) = (&x.buffer()[..], &dx.buffer()[..]);
        let of_text = |text: usize| -> Vec<f64> {
            let rows = batch.rows_of(text, x_rows);
            let elements = rows.start * cols..rows.end * cols;
            let mut products = vec![0.0f32; cols];
            for (x, dx) in x[elements.clone()].chunks(cols).zip(dx[elements].chunks(cols)) {
                products.iter_mut().zip(x.iter().zip(dx)).for_each(|(sum, (x, dx))| *sum += x * dx);
            }
            products.chunks(width).map(|group| group.iter().map(|&p| f64::from(p)).sum()).collect()
        };
        let texts: Vec<Vec<f64>> = (0..batch.texts()).into_par_iter().map(of_text).collect();
        Ok(texts.concat())
    }
}
