//! How much the loss would change if a gate on a group of columns closed: `|∂L/∂ξ|` for `y = ξ·x` at `ξ = 1`.
//!
//! For one text the derivative is `Σ x·dx` over its rows and the group's columns; its absolute value, summed
//! over texts, is the importance of the group (Michel, Levy and Neubig, arXiv:1905.10650, for attention
//! heads; Molchanov et al., arXiv:1611.06440, for units).

use crate::Batch;
use crate::Result;
use crate::backend::{Cpu, Device};
use crate::tensor::Tensor;
use rayon::prelude::*;

/// Gate derivatives on a device.
pub trait GateOps: Device {
    /// Adds to `scores`, one for each group of `width` columns, the sum over the texts of `batch` of
    /// `|Σ x·dx|`.
    ///
    /// # Errors
    /// The device's.
    fn gate_scores(
        &self,
        batch: &Batch,
        x: &Tensor<Self>,
        dx: &Tensor<Self>,
        width: usize,
        scores: &mut [f64],
    ) -> Result<()>;
}

impl GateOps for Cpu {
    fn gate_scores(
        &self,
        batch: &Batch,
        x: &Tensor<Self>,
        dx: &Tensor<Self>,
        width: usize,
        scores: &mut [f64],
    ) -> Result<()> {
        let (cols, x_rows) = (x.cols(), x.rows());
        assert_eq!(cols, scores.len() * width, "a score for each group of columns");
        if cols == 0 {
            return Ok(());
        }
        let (x, dx) = (&x.buffer()[..], &dx.buffer()[..]);
        let of_text = |text: usize| -> Vec<f64> {
            let rows = batch.rows_of(text, x_rows);
            let elements = rows.start * cols..rows.end * cols;
            let mut products = vec![0.0f32; cols];
            for (x, dx) in x[elements.clone()].chunks(cols).zip(dx[elements].chunks(cols)) {
                products.iter_mut().zip(x.iter().zip(dx)).for_each(|(sum, (x, dx))| *sum += x * dx);
            }
            products
                .chunks(width)
                .map(|group| group.iter().map(|&p| f64::from(p)).sum::<f64>().abs())
                .collect()
        };
        let texts: Vec<Vec<f64>> = (0..batch.texts()).into_par_iter().map(of_text).collect();
        for text in texts {
            scores.iter_mut().zip(text).for_each(|(score, value)| *score += value);
        }
        Ok(())
    }
}
