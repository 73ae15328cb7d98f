//! A model in another format.
//!
//! ```text
//! Hugging Face directory ─┬─ Hf        the sizes that are left, checked and written again: limbeck reads it
//!                         ├─ HfPadded  deleted parts as zeros, factors multiplied, shared layers written out: stock
//!                         │            transformers reads it, same logits
//!                         ├─ Limbeck   one mapped file, weights in f32: the same logits
//!                         └─ LimbeckInt8  one mapped file, int8 as `quantize` makes it; needs no data
//! ```
//!
//! A `.limbeck` file is the end of the line: what is packed, and rounded, is not unpacked again.

use super::artifact::weights_hash;
use super::quantize;
use crate::checkpoint::{Dtype, HfDirectory, TensorToWrite, Values, check_complete, is_stock, read_values};
use crate::compress::Padding;
use crate::compress::expand::expand;
use crate::models::config::Pooling;
use crate::models::{Classifier, ModelConfig};
use crate::nn::{ParamId, ParamSpec};
use crate::quantize::Quantization;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A Hugging Face directory with the sizes that are left, factors and shared layers as they are.
    Hf,
    /// A Hugging Face directory with deleted parts as zeros, the products of what is factored, and each layer with parameters of
    /// its own: all of it as large as before.
    HfPadded,
    /// A `.limbeck` file in f32.
    Limbeck,
    /// A `.limbeck` file in int8, [`Quantization::INT8`].
    LimbeckInt8,
}

/// Writes the model directory `model` as `out`, which must not exist; it appears whole or not at all.
///
/// # Errors
/// [`Error::Occupied`]; whatever is wrong with the model; [`Error::File`] if the format cannot hold it.
pub fn export(model: &Path, out: &Path, format: ExportFormat) -> Result<()> {
    // A link to nothing is something, too.
    if out.symlink_metadata().is_ok() {
        let mend = "choose another name, or remove it";
        return Err(Error::Occupied { path: out.into(), found: "something".into(), mend: mend.into() });
    }
    if model.is_file() {
        let problem = "only model directories are exported, and this is a file";
        let mend = "give the directory that it was made from: a run keeps one for each stage; a .limbeck file is \
                    complete and can be copied";
        return Err(Error::file(model, problem, mend));
    }
    let directory = HfDirectory::open(model)?;
    let specs = Classifier::new(&directory.config).1;
    check_complete(&directory, &specs)?;
    let values = read_values(&directory, &specs, false, 0)?;
    match format {
        ExportFormat::Hf => save(out, &directory, &directory.config, &specs, &values),
        ExportFormat::HfPadded => {
            let (config, values) = expand(&directory.config, values);
            let padding = Padding::new(&config);
            check_stock(&directory, &padding.model.config)?;
            let values: Vec<_> =
                (0..).map(ParamId).zip(&values).map(|(id, v)| padding.apply(id, v)).collect();
            save(out, &directory, &padding.model.config, &padding.specs, &values)
        }
        ExportFormat::Limbeck | ExportFormat::LimbeckInt8 => {
            let int8 = format == ExportFormat::LimbeckInt8;
            let quantization = if int8 { Quantization::INT8 } else { Quantization::NONE };
            let mut values = values.into_iter();
            let next = |_: &ParamSpec| Ok(values.next().expect("a vector for each spec"));
            quantize::write_file(out, &directory, next, quantization, None).map(|_| ())
        }
    }
}

/// Refuses what transformers has no key for.
fn check_stock(directory: &HfDirectory, padded: &ModelConfig) -> Result<()> {
    if is_stock(padded) {
        return Ok(());
    }
    let (size, hidden) = (padded.head_size, padded.hidden);
    let (problem, mend) = if padded.decoupled > 0 {
        let layers = padded.decoupled;
        (
            format!("in its first {layers} layers each sentence of a pair attends to itself alone"),
            "prune without prune.decouple".to_owned(),
        )
    } else if size * padded.original_heads == hidden {
        let pooling = match padded.pooling {
            Pooling::Mean => "the mean of the tokens",
            Pooling::FirstToken => "the first token without BERT's pooler",
            Pooling::Pooler => "BERT's pooler",
        };
        (format!("it reads {pooling}"), "train with model.pooling = \"auto\"".to_owned())
    } else {
        let most = directory.config.layers.iter().map(|layer| layer.heads.len()).max().unwrap_or(0);
        let problem = format!(
            "it is {hidden} wide with up to {most} heads of {size} in a layer, and transformers has hidden_size / heads for \
             the size of a head"
        );
        (
            problem,
            format!("prune to a width that is a multiple of {size}, with room for all heads of a layer"),
        )
    };
    let problem = format!("stock transformers cannot run it: {problem}");
    Err(Error::file(
        &directory.path,
        problem,
        format!("export it as hf or limbeck, which limbeck runs; or {mend}"),
    ))
}

fn save(
    out: &Path,
    directory: &HfDirectory,
    config: &ModelConfig,
    specs: &[ParamSpec],
    values: &[Vec<f32>],
) -> Result<()> {
    let dims: Vec<Vec<usize>> = specs.iter().map(ParamSpec::dims).collect();
    let tensors: Vec<TensorToWrite<'_>> = specs
        .iter()
        .zip(values.iter().zip(&dims))
        .map(|(spec, (values, shape))| TensorToWrite { name: &spec.name, shape, values: Values::F32(values) })
        .collect();
    let mut origin: BTreeMap<String, String> = directory.tensors.metadata().clone();
    origin.insert("limbeck.exported_from".to_owned(), weights_hash(&directory.path)?);
    // Products of factors are no numbers of the file's type.
    let of = |config: &ModelConfig| (config.embedding_size, config.ranks.clone());
    let multiplied = of(config) != of(&directory.config);
    let dtype = if multiplied { Dtype::F32 } else { stored_as(directory) };
    HfDirectory::save(out, config, &tensors, dtype, &origin, &directory.tokenizer()?)
}

/// The type that all tensors of the model's file have, or else f32: either way nothing is lost.
fn stored_as(directory: &HfDirectory) -> Dtype {
    let mut types = directory.tensors.names().filter_map(|name| directory.tensors.dtype(name));
    let first = types.next().unwrap_or(Dtype::F32);
    if types.all(|dtype| dtype == first) { first } else { Dtype::F32 }
}
