//! Layer norm on a GPU: a warp a row; the parameters' gradients by slices of rows.

use super::{DropoutArgs, NormOps, NormSaved};
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, DeviceBatch, Grid, Memory, RowLayout, Sliced, Storage};
use crate::tensor::{Shape, Tensor};
use std::sync::Arc;

/// Rows of a block.
const ROWS: usize = 8;

/// Rows whose contributions to `dgamma` and `dbeta` one block sums: enough blocks for a GPU at 10,000 tokens, few enough slices.
const SLICE: usize = 64;

impl NormOps for Cuda {
    fn norm_forward(
        &self,
        x: &Tensor<Self>,
        dropout: Option<DropoutArgs<'_>>,
        residual: Option<&Tensor<Self>>,
        gamma: &Tensor<Self>,
        beta: &Tensor<Self>,
        eps: f32,
    ) -> Result<(Tensor<Self>, NormSaved<Self>)> {
        let shape = x.shape();
        let x = self.activation(x)?;
        let residual = residual.map(|residual| self.activation(residual)).transpose()?;
        assert!(dropout.is_none() || residual.is_some(), "what is dropped out of is added to something");
        let drop = Drop::new(self, dropout, shape.rows)?;
        let z = residual.is_some().then(|| self.activations(shape)).transpose()?;
        let (y, per_row) = (self.activations(shape)?, Shape::vector(shape.rows));
        let [mean, rstd] = [(); 2].map(|()| self.tensor(per_row, Storage::F32));
        let (mean, rstd) = (mean?, rstd?);
        let arguments: [&dyn Argument; 16] = [
            x.buffer(),
            &drop.keys.as_ref(),
            &drop.text_of_token(),
            &drop.offsets(),
            &drop.threshold,
            &drop.factor,
            &residual.as_ref().map(|residual| residual.buffer()),
            gamma.buffer(),
            beta.buffer(),
            &eps,
            &(shape.rows as i32),
            &(shape.cols as i32),
            &z.as_ref().map(Tensor::buffer),
            y.buffer(),
            mean.buffer(),
            rstd.buffer(),
        ];
        let grid = Grid::blocks(shape.rows.div_ceil(ROWS), 32 * ROWS);
        self.launch("norm", self.storage(), "norm_forward", grid, &arguments)?;
        Ok((y, NormSaved { z: z.unwrap_or_else(|| x.into_owned()), mean, rstd }))
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
        let (shape, dy, dz) = (dy.shape(), self.activation(dy)?, self.activations(dy.shape())?);
        let NormSaved { z, mean, rstd } = saved;
        let (rows, cols) = (shape.rows as i32, shape.cols as i32);
        let drop = Drop::new(self, dropout, shape.rows)?;
        let dx = dropout.is_some().then(|| self.activations(shape)).transpose()?;
        let arguments: [&dyn Argument; 14] = [
            dy.buffer(),
            z.buffer(),
            &drop.keys.as_ref(),
            &drop.text_of_token(),
            &drop.offsets(),
            &drop.threshold,
            &drop.factor,
            gamma.buffer(),
            mean.buffer(),
            rstd.buffer(),
            &rows,
            &cols,
            &dx.as_ref().map(Tensor::buffer),
            dz.buffer(),
        ];
        let grid = Grid::blocks(shape.rows.div_ceil(ROWS), 32 * ROWS);
        self.launch("norm", self.storage(), "norm_backward", grid, &arguments)?;
        let slices = shape.rows.div_ceil(SLICE);
        let partial = self.buffer(slices * 2 * shape.cols, Storage::F32)?;
        let arguments: [&dyn Argument; 8] =
            [dy.buffer(), z.buffer(), mean.buffer(), rstd.buffer(), &rows, &cols, &(SLICE as i32), &partial];
        let grid = Grid::plane(shape.cols.div_ceil(256), slices, 256);
        self.launch("norm", self.storage(), "norm_parameters", grid, &arguments)?;
        for (which, sums) in parameters.into_iter().enumerate() {
            let sliced =
                Sliced { partial: &partial, first: which * shape.cols, slices, stride: 2 * shape.cols };
            self.sum_slices(sliced, sums.buffer_mut(), accumulate)?;
        }
        Ok([dx.unwrap_or_else(|| dz.clone()), dz])
    }
}

/// Where dropout acts, as the kernels take it: keys are null where nothing is dropped.
struct Drop {
    keys: Option<Memory>,
    batch: Option<Arc<DeviceBatch>>,
    rows: RowLayout,
    threshold: u32,
    factor: f32,
}

impl Drop {
    fn new(cuda: &Cuda, dropout: Option<DropoutArgs<'_>>, rows: usize) -> Result<Drop> {
        let Some((batch, site)) = dropout else {
            return Ok(Drop { keys: None, batch: None, rows: RowLayout::Texts, threshold: 0, factor: 1.0 });
        };
        let (threshold, factor) = site.threshold_and_factor();
        let keys = Some(cuda.dropout_keys(batch, site)?);
        Ok(Drop {
            keys,
            batch: Some(cuda.batch(batch)?),
            rows: RowLayout::of(batch, rows),
            threshold,
            factor,
        })
    }

    fn text_of_token(&self) -> Option<&Memory> {
        self.batch.as_ref().filter(|_| self.rows == RowLayout::Tokens).map(|batch| &batch.text_of_token)
    }

    fn offsets(&self) -> Option<&Memory> {
        self.batch.as_ref().map(|batch| &batch.offsets)
    }
}
