//! AdamW on the CPU: blocks of elements.

use super::{AdamWOps, AdamWStep};
use crate::Result;
use crate::backend::Cpu;
use crate::params::Mask;
use crate::tensor::Tensor;
use limbeck_kernels::rows::AdamW;
use rayon::prelude::*;

/// Elements in a task: 28 bytes each, so half a MiB.
const BLOCK: usize = 1 << 14;

impl AdamWOps for Cpu {
    fn mask(&self, x: &mut Tensor<Self>, mask: &Mask) -> Result<()> {
        assert_eq!(x.shape().len(), mask.0.len(), "a mask has a byte for each element");
        let blocks = x.buffer_mut().par_chunks_mut(BLOCK).zip(mask.0.par_chunks(BLOCK));
        blocks.for_each(|(x, mask)| {
            x.iter_mut().zip(mask).for_each(|(x, kept)| *x = if *kept == 0 { 0.0 } else { *x });
        });
        Ok(())
    }

    fn adamw(
        &self,
        w: &mut Tensor<Self>,
        moments: [&mut Tensor<Self>; 2],
        g: &Tensor<Self>,
        mask: Option<&Mask>,
        step: &AdamWStep,
    ) -> Result<()> {
        let [m, v] = moments.map(Tensor::buffer_mut);
        let states =
            w.buffer_mut().par_chunks_mut(BLOCK).zip(m.par_chunks_mut(BLOCK)).zip(v.par_chunks_mut(BLOCK));
        states.zip(g.buffer().par_chunks(BLOCK)).enumerate().for_each(|(i, (((w, m), v), g))| {
            let mask = mask.map(|mask| &mask.0[i * BLOCK..i * BLOCK + g.len()]);
            self.kernels().adamw(AdamW { w, m, v, g, mask }, step);
        });
        Ok(())
    }
}
