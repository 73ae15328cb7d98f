//! AdamW on the CPU: blocks of elements.

use super::{AdamWOps, AdamWStep, Update, clipping};
use crate::Result;
use crate::backend::cpu::Buffer;
use crate::backend::{Cpu, Device};
use crate::params::Mask;
use crate::tensor::Tensor;
use limbeck_kernels::rows::AdamW;
use rayon::prelude::*;

/// Elements in a task: 28 bytes each, so half a MiB.
const BLOCK: usize = 1 << 14;

impl AdamWOps for Cpu {
    type Norm = f64;

    fn mask(&self, x: &mut Tensor<Self>, mask: &Mask) -> Result<()> {
        assert_eq!(x.shape().len(), mask.0.len(), "a mask has a byte for each element");
        let blocks = x.buffer_mut().par_chunks_mut(BLOCK).zip(mask.0.par_chunks(BLOCK));
        blocks.for_each(|(x, mask)| {
            x.iter_mut().zip(mask).for_each(|(x, kept)| *x = if *kept == 0 { 0.0 } else { *x });
        });
        Ok(())
    }

    fn adamw(&self, mut updates: Vec<Update<'_, Self>>, clip: f64, step: &AdamWStep) -> Result<f64> {
        let mut squares = 0.0;
        for Update { gradient, mask, .. } in &mut updates {
            // What is dead neither takes part in the norm, nor ends a training by overflowing.
            mask.map_or(Ok(()), |mask| self.mask(gradient, mask))?;
            squares += self.sum_squares(gradient.buffer())?;
        }
        let norm = squares.sqrt() * step.gradient_scale;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let step = AdamWStep { gradient_scale: step.gradient_scale * clipping(norm, clip), ..*step };
        for Update { w, moments: [m, v], gradient, mask, decays } in updates {
            let step = AdamWStep { weight_decay: if decays { step.weight_decay } else { 0.0 }, ..step };
            let state = [w, m, v].map(Tensor::buffer_mut);
            self.update(state, gradient.buffer(), mask, &step);
        }
        Ok(norm)
    }

    fn norm(&self, norm: f64) -> Result<f64> {
        Ok(norm)
    }
}

impl Cpu {
    fn update(&self, [w, m, v]: [&mut Buffer; 3], g: &Buffer, mask: Option<&Mask>, step: &AdamWStep) {
        let states = w.par_chunks_mut(BLOCK).zip(m.par_chunks_mut(BLOCK)).zip(v.par_chunks_mut(BLOCK));
        states.zip(g.par_chunks(BLOCK)).enumerate().for_each(|(i, (((w, m), v), g))| {
            let mask = mask.map(|mask| &mask.0[i * BLOCK..i * BLOCK + g.len()]);
            self.kernels().adamw(AdamW { w, m, v, g, mask }, step);
        });
    }
}
