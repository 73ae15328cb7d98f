//! Dropout on the CPU: one task a text.

use super::{DropoutOps, DropoutSite};
use crate::Batch;
use crate::Result;
use crate::backend::Cpu;
use crate::backend::cpu::threads::split_rows;
use crate::tensor::Tensor;
use limbeck_kernels::rows::Dropout;
use rayon::prelude::*;

impl DropoutOps for Cpu {
    fn dropout(&self, batch: &Batch, x: &Tensor<Self>, site: &DropoutSite) -> Result<Tensor<Self>> {
        let shape = x.shape();
        let mut y = self.buffer(shape.len());
        let rows = |text| batch.rows_of(text, shape.rows);
        let parts = split_rows(&mut y, shape.cols, (0..batch.texts()).map(rows));
        parts.into_par_iter().enumerate().for_each(|(text, y)| {
            let rows = rows(text);
            y.copy_from_slice(&x.buffer()[rows.start * shape.cols..rows.end * shape.cols]);
            let key = site.key(batch.samples[text]);
            self.kernels().dropout(y, Dropout { key, first: 0, rate: site.rate });
        });
        Ok(Tensor::from_buffer(y, shape))
    }
}
