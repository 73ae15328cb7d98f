//! Sums over the blocks of a matrix: how large a block is, and how the loss would change with it.
//!
//! A matrix `[outputs, inputs]` is cut into blocks of one shape from its first element on; where the shape does
//! not divide it, the last blocks of a row or column are smaller. `Σ w·w` over a block is its squared norm,
//! `Σ w·dw` the derivative of the loss by a factor on the whole block, and `Σ (w·dw)²` the sum of the squared derivatives
//! by a factor on each of its weights.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Result;
use crate::backend::Device;
use crate::tensor::{Shape, Tensor};

/// The shape of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// Consecutive outputs: rows of the matrix. 1 or more.
    pub outputs: usize,
    /// Consecutive inputs: columns of the matrix. 1 or more.
    pub inputs: usize,
}

impl BlockShape {
    /// One register of the packed int8 layout.
    pub const PACKED: BlockShape = BlockShape { outputs: 16, inputs: 4 };
    /// A weight by itself.
    pub const SINGLE: BlockShape = BlockShape { outputs: 1, inputs: 1 };

    /// Blocks down and across a matrix, smaller ones at the edges counted.
    pub fn grid(self, matrix: Shape) -> [usize; 2] {
        [matrix.rows.div_ceil(self.outputs), matrix.cols.div_ceil(self.inputs)]
    }

    /// Blocks of a matrix.
    pub fn count(self, matrix: Shape) -> usize {
        self.grid(matrix).iter().product()
    }
}

/// What is summed over a block of two matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summed {
    /// `x·y`.
    Products,
    /// `(x·y)²`.
    Squares,
}

/// Sums over blocks on a device.
pub trait BlockOps: Device {
    /// Adds to `sums`, one for each block, row of blocks by row of blocks, what is `summed` over the block. Sums are in 64
    /// bits and in one order, whatever the threads.
    ///
    /// # Errors
    /// The device's.
    fn block_sums(
        &self,
        summed: Summed,
        x: &Tensor<Self>,
        y: &Tensor<Self>,
        block: BlockShape,
        sums: &mut [f64],
    ) -> Result<()>;
}
