//! Layer norm on the CPU: blocks of rows.

use super::{DropoutArgs, NormOps, NormSaved};
use crate::Result;
use crate::backend::Cpu;
use crate::backend::cpu::threads::{reduce, rows_per_block};
use crate::ops::dropout::DropoutOps;
use crate::tensor::{Shape, Tensor};
use limbeck_kernels::rows::{LayerNormGradients, LayerNormSaved};
use rayon::prelude::*;

/// Rows whose contributions to `dgamma` and `dbeta` one task sums.
const SUM_ROWS: usize = 128;

impl NormOps for Cpu {
    fn norm_forward(
        &self,
        x: &Tensor<Self>,
        dropout: Option<DropoutArgs<'_>>,
        residual: Option<&Tensor<Self>>,
        gamma: &Tensor<Self>,
        beta: &Tensor<Self>,
        eps: f32,
    ) -> Result<(Tensor<Self>, NormSaved<Self>)> {
        let dropped = dropout.map(|(batch, site)| self.dropout(batch, x, site)).transpose()?;
        let x = dropped.as_ref().unwrap_or(x);
        let (shape, cols) = (x.shape(), x.cols());
        let block = rows_per_block(cols);
        let mut y = self.buffer(shape.len());
        let (mut mean, mut rstd) = (self.buffer(shape.rows), self.buffer(shape.rows));
        let stats = mean.par_chunks_mut(block).zip(rstd.par_chunks_mut(block));
        let normalize = |z: &[f32], y: &mut [f32], (mean, rstd): (&mut [f32], &mut [f32])| {
            self.kernels().layer_norm_forward(
                z,
                gamma.buffer(),
                beta.buffer(),
                eps,
                y,
                Some(LayerNormSaved { mean, rstd }),
            );
        };
        let z = match residual {
            None => {
                let rows = x.buffer().par_chunks(block * cols).zip(y.par_chunks_mut(block * cols)).zip(stats);
                rows.for_each(|((z, y), stats)| normalize(z, y, stats));
                x.clone()
            }
            Some(residual) => {
                assert_eq!(residual.shape(), shape, "a residual has the shape of what is added to it");
                let mut z = self.buffer(shape.len());
                let inputs =
                    x.buffer().par_chunks(block * cols).zip(residual.buffer().par_chunks(block * cols));
                let outputs = z.par_chunks_mut(block * cols).zip(y.par_chunks_mut(block * cols)).zip(stats);
                inputs.zip(outputs).for_each(|((x, residual), ((z, y), stats))| {
                    z.copy_from_slice(x);
                    self.kernels().add(residual, z);
                    normalize(z, y, stats);
                });
                Tensor::from_buffer(z, shape)
            }
        };
        let per_row = Shape::vector(shape.rows);
        let (mean, rstd) = (Tensor::from_buffer(mean, per_row), Tensor::from_buffer(rstd, per_row));
        Ok((Tensor::from_buffer(y, shape), NormSaved { z, mean, rstd }))
    }

    fn norm_backward(
        &self,
        dy: &Tensor<Self>,
        saved: &NormSaved<Self>,
        dropout: Option<DropoutArgs<'_>>,
        gamma: &Tensor<Self>,
        parameters: [&mut Tensor<Self>; 2],
        accumulate: bool,
    ) -> Result<[Tensor<Self>; 2]> {
        let (shape, cols) = (dy.shape(), dy.cols());
        let mut dz = self.buffer(shape.len());
        let [dgamma, dbeta] = parameters.map(|parameter| &mut parameter.buffer_mut()[..]);
        if !accumulate {
            dgamma.fill(0.0);
            dbeta.fill(0.0);
        }
        let stats = saved.mean.buffer().par_chunks(SUM_ROWS).zip(saved.rstd.buffer().par_chunks(SUM_ROWS));
        let size = (SUM_ROWS * cols).max(1);
        let inputs = dy.buffer().par_chunks(size).zip(saved.z.buffer().par_chunks(size));
        let blocks = dz.par_chunks_mut(size).zip(inputs).zip(stats);
        reduce(blocks, &mut [dgamma, dbeta], |((dz, (dy, z)), (mean, rstd)), sums| {
            let [dgamma, dbeta] = sums else { unreachable!("two totals, two sums") };
            let into = &mut LayerNormGradients { dx: dz, dgamma, dbeta };
            self.kernels().layer_norm_backward(dy, z, gamma.buffer(), mean, rstd, into);
        });
        let dz = Tensor::from_buffer(dz, shape);
        let dx = dropout.map(|(batch, site)| self.dropout(batch, &dz, site)).transpose()?;
        Ok([dx.unwrap_or_else(|| dz.clone()), dz])
    }
}
