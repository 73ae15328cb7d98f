//! Sums over blocks on the CPU: a task for each row of blocks.

use super::{BlockOps, BlockShape, Summed};
use crate::Result;
use crate::backend::Cpu;
use crate::tensor::Tensor;
use rayon::prelude::*;

impl BlockOps for Cpu {
    fn block_sums(
        &self,
        summed: Summed,
        x: &Tensor<Self>,
        y: &Tensor<Self>,
        block: BlockShape,
        sums: &mut [f64],
    ) -> Result<()> {
        match summed {
            Summed::Products => sum_over_blocks(x, y, block, sums, |product| product),
            Summed::Squares => sum_over_blocks(x, y, block, sums, |product| product * product),
        }
        Ok(())
    }
}

/// Adds `Σ of(x·y)` over each block.
fn sum_over_blocks(
    x: &Tensor<Cpu>,
    y: &Tensor<Cpu>,
    block: BlockShape,
    sums: &mut [f64],
    of: impl Fn(f64) -> f64 + Sync,
) {
    assert_eq!(x.shape(), y.shape(), "products of two matrices of one shape");
    assert_eq!(sums.len(), block.count(x.shape()), "a sum for each block");
    if sums.is_empty() {
        return;
    }
    let (cols, [_, across]) = (x.cols(), block.grid(x.shape()));
    let rows = x.buffer().par_chunks(block.outputs * cols).zip(y.buffer().par_chunks(block.outputs * cols));
    rows.zip(sums.par_chunks_mut(across)).for_each(|((x, y), sums)| {
        for (x, y) in x.chunks(cols).zip(y.chunks(cols)) {
            let blocks = x.chunks(block.inputs).zip(y.chunks(block.inputs));
            for (sum, (x, y)) in sums.iter_mut().zip(blocks) {
                // The product of two f32 is exact in f64.
                *sum += x.iter().zip(y).map(|(x, y)| of(f64::from(*x) * f64::from(*y))).sum::<f64>();
            }
        }
    });
}
