//! candle-transformers' DistilBERT in f32: `peer-candle MODEL_DIRECTORY THREADS`.
//!
//! candle's model ends at the hidden states; the head on the first token is two of its linear layers here.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};
use candle_transformers::models::distilbert::{Config, DistilBertModel};
use limbeck_peers_protocol::{Failure, forward, padded, ready, serve, texts};
use serde_json::Value;
use std::path::Path;

struct Classifier {
    encoder: DistilBertModel,
    dense: Linear,
    classifier: Linear,
}

impl Classifier {
    fn open(directory: &Path) -> Result<Classifier, Failure> {
        let text = std::fs::read_to_string(directory.join("config.json"))?;
        let sizes: Value = serde_json::from_str(&text)?;
        let config: Config = serde_json::from_str(&text)?;
        let labels = sizes["id2label"].as_object().map_or(2, |labels| labels.len());
        let weights = [directory.join("model.safetensors")];
        // SAFETY: the harness made the file, and nothing writes to it while it is measured.
        let tensors = unsafe { VarBuilder::from_mmaped_safetensors(&weights, DType::F32, &Device::Cpu)? };
        Ok(Classifier {
            dense: linear(config.dim, config.dim, tensors.pp("pre_classifier"))?,
            classifier: linear(config.dim, labels, tensors.pp("classifier"))?,
            encoder: DistilBertModel::load(tensors, &config)?,
        })
    }

    fn logits(&self, ids: &Tensor, hidden: &Tensor) -> Result<Vec<f32>, Failure> {
        let states = self.encoder.forward(ids, hidden)?;
        let first = states.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        let logits = self.classifier.forward(&self.dense.forward(&first)?.relu()?)?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}

fn main() -> Result<(), Failure> {
    let directory = std::env::args().nth(1).ok_or("usage: peer-candle MODEL_DIRECTORY THREADS")?;
    let model = Classifier::open(Path::new(&directory))?;
    ready("0.11.1");
    serve(|request| {
        let texts = texts(request)?;
        let (ids, mask, longest) = padded(&texts);
        // candle's mask marks what is to be hidden.
        let hidden: Vec<u8> = mask.iter().map(|&token| u8::from(token == 0)).collect();
        let ids = Tensor::from_vec(ids, (texts.len(), longest), &Device::Cpu)?;
        let hidden = Tensor::from_vec(hidden, (texts.len(), 1, 1, longest), &Device::Cpu)?;
        forward(request, texts.len(), || model.logits(&ids, &hidden))
    });
    Ok(())
}
