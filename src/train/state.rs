//! The saved state of a training: everything that the next step depends on.
//!
//! `state.json` holds the numbers and names the file with the tensors. It is replaced as a whole, after that
//! file is complete, so that a kill at any moment leaves one whole state.

use super::LossScale;
use super::callback::CallbackState;
use super::learner::Learner;
use super::optimizer::AdamW;
use crate::checkpoint::{
    Dtype, TensorFile, TensorToWrite, Values, config_to_json, parse_config, write_tensors,
};
use crate::models::Classifier;
use crate::nn::{ParamId, ParamSpec};
use crate::ops::Backend;
use crate::params::{Mask, Param, ParamStore};
use crate::tensor::{Shape, Tensor};
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const STATE: &str = "state.json";
const BEST: &str = "best.safetensors";
/// The callback's state among the tensors, `[numbers]`: there may be one for each block of weights.
const CALLBACK: &str = "callback";
/// Values of parameters at an earlier point, which a callback goes back to.
const EARLIER: &str = "earlier/";

/// Where a training is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Steps taken.
    pub step: u64,
    /// The last step after which there was an evaluation: one that a signal cut short is made up for.
    pub evaluated: u64,
    /// The best evaluation, and the step after which it was made.
    #[serde(with = "exact")]
    pub best: Option<(f64, u64)>,
    /// The content hash of the file with the weights of the best evaluation; empty if they are not kept.
    pub best_sha256: String,
    /// Evaluations since the best.
    pub without_better: u64,
    /// Whether patience has run out.
    pub stopped_early: bool,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    position: Position,
    /// The content hash of the texts.
    texts: String,
    /// The content hash of the weights that the training began from; empty if they were drawn.
    parent: String,
    /// The network's `config.json`, as text.
    config: String,
    /// The file with the tensors.
    tensors: String,
    /// Its content hash.
    sha256: String,
    /// Steps of the optimizer, where it began anew in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    optimizer_steps: Option<u64>,
    /// What losses are multiplied by, and since how many steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_scale: Option<(f64, u64)>,
    /// The content hash of all this, with nothing in its place.
    own_sha256: String,
}

impl Saved {
    /// Puts its hash in place.
    fn sealed(self) -> Saved {
        let blank = Saved { own_sha256: String::new(), ..self };
        let text = serde_json::to_vec(&blank).expect("numbers and text");
        Saved { own_sha256: files::sha256(&text), ..blank }
    }
}

/// Floats by their bits: decimal notation need not give the same number back.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(best: &Option<(f64, u64)>, to: S) -> Result<S::Ok, S::Error> {
        best.map(|(accuracy, step)| (accuracy.to_bits(), step)).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<(f64, u64)>, D::Error> {
        let bits = Option::<(u64, u64)>::deserialize(from)?;
        Ok(bits.map(|(accuracy, step)| (f64::from_bits(accuracy), step)))
    }
}

/// Whether there is a state to go on from.
pub(super) fn exists(directory: &Path) -> bool {
    directory.join(STATE).exists()
}

