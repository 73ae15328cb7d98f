//! The linear control, measured like any other model: from its file, on ids that were made before.

use super::{TextModel, bytes_of};
use limbeck::controls::{Features, Linear, Words};
use limbeck::models::highest;
use limbeck::report::measure::MeasuredModel;
use limbeck::tokenizer::Encode;
use limbeck::{Result, Text};
use std::path::Path;

/// A linear model, and the room to compute with it.
pub struct NGrams {
    model: Linear,
    file_bytes: u64,
    features: Features,
    row: Vec<f32>,
    logits: Vec<f32>,
}

impl NGrams {
    pub fn open(path: &Path) -> Result<NGrams> {
        let model = Linear::open(path)?;
        let file_bytes = bytes_of(path)?;
        Ok(NGrams { model, file_bytes, features: Features::default(), row: Vec::new(), logits: Vec::new() })
    }
}

impl MeasuredModel for NGrams {
    fn classes(&self) -> usize {
        self.model.classes()
    }

    fn predict(&mut self, texts: &[Text<'_>], classes: &mut Vec<usize>) -> Result<()> {
        let count = self.classes();
        classes.extend(self.logits(texts)?.chunks(count).map(highest));
        Ok(())
    }

    fn logits(&mut self, texts: &[Text<'_>]) -> Result<&[f32]> {
        self.logits.clear();
        for text in texts {
            self.features.refill(text.ids, self.model.buckets());
            self.model.logits(&self.features, &mut self.row);
            self.logits.extend_from_slice(&self.row);
        }
        Ok(&self.logits)
    }

    fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    fn parameters(&self) -> u64 {
        self.model.parameters()[0]
    }

    fn sparsity(&self) -> f64 {
        let [all, zeros] = self.model.parameters();
        zeros as f64 / all.max(1) as f64
    }
}

impl TextModel for NGrams {
    fn labels(&self) -> &[String] {
        self.model.labels()
    }

    fn positions(&self) -> usize {
        usize::MAX
    }

    fn vocab(&self) -> usize {
        Words.vocab()
    }

    fn tokenizer(&self) -> &dyn Encode {
        &Words
    }
}
