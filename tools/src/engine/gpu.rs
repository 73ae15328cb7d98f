//! A network of a model directory on a GPU, in f32.

use super::{TextModel, bytes_of};
use limbeck::backend::Cuda;
use limbeck::backend::cuda::{Options, Storage};
use limbeck::checkpoint::{HfDirectory, WEIGHTS};
use limbeck::models::highest;
use limbeck::report::measure::MeasuredModel;
use limbeck::stages::artifact;
use limbeck::stages::recipe::tables::Train;
use limbeck::tokenizer::Encode;
use limbeck::train::Learner;
use limbeck::{Batch, Error, Result, Text};
use std::path::{Path, PathBuf};

/// A network, and the room to compute with it.
pub struct OnGpu {
    learner: Learner<Cuda>,
    tokenizer: Box<dyn Encode>,
    file_bytes: u64,
    /// Parameters, and those that are not zero.
    counted: (usize, usize),
    batch: Batch,
    logits: Vec<f32>,
}

impl OnGpu {
    /// Opens a directory on GPU 0, compiled kernels being kept in `cache`.
    pub fn open(path: &Path, cache: PathBuf) -> Result<OnGpu> {
        if !path.is_dir() {
            let mend = "give the model directory, or leave out --device cuda";
            return Err(Error::file(path, "such a file computes on the CPU", mend));
        }
        let options = Options { storage: Storage::F32, cache: Some(cache), ..Options::default() };
        let learner = artifact::load(&Cuda::open(&options)?, path, &Train::default())?;
        let tokenizer = Box::new(HfDirectory::open(path)?.tokenizer()?);
        let (file_bytes, counted) = (bytes_of(&path.join(WEIGHTS))?, learner.params.count(&learner.backend)?);
        Ok(OnGpu { learner, tokenizer, file_bytes, counted, batch: Batch::new(), logits: Vec::new() })
    }
}

impl MeasuredModel for OnGpu {
    fn classes(&self) -> usize {
        self.labels().len()
    }

    fn predict(&mut self, texts: &[Text<'_>], classes: &mut Vec<usize>) -> Result<()> {
        let count = self.classes();
        classes.extend(self.logits(texts)?.chunks(count).map(highest));
        Ok(())
    }

    fn logits(&mut self, texts: &[Text<'_>]) -> Result<&[f32]> {
        self.batch.refill(texts.iter().copied());
        self.logits = self.learner.logits(&self.batch)?;
        Ok(&self.logits)
    }

    fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    fn parameters(&self) -> u64 {
        self.learner.params.iter().map(|(_, param)| param.value().shape().len() as u64).sum()
    }

    fn sparsity(&self) -> f64 {
        let (all, others) = self.counted;
        (all - others) as f64 / all.max(1) as f64
    }
}

impl TextModel for OnGpu {
    fn labels(&self) -> &[String] {
        &self.learner.model.config.labels
    }

    fn positions(&self) -> usize {
        self.learner.model.config.positions
    }

    fn vocab(&self) -> usize {
        self.learner.model.config.vocab
    }

    fn tokenizer(&self) -> &dyn Encode {
        &*self.tokenizer
    }
}