/// Saves everything. The state is of these texts and of this parent, by their content hashes.
pub(super) fn save<B: Backend>(
    directory: &Path,
    learner: &Learner<B>,
    position: &Position,
    callback: &CallbackState,
    [texts, parent]: [&str; 2],
) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let name = format!("state-{}.safetensors", position.step);
    let backend = &learner.backend;
    let mut tensors = Vec::new();
    for (id, param) in learner.params.iter() {
        let [m, v] = &learner.optimizer.moments()[id.index()];
        for (kind, tensor) in [("param", param.value()), ("m", m), ("v", v)] {
            tensors.push((format!("{kind}/{}", param.spec.name), tensor.shape(), tensor.download(backend)?));
        }
    }
    for ((_, param), values) in learner.params.iter().zip(&callback.earlier) {
        tensors.push((format!("{EARLIER}{}", param.spec.name), param.value().shape(), values.clone()));
    }
    let path = directory.join(&name);
    let numbers: Vec<u8> = callback.numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let callback = (CALLBACK.to_owned(), Shape::vector(callback.numbers.len()), Dtype::F64, numbers);
    write(&path, &tensors, &[masks(&learner.params), vec![callback]].concat())?;
    let saved = Saved {
        position: position.clone(),
        texts: texts.to_owned(),
        parent: parent.to_owned(),
        config: config_to_json(&learner.model.config).to_string(),
        tensors: name.clone(),
        sha256: files::sha256(&files::map(&path)?),
        optimizer_steps: Some(learner.optimizer.steps()).filter(|steps| *steps != position.step),
        loss_scale: learner.optimizer.loss_scale().saved(),
        own_sha256: String::new(),
    };
    let text = serde_json::to_vec_pretty(&saved.sealed()).expect("numbers and text");
    files::replace_bytes(&directory.join(STATE), &text)?;
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))?.flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        if found.starts_with("state-") && found != name {
            // An old state that cannot be removed is only a waste of space.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Loads what [`save`] saved into `learner`, whose network is replaced by the saved one.
pub(super) fn load<B: Backend>(
    directory: &Path,
    learner: &mut Learner<B>,
    [texts, parent]: [&str; 2],
) -> Result<(Position, CallbackState)> {
    let path = directory.join(STATE);
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    let saved: Saved =
        serde_json::from_slice(&text).map_err(|error| damaged(directory, &error.to_string()))?;
    let written = saved.own_sha256.clone();
    let saved = saved.sealed();
    if saved.own_sha256 != written {
        return Err(damaged(directory, "this is not what was written: its hash differs"));
    }
    if saved.texts != texts {
        let mend = "put the data back as they were, or start a new run with another --out";
        return Err(Error::file(&path, "the state was made on other texts", mend));
    }
    if saved.parent != parent {
        let mend = "put those weights back, or start a new run with another --out";
        return Err(Error::file(&path, "the training began from other weights than it is given now", mend));
    }
    let (model, mut specs) = Classifier::new(&parse_config(&path, &saved.config)?);
    // Projections lie behind the network's own parameters.
    specs.extend(learner.params.iter().skip(learner.network().count()).map(|(_, param)| param.spec.clone()));
    let file = open(directory, &saved.tensors, &saved.sha256)?;
    // It is read after the last step: that it is damaged is told before the next one.
    if !saved.position.best_sha256.is_empty() {
        open(directory, BEST, &saved.position.best_sha256)?;
    }
    let backend = learner.backend.clone();
    learner.params = read_params(&backend, &file, &specs, "param/")?;
    let moment = |spec: &ParamSpec, kind: &str| -> Result<Tensor<B>> {
        let mut values = Vec::new();
        file.read_f32(&format!("{kind}/{}", spec.name), &mut values)?;
        Tensor::upload(&backend, &values, Shape::new(spec.rows, spec.cols))
    };
    let moments =
        specs.iter().map(|spec| Ok([moment(spec, "m")?, moment(spec, "v")?])).collect::<Result<_>>()?;
    let steps = saved.optimizer_steps.unwrap_or(saved.position.step);
    let scale = LossScale::resumed(&backend, saved.loss_scale);
    learner.optimizer = AdamW::resumed(learner.optimizer.settings(), moments, steps, scale);
    learner.model = model;
    let numbers = file.bytes(CALLBACK)?.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
    let mut earlier = Vec::new();
    for spec in &specs {
        let name = format!("{EARLIER}{}", spec.name);
        if file.shape(&name).is_some() {
            earlier.push(Vec::new());
            file.read_f32(&name, earlier.last_mut().expect("just pushed"))?;
        }
    }
    Ok((saved.position, CallbackState { numbers: numbers.collect(), earlier }))
}

/// The error for a state whose parts do not belong together.
pub(super) fn damaged(directory: &Path, problem: &str) -> Error {
    Error::file(&directory.join(STATE), problem, mend(directory))
}

fn mend(directory: &Path) -> String {
    format!("remove {}, for --resume to begin this stage again", directory.display())
}

/// Opens a file of the state's that must be as it was written.
fn open(directory: &Path, name: &str, sha256: &str) -> Result<TensorFile> {
    let path = directory.join(name);
    let whole = || {
        if files::sha256(&files::map(&path)?) == sha256 {
            return TensorFile::open(&path);
        }
        Err(Error::file(&path, "this is not what was written: its hash differs", ""))
    };
    whole().map_err(|error| error.with_mend(&mend(directory)))
}

/// Saves the weights, which are the best so far. Returns the content hash of the file.
pub(super) fn save_best<B: Backend>(directory: &Path, learner: &Learner<B>) -> Result<String> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let mut tensors = Vec::new();
    for (_, param) in learner.params.iter() {
        let values = param.value().download(&learner.backend)?;
        tensors.push((param.spec.name.clone(), param.value().shape(), values));
    }
    let path = directory.join(BEST);
    write(&path, &tensors, &masks(&learner.params))?;
    Ok(files::sha256(&files::map(&path)?))
}

