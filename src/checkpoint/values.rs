//! The values of a network: from a checkpoint, or drawn from a seed.

use super::{Expected, HfDirectory, ValueSource};
use crate::nn::{ParamSpec, Role};
use crate::{Error, Result};
use limbeck_kernels::random::mix;

/// Standard deviation of new weights, BERT's.
const SPREAD: f64 = 0.02;

/// The values of each spec: from the directory, and drawn from `seed` for a head that the file lacks or a
/// classifier that `fresh_classifier` sets aside.
///
/// # Errors
/// A parameter of the encoder is missing, has another shape, or holds a value that is no number.
pub fn read_values(
    directory: &HfDirectory,
    specs: &[ParamSpec],
    fresh_classifier: bool,
    seed: u64,
) -> Result<Vec<Vec<f32>>> {
    let located = locate(directory, specs, fresh_classifier)?;
    let values = |(spec, located): (&ParamSpec, ValueSource)| match located {
        ValueSource::Fresh => Ok(fresh(spec, seed)),
        ValueSource::Found(name) => read(directory, &name, spec),
    };
    specs.iter().zip(located).map(values).collect()
}

/// The values of one parameter, which the directory must have, head or not. [`check_complete`] first tells of all
/// that is missing; this then reads a network without holding the whole of it in memory.
///
/// # Errors
/// [`Error::Tensor`] if it is missing, has another shape, or holds a value that is no number.
pub fn read_value(directory: &HfDirectory, spec: &ParamSpec) -> Result<Vec<f32>> {
    match locate(directory, std::slice::from_ref(spec), false)?.pop() {
        Some(ValueSource::Found(name)) => read(directory, &name, spec),
        _ => Err(no_head(directory, spec)),
    }
}

/// Refuses a model without classes or without a head: with one that is drawn anew its answers would be noise.
///
/// # Errors
/// [`Error::File`] and [`Error::Tensor`]: those, and a parameter that is missing or has another shape.
pub fn check_complete(directory: &HfDirectory, specs: &[ParamSpec]) -> Result<()> {
    if directory.config.labels.is_empty() {
        return Err(Error::file(&directory.path, "the model has no classes", TRAIN_A_HEAD));
    }
    let located = locate(directory, specs, false)?;
    match specs.iter().zip(located).find(|(_, located)| *located == ValueSource::Fresh) {
        None => Ok(()),
        Some((spec, _)) => Err(no_head(directory, spec)),
    }
}

const TRAIN_A_HEAD: &str = "train a head first: this is an encoder, or another model's weights";

fn no_head(directory: &HfDirectory, spec: &ParamSpec) -> Error {
    Error::tensor(directory.tensors.path(), &spec.name, "the file has no such tensor", TRAIN_A_HEAD)
}

fn locate(directory: &HfDirectory, specs: &[ParamSpec], fresh_classifier: bool) -> Result<Vec<ValueSource>> {
    let dims: Vec<Vec<usize>> = specs.iter().map(ParamSpec::dims).collect();
    let wanted: Vec<Expected<'_>> =
        specs.iter().zip(&dims).map(|(spec, shape)| Expected { name: &spec.name, shape }).collect();
    directory.locate(&wanted, fresh_classifier)
}

fn read(directory: &HfDirectory, name: &str, spec: &ParamSpec) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(spec.len());
    directory.tensors.read_f32(name, &mut values)?;
    Ok(values)
}

/// New values: normal with a deviation of 0.02 for matrices and tables, one for gamma, zero for the rest. They
/// depend on the seed and the parameter's name.
pub fn fresh(spec: &ParamSpec, seed: u64) -> Vec<f32> {
    match spec.role {
        Role::Bias | Role::Beta => vec![0.0; spec.len()],
        Role::Gamma => vec![1.0; spec.len()],
        Role::Weight | Role::Embedding => {
            let key = spec.name.bytes().fold(mix(seed), |key, byte| mix(key ^ u64::from(byte)));
            (0..spec.len() as u64).map(|i| (SPREAD * normal(key, i)) as f32).collect()
        }
    }
}

