//! A linear layer on the CPU: rows split over threads, one shared packed operand.

use super::{LinearOps, Orientation};
use crate::Result;
use crate::backend::Cpu;
use crate::backend::cpu::threads::{reduce, rows_per_block};
use crate::models::config::Activation;
use crate::ops::activation::activate;
use crate::tensor::{Shape, Tensor};
use limbeck_kernels::gemm::{Epilogue, Matrix, PackedMatrix};
use rayon::prelude::*;

/// Rows of the left operand that one task multiplies: a multiple of every tile's height, few enough that
/// two cores share a batch evenly, enough that a packed panel is read from the cache.
const ROWS: usize = 168;

/// Rows whose columns are summed by one task.
const SUM_ROWS: usize = 256;

impl LinearOps for Cpu {
    type Packed = PackedMatrix;

    fn pack_weight(
        &self,
        weight: &Tensor<Self>,
        orientation: Orientation,
        recycle: Option<PackedMatrix>,
    ) -> Result<PackedMatrix> {
        let matrix = matrix(weight);
        let matrix = match orientation {
            Orientation::Forward => matrix.transpose(),
            Orientation::Backward => matrix,
        };
        let [k, n] = matrix.shape();
        let memory = recycle.unwrap_or_else(|| PackedMatrix::new(self.precision(), k, n));
        Ok(pack(self, matrix, memory))
    }

    fn fits(&self, packed: &PackedMatrix) -> bool {
        packed.precision() == self.precision()
    }

    fn linear_forward(
        &self,
        x: &Tensor<Self>,
        weight: &PackedMatrix,
        bias: &Tensor<Self>,
        activation: Activation,
        keep: bool,
    ) -> Result<(Tensor<Self>, Option<Tensor<Self>>)> {
        let shape = Shape::new(x.rows(), bias.cols());
        let (kernels, epilogue) = (self.kernels(), Epilogue { bias: Some(bias.buffer()), accumulate: false });
        let mut y = self.buffer(shape.len());
        let apart = keep && activation == Activation::Gelu;
        if !apart {
            multiply(self, matrix(x), weight, epilogue, &mut y, |block| activate(kernels, activation, block));
            let y = Tensor::from_buffer(y, shape);
            let kept = (keep && activation != Activation::Identity).then(|| y.clone());
            return Ok((y, kept));
        }
        let mut z = self.buffer(shape.len());
        multiply(self, matrix(x), weight, epilogue, &mut z, |_| ());
        let block = rows_per_block(shape.cols) * shape.cols.max(1);
        y.par_chunks_mut(block).zip(z.par_chunks(block)).for_each(|(y, z)| kernels.gelu_forward(z, y));
        Ok((Tensor::from_buffer(y, shape), Some(Tensor::from_buffer(z, shape))))
    }

    fn activation_backward(
        &self,
        dy: &Tensor<Self>,
        kept: &Tensor<Self>,
        activation: Activation,
    ) -> Result<Tensor<Self>> {
        let mut dz = self.buffer(dy.shape().len());
        let block = 1 << 14;
        let blocks =
            dz.par_chunks_mut(block).zip(dy.buffer().par_chunks(block).zip(kept.buffer().par_chunks(block)));
        blocks.for_each(|(dz, (dy, kept))| match activation {
            Activation::Identity => dz.copy_from_slice(dy),
            Activation::Gelu => self.kernels().gelu_backward(kept, dy, dz),
            Activation::Relu => self.kernels().relu_backward(kept, dy, dz),
            Activation::Tanh => self.kernels().tanh_backward(kept, dy, dz),
        });
        Ok(Tensor::from_buffer(dz, dy.shape()))
    }

    fn input_gradient(
        &self,
        dz: &Tensor<Self>,
        weight: &PackedMatrix,
        inputs: usize,
        into: Option<Tensor<Self>>,
    ) -> Result<Tensor<Self>> {
        let shape = Shape::new(dz.rows(), inputs);
        let accumulate = into.is_some();
        let mut dx = into.unwrap_or_else(|| Tensor::from_buffer(self.buffer(shape.len()), shape));
        multiply(self, matrix(dz), weight, Epilogue { bias: None, accumulate }, dx.buffer_mut(), |_| ());
        Ok(dx)
    }

    fn weight_gradient(
        &self,
        dz: &Tensor<Self>,
        x: &Tensor<Self>,
        dw: &mut Tensor<Self>,
        accumulate: bool,
    ) -> Result<()> {
        let packed = pack(self, matrix(x), self.packed(x.rows(), x.cols()));
        let epilogue = Epilogue { bias: None, accumulate };
        multiply(self, matrix(dz).transpose(), &packed, epilogue, dw.buffer_mut(), |_| ());
        self.give_back(packed);
        Ok(())
    }

    fn bias_gradient(&self, dz: &Tensor<Self>, db: &mut Tensor<Self>, accumulate: bool) -> Result<()> {
        let db: &mut [f32] = db.buffer_mut();
        if !accumulate {
            db.fill(0.0);
        }
        let blocks = dz.buffer().par_chunks((SUM_ROWS * dz.cols()).max(1));
        reduce(blocks, &mut [db], |dz, sums| self.kernels().column_sums(dz, &mut sums[0]));
        Ok(())
    }
}

fn matrix(tensor: &Tensor<Cpu>) -> Matrix<'_> {
    Matrix::new(tensor.buffer(), tensor.rows(), tensor.cols())
}

/// Packs `b` on all threads, in the memory of `packed`.
fn pack(cpu: &Cpu, b: Matrix<'_>, mut packed: PackedMatrix) -> PackedMatrix {
    let [k, n] = b.shape();
    packed.reset(cpu.precision(), k, n);
    let each = packed.panels().div_ceil(4 * rayon::current_num_threads()).max(1);
    let parts: Vec<_> = packed.split_mut(each).collect();
    parts.into_par_iter().for_each(|mut part| cpu.kernels().pack(b, &mut part));
    packed
}

/// `c = a·b`, and `after` on each finished block of rows while it is in the cache.
fn multiply(
    cpu: &Cpu,
    a: Matrix<'_>,
    b: &PackedMatrix,
    epilogue: Epilogue<'_>,
    c: &mut [f32],
    after: impl Fn(&mut [f32]) + Sync,
) {
    let ([rows_of_a, _], [_, cols]) = (a.shape(), b.shape());
    if cols == 0 {
        return;
    }
    // Two even tasks a thread, at most ROWS rows each.
    let tasks = 2 * rayon::current_num_threads();
    let rows = rows_of_a.div_ceil(tasks).next_multiple_of(12).clamp(12, ROWS);
    c.par_chunks_mut(rows * cols).enumerate().for_each(|(i, c)| {
        let first = i * rows;
        cpu.kernels().gemm(a.rows(first..(first + rows).min(rows_of_a)), b, epilogue, c, cols);
        after(c);
    });
}