/// Loads what [`save_best`] saved.
pub(super) fn load_best<B: Backend>(directory: &Path, learner: &mut Learner<B>, sha256: &str) -> Result<()> {
    let file = open(directory, BEST, sha256)?;
    let specs: Vec<ParamSpec> = learner.params.iter().map(|(_, param)| param.spec.clone()).collect();
    learner.params = read_params(&learner.backend, &file, &specs, "")?;
    Ok(())
}

/// The state's directory is no longer needed.
pub fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

/// A tensor of other numbers than f32: its name, shape, type and bytes.
type Raw = (String, Shape, Dtype, Vec<u8>);

fn masks<B: Backend>(params: &ParamStore<B>) -> Vec<Raw> {
    let masked = params.iter().filter_map(|(_, param)| Some((param, param.mask.as_ref()?)));
    let raw = |(param, mask): (&Param<B>, &Mask)| {
        (format!("mask/{}", param.spec.name), param.value().shape(), Dtype::U8, mask.0.to_vec())
    };
    masked.map(raw).collect()
}

fn write(path: &Path, tensors: &[(String, Shape, Vec<f32>)], raw: &[Raw]) -> Result<()> {
    let shapes = tensors.iter().map(|tensor| tensor.1).chain(raw.iter().map(|raw| raw.1));
    let shapes: Vec<[usize; 2]> = shapes.map(|shape| [shape.rows, shape.cols]).collect();
    let values = tensors.iter().map(|(name, _, values)| (name, Values::F32(values)));
    let raw = raw.iter().map(|(name, _, dtype, bytes)| (name, Values::Bytes(*dtype, bytes)));
    let entries: Vec<TensorToWrite<'_>> = values
        .chain(raw)
        .zip(&shapes)
        .map(|((name, values), shape)| TensorToWrite { name, shape, values })
        .collect();
    write_tensors(path, &entries, Dtype::F32, &BTreeMap::new())
}

fn read_params<B: Backend>(
    backend: &B,
    file: &TensorFile,
    specs: &[ParamSpec],
    prefix: &str,
) -> Result<ParamStore<B>> {
    let mut params = ParamStore::new(backend, specs, |spec| {
        let mut values = Vec::new();
        file.read_f32(&format!("{prefix}{}", spec.name), &mut values)?;
        Ok(values)
    })?;
    for (i, spec) in specs.iter().enumerate() {
        let name = format!("mask/{}", spec.name);
        if file.shape(&name).is_some() {
            params.set_mask(backend, ParamId(i as u32), Mask(file.bytes(&name)?.into()))?;
        }
    }
    Ok(params)
}
