//! The fourth stage: the network becomes one int8 file, ready to be mapped and run.

use super::recipe::tables::Quantize;
use super::{Corpus, Recipe, Stage, StageContext, artifact, device, mixed_precision};
use crate::backend::Cpu;
use crate::checkpoint::{HfDirectory, check_complete, read_value};
use crate::infer::format::Parents;
use crate::infer::{Model, Session};
use crate::models::{Classifier, ModelConfig};
use crate::nn::ParamSpec;
use crate::quantize::layout::TIMED_ROWS;
use crate::quantize::{Extras, Loss, Quantization, golden_texts, quantize as to_image};
use crate::train::evaluate::for_logits;
use crate::{Batch, Error, Result};
use std::fs;
use std::path::Path;

/// Quantizes the distilled network.
///
/// # Errors
/// An earlier stage is missing or damaged, a weight is no number, a signal, a full disk; the file that was written
/// does not answer as it did in memory.
pub(super) fn quantize(context: &StageContext<'_>) -> Result<()> {
    if !context.enter(Stage::Quantize)? {
        return Ok(());
    }
    let (source, path) = (context.need_whole(Stage::Distill)?, context.artifact(Stage::Quantize));
    let quantization = mixed_precision::resolve(context)?;
    write(context, &source, &path, &quantization)?;
    if context.recipe.distill.quantized > 0.0 {
        compare(context, &source, &Model::open(&path)?, &quantization)?;
    }
    Ok(())
}

/// Quantizes the model directory `source` into the file `path`.
///
/// # Errors
/// As [`quantize`].
pub(super) fn write(
    context: &StageContext<'_>,
    source: &Path,
    path: &Path,
    quantization: &Quantization,
) -> Result<()> {
    let directory = HfDirectory::open(source)?;
    check_complete(&directory, &Classifier::new(&directory.config).1)?;
    let read = |spec: &ParamSpec| {
        context.check_stop()?;
        read_value(&directory, spec)
    };
    let recipe_hash = context.recipe_hash(Stage::Quantize);
    let losses = write_file(path, &directory, read, quantization.clone(), Some(recipe_hash))?;
    let worst = losses.iter().min_by(|a, b| a.signal_to_noise.total_cmp(&b.signal_to_noise));
    if let Some(worst) = worst {
        let message =
            format!("quantize: lowest signal-to-noise {:.1} dB, {}", worst.signal_to_noise, worst.name);
        context.progress.message(&message);
    }
    if let Some(message) = layouts(&losses) {
        context.progress.message(&message);
    }
    Ok(())
}

/// Writes the network of `directory`, whose values `read` gives, into the file `path`, which is opened again and must answer as
/// the network did in memory. Returns what each tensor lost.
///
/// # Errors
/// A weight is no number, a tokenizer that cannot be packed, a full disk, whatever `read` fails with; a file that answers otherwise,
/// which is removed again.
pub(super) fn write_file(
    path: &Path,
    directory: &HfDirectory,
    read: impl FnMut(&ParamSpec) -> Result<Vec<f32>>,
    quantization: Quantization,
    recipe_hash: Option<String>,
) -> Result<Vec<Loss>> {
    let packed = directory.tokenizer()?.pack().map_err(|problem| {
        let problem = format!("a .limbeck file cannot hold its tokenizer: {problem}");
        Error::file(&directory.path, problem, "export it as hf, which keeps any tokenizer")
    })?;
    let extras = Extras {
        vocabulary: Some(packed),
        parents: Parents { model: Some(artifact::weights_hash(&directory.path)?), recipe: recipe_hash },
        golden: golden_texts(&directory.config),
    };
    let quantized = to_image(&directory.path, &directory.config, read, quantization, &extras)?;
    quantized.image.write(path)?;
    // A file that is there is done: one that the disk changed must not stay.
    Model::open(path).and_then(|model| model.check_golden()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })?;
    Ok(quantized.losses)
}