/// A standard normal number (Box and Muller).
fn normal(key: u64, i: u64) -> f64 {
    // In (0, 1]: the logarithm below is finite.
    let uniform = |z: u64| ((z >> 11) + 1) as f64 / (1u64 << 53) as f64;
    let (u, v) = (uniform(mix(key ^ mix(2 * i))), uniform(mix(key ^ mix(2 * i + 1))));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Dtype, TensorToWrite, Values, is_head};
    use crate::models::Classifier;
    use crate::models::config::{Architecture, DropoutConfig, LayerConfig, ModelConfig, Pooling, Sizes};
    use crate::tokenizer::{Rules, Tokenizer};
    use std::collections::BTreeMap;

    fn config(architecture: Architecture) -> ModelConfig {
        let bert = architecture == Architecture::Bert;
        ModelConfig {
            architecture,
            token_types: if bert { 2 } else { 0 },
            layers: vec![LayerConfig::dense(2, 3)],
            dropout: DropoutConfig { hidden: 0.0, attention: 0.0, classifier: 0.0 },
            pooling: if bert { Pooling::Pooler } else { Pooling::FirstToken },
            ..ModelConfig::distilbert(
                Sizes { vocab: 5, positions: 6, hidden: 4, heads: 2, intermediate: 3, layers: 0 },
                ["a", "b"],
            )
        }
    }

    /// What a directory gives to a task of three other classes, when it was written under the names that `name` makes
    /// of its own; `None` leaves a tensor out. One entry a parameter: name, value in the file, value read.
    fn read_for_another_task(
        architecture: Architecture,
        name: impl Fn(&str) -> Option<String>,
    ) -> Vec<(String, Vec<f32>, Vec<f32>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let mut config = config(architecture);
        let (_, specs) = Classifier::new(&config);
        // No value is one that is drawn, nor zero.
        let stored = |i: usize, spec: &ParamSpec| -> Vec<f32> {
            (0..spec.len()).map(|j| 1.0 + i as f32 + j as f32 / 64.0).collect()
        };
        let entries: Vec<(String, Vec<usize>, Vec<f32>)> = specs
            .iter()
            .enumerate()
            .filter_map(|(i, spec)| Some((name(&spec.name)?, spec.dims(), stored(i, spec))))
            .collect();
        let tensors: Vec<TensorToWrite<'_>> = entries
            .iter()
            .map(|(name, shape, values)| TensorToWrite { name, shape, values: Values::F32(values) })
            .collect();
        let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
        let tokenizer = Tokenizer::from_pieces(&pieces, Rules::bert(true)).unwrap();
        HfDirectory::save(&path, &config, &tensors, Dtype::F32, &BTreeMap::new(), &tokenizer).unwrap();
        config.labels = ["x", "y", "z"].map(str::to_owned).to_vec();
        let (_, wanted) = Classifier::new(&config);
        let read = read_values(&HfDirectory::open(&path).unwrap(), &wanted, true, 7).unwrap();
        let stored = specs.iter().enumerate().map(|(i, spec)| (spec.name.clone(), stored(i, spec)));
        stored.zip(read).map(|((name, stored), read)| (name, stored, read)).collect()
    }

    #[test]
    fn other_classes_get_a_new_classifier_and_keep_what_lies_before_it() {
        for (architecture, dense) in
            [(Architecture::Bert, "bert.pooler.dense"), (Architecture::DistilBert, "pre_classifier")]
        {
            let all = read_for_another_task(architecture, |name| Some(name.to_owned()));
            assert_eq!(all.iter().filter(|(name, ..)| name.starts_with(dense)).count(), 2);
            for (name, stored, read) in &all {
                match name.as_str() {
                    "classifier.weight" => assert!(read.len() == 3 * 4 && read.iter().all(|x| x.abs() < 0.2)),
                    "classifier.bias" => assert_eq!(read, &[0.0; 3]),
                    _ => assert_eq!(read, stored, "{name}"),
                }
            }
        }
    }

    #[test]
    fn a_bare_bert_keeps_its_pooler_and_one_without_gets_a_new_one() {
        // As `BertModel.save_pretrained` names its tensors.
        let bare = |name: &str| name.strip_prefix("bert.").map(str::to_owned);
        for (name, stored, read) in read_for_another_task(Architecture::Bert, bare) {
            assert_eq!(read == stored, !name.starts_with("classifier."), "{name}");
        }
        let headless = |name: &str| bare(name).filter(|name| !name.starts_with("pooler."));
        for (name, stored, read) in read_for_another_task(Architecture::Bert, headless) {
            assert_eq!(read == stored, !is_head(&name), "{name}");
        }
    }
}
