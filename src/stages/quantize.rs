//! The fourth stage: the network becomes one int8 file, ready to be mapped and run.

use super::recipe::tables::{EmbeddingKind, WeightScales};
use super::{Stage, StageContext, artifact};
use crate::checkpoint::{HfDirectory, find};
use crate::compress::quantize::{Extras, Granularity, Quantization, golden_texts, quantize as to_image};
use crate::infer::format::Parents;
use crate::{Error, Result};

/// Quantizes the distilled network.
///
/// # Errors
/// An earlier stage is missing, a weight is no number, a full disk.
pub fn quantize(context: &StageContext<'_>) -> Result<()> {
    if !context.enter(Stage::Quantize)? {
        return Ok(());
    }
    let source = context.need(Stage::Distill)?;
    let settings = &context.recipe.quantize;
    let quantization = Quantization {
        weights: Some(match settings.weights {
            WeightScales::Channel => Granularity::Channel,
            WeightScales::Tensor => Granularity::Tensor,
        }),
        embeddings: settings.embeddings == EmbeddingKind::Int8,
    };
    let directory = HfDirectory::open(&source)?;
    let mend = "fetch the model's tokenizer again";
    let vocabulary = directory.tokenizer()?.pack().map_err(|problem| Error::file(&source, problem, mend))?;
    let extras = Extras {
        vocabulary: Some(vocabulary),
        parents: Parents {
            model: Some(artifact::weights_hash(&source)?),
            recipe: Some(context.recipe_hash()),
        },
        golden: golden_texts(&directory.config),
    };
    let path = context.artifact(Stage::Quantize);
    let read = |spec: &crate::nn::ParamSpec| {
        let mut values = Vec::with_capacity(spec.len());
        let name = find(&spec.name, |name| directory.tensors.shape(name).is_some());
        directory.tensors.read_f32(name.as_deref().unwrap_or(&spec.name), &mut values)?;
        Ok(values)
    };
    let quantized = to_image(&path, &directory.config, read, quantization, &extras)?;
    let worst = quantized.losses.iter().min_by(|a, b| a.signal_to_noise.total_cmp(&b.signal_to_noise));
    if let Some(worst) = worst {
        let message =
            format!("quantize: lowest signal-to-noise {:.1} dB, {}", worst.signal_to_noise, worst.name);
        context.progress.message(&message);
    }
    quantized.image.write(&path)
}
