//! Losses on a GPU: a thread a text; the host adds texts up in their order when it asks what came out.

use super::{Distillation, LossOps, Losses};
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid, Memory, Readback, Storage};
use crate::tensor::Tensor;

const THREADS: usize = 128;

/// Terms of each text, or of each row over a vocabulary, in device memory.
pub struct Pending {
    terms: Readback,
    texts: usize,
    alpha: f64,
}

impl Pending {
    /// Of `[cross-entropy, divergence]` of each text, or of each row: f64.
    pub(in crate::ops) fn new(terms: Memory, texts: usize, alpha: f64) -> Pending {
        Pending { terms: Readback::new(terms, 2 * texts), texts, alpha }
    }
}

impl LossOps for Cuda {
    type Pending = Pending;

    fn loss(
        &self,
        logits: &Tensor<Self>,
        labels: &[usize],
        teacher: Option<(&[f32], Distillation)>,
        scale: f64,
    ) -> Result<(Pending, Tensor<Self>)> {
        let (shape, texts) = (logits.shape(), labels.len());
        assert!(texts <= shape.rows, "logits for each text");
        let logits = self.stored(logits, Storage::F32)?;
        let labels: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
        let labels = self.upload_all(&labels)?;
        let (temperature, alpha) =
            teacher.map_or((1.0, 0.0), |(_, how)| (f64::from(how.temperature), f64::from(how.alpha)));
        let teacher = teacher.map(|(logits, _)| self.upload_all(logits)).transpose()?;
        let how = self.upload_all(&[temperature, alpha, scale])?;
        let terms = self.memory(2 * texts * size_of::<f64>())?;
        let gradient = self.tensor(shape, Storage::F32)?;
        let arguments: [&dyn Argument; 9] = [
            logits.buffer(),
            &labels,
            &teacher.as_ref(),
            &how,
            &(texts as i32),
            &(shape.rows as i32),
            &(shape.cols as i32),
            &terms,
            gradient.buffer(),
        ];
        let grid = Grid::blocks(shape.rows.div_ceil(THREADS), THREADS);
        self.launch("loss", Storage::F32, "classification_loss", grid, &arguments)?;
        Ok((Pending::new(terms, texts, alpha), gradient))
    }

    fn start_losses_readback(&self, pending: &mut Pending) -> Result<()> {
        self.call(&mut pending.terms)
    }

    fn losses(&self, Pending { terms, texts, alpha }: Pending) -> Result<Losses> {
        let terms = self.receive(terms)?;
        let mean = |which: usize| {
            let sum: f64 = terms.iter().skip(which).step_by(2).sum();
            if texts == 0 { 0.0 } else { sum / texts as f64 }
        };
        Ok(Losses::new(mean(0), mean(1), alpha))
    }
}
