//! Embedding tables on the CPU.

use super::{EmbeddingOps, Lookup};
use crate::Result;
use crate::backend::Cpu;
use crate::backend::cpu::threads::rows_per_block;
use crate::tensor::{Shape, Tensor};
use rayon::prelude::*;

impl EmbeddingOps for Cpu {
    fn gather(&self, lookups: &[Lookup<'_, Self>]) -> Result<Tensor<Self>> {
        let shape = Shape::new(lookups[0].rows.len(), lookups[0].table.cols());
        let cols = shape.cols.max(1);
        let mut y = self.buffer(shape.len());
        let block = rows_per_block(cols);
        y.par_chunks_mut(block * cols).enumerate().for_each(|(i, y)| {
            for (place, lookup) in lookups.iter().enumerate() {
                let rows = &lookup.rows[i * block..][..y.len() / cols];
                self.kernels().gather_rows(lookup.table.buffer(), rows, y, place > 0);
            }
        });
        Ok(Tensor::from_buffer(y, shape))
    }

    fn scatter(
        &self,
        dy: &Tensor<Self>,
        rows: &[u32],
        dtable: &mut Tensor<Self>,
        accumulate: bool,
    ) -> Result<()> {
        let cols = dtable.cols().max(1);
        let dtable: &mut [f32] = dtable.buffer_mut();
        if !accumulate {
            dtable.par_chunks_mut(1 << 16).for_each(|part| part.fill(0.0));
        }
        // Each task owns a range of the table and walks all tokens, in order: no two write to one row, and
        // the sum of a row does not depend on how many tasks there are.
        let entries = dtable.len() / cols;
        let each = entries.div_ceil(rayon::current_num_threads()).max(1);
        dtable.par_chunks_mut(each * cols).enumerate().for_each(|(i, part)| {
            self.kernels().scatter_add_rows(dy.buffer(), rows, i * each, part);
        });
        Ok(())
    }
}