/// Whether the recipe's exceptions can be meant for a network of this configuration.
///
/// # Errors
/// [`Error::Setting`].
pub(super) fn check(settings: &Quantize, config: &ModelConfig) -> Result<()> {
    settings.quantization().check(&Classifier::new(config).1)
}

/// As [`check`], of the baseline before its first step, as far as that can be known: which matrices will be factored is not, so
/// names of whole ones and of factors may both be meant.
///
/// # Errors
/// As [`check`].
pub(super) fn check_early(recipe: &Recipe, config: &ModelConfig) -> Result<()> {
    let mut specs = Classifier::new(config).1;
    // Factors may be multiplied again.
    specs.extend(
        Classifier::new(&ModelConfig { ranks: Vec::new(), embedding_size: None, ..config.clone() }).1,
    );
    if recipe.prune.rank > 0.0 {
        let ranks = vec![[1; 6]; config.layers.len()];
        specs.extend(Classifier::new(&ModelConfig { ranks, ..config.clone() }).1);
    }
    if recipe.prune.embedding_size > 0 {
        let embedding_size = Some(recipe.prune.embedding_size);
        specs.extend(Classifier::new(&ModelConfig { embedding_size, ..config.clone() }).1);
    }
    recipe.quantize.quantization().check(&specs)
}

/// Texts whose logits are compared.
const COMPARED: usize = 500;

/// Says how far the logits of the file are from those that quantization-aware training computed. Where matrices are whole numbers they
/// are the same bits, and a file of which that is not true is removed again.
fn compare(
    context: &StageContext<'_>,
    source: &Path,
    model: &Model,
    quantization: &Quantization,
) -> Result<()> {
    let (settings, whole) = (&context.recipe.distill.train, Corpus::open(context)?);
    let corpus = whole.as_read_by_model(source)?;
    // What was trained in a GPU's precision alone is compared in f32.
    let cpu = device::cpu(context, Stage::Distill).unwrap_or_else(|_| Cpu::new(context.kernels));
    let mut learner = artifact::load(&cpu, source, settings)?;
    learner.params.round(Some(quantization.rounding()));
    let (mut session, mut batch) = (Session::new(model), Batch::new());
    let (mut largest, mut equal) = (0.0f32, 0);
    let (texts, classes) = (COMPARED.min(corpus.train.len()), corpus.train.labels().len());
    for_logits(&learner, &corpus.train, 0..texts, |first, expected| {
        for (i, expected) in expected.chunks(classes).enumerate() {
            batch.clear();
            batch.push(corpus.train.text(first + i), 0);
            let found = session.logits(&batch)?;
            let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
            largest = differences.fold(largest, f32::max);
            equal += usize::from(found == expected);
        }
        context.check_stop()
    })?;
    context.progress.message(&format!(
        "quantize: of {texts} texts, {equal} have the logits of training to the bit; the largest difference is {largest:.1e}"
    ));
    if quantization.weights.is_integer() && equal < texts {
        let path = model.path();
        fs::remove_file(path).map_err(Error::io("remove", path))?;
        let problem = "it would have answered otherwise than it was trained to";
        return Err(Error::file(path, problem, "report it, with recipe.toml and the line above"));
    }
    Ok(())
}

/// How the matrices with zero blocks were laid out, if there are any.
fn layouts(losses: &[Loss]) -> Option<String> {
    let all: Vec<_> = losses.iter().filter_map(|loss| loss.layout).collect();
    if all.is_empty() {
        return None;
    }
    let (count, sparse) = (all.len(), all.iter().filter(|times| times.blocks).count());
    let zeros = 100.0 * all.iter().map(|times| times.zero_blocks).sum::<f64>() / count as f64;
    let mut message = format!(
        "quantize: {count} matrices have zero blocks ({zeros:.0} % of theirs), {sparse} leave them out"
    );
    let speeds = || all.iter().filter_map(|times| times.speed_up);
    if let (Some(least), Some(most)) = (speeds().reduce(f64::min), speeds().reduce(f64::max)) {
        message += &format!("; without them {least:.2} to {most:.2} times as fast, {TIMED_ROWS} rows");
    }
    Some(message)
}
