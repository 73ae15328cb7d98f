//! Losses over a vocabulary on a GPU: a block a row; the host adds rows up in their order when it asks what came out.

use super::VocabularyOps;
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid, Memory};
use crate::ops::loss::{Distillation, Pending};
use crate::tensor::Tensor;

/// Targets, and terms of each row, in device memory.
pub struct RowLosses {
    targets: Memory,
    terms: Memory,
    /// `double[3]`: temperature, alpha, and the scale of a row's gradient.
    how: Memory,
    rows: usize,
    alpha: f64,
}

impl VocabularyOps for Cuda {
    /// 128 MiB in 16 bits: 2,198 rows of BERT's vocabulary, enough tiles for each of a chunk's three products.
    const CHUNK: usize = 1 << 26;

    type RowLosses = RowLosses;

    fn row_losses(&self, targets: &[u32], how: Distillation, scale: f64) -> Result<RowLosses> {
        let rows = targets.len();
        let (temperature, alpha) = (f64::from(how.temperature), f64::from(how.alpha));
        let how = self.upload_all(&[temperature, alpha, scale / rows.max(1) as f64])?;
        let terms = self.memory(2 * rows * size_of::<f64>())?;
        Ok(RowLosses { targets: self.upload_all(targets)?, terms, how, rows, alpha })
    }

    fn logit_gradient(
        &self,
        logits: Tensor<Self>,
        teacher: Option<Tensor<Self>>,
        first: usize,
        losses: &mut RowLosses,
    ) -> Result<Tensor<Self>> {
        let (shape, storage) = (logits.shape(), logits.buffer().storage());
        let teacher = teacher.as_ref().map(|teacher| self.stored(teacher, storage)).transpose()?;
        let arguments: [&dyn Argument; 7] = [
            logits.buffer(),
            &teacher.as_ref().map(|teacher| teacher.buffer()),
            &losses.targets,
            &losses.how,
            &(first as i32),
            &(shape.cols as i32),
            &losses.terms,
        ];
        self.launch("vocabulary", storage, "vocabulary_loss", Grid::blocks(shape.rows, 256), &arguments)?;
        Ok(logits)
    }

    fn mean_of_rows(&self, RowLosses { terms, rows, alpha, .. }: RowLosses) -> Pending {
        Pending::new(terms, rows, alpha)
    }
}
