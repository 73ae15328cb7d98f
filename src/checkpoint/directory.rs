//! A model as Hugging Face lays it out: `config.json`, `model.safetensors`, and the tokenizer's files.

use super::{
    Dtype, TensorFile, TensorToWrite, config_to_json, find, is_head, is_of_classes, layer_of, read_config,
    write_tensors,
};
use crate::models::config::ModelConfig;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";
/// The file of weights in a model directory.
pub const WEIGHTS: &str = "model.safetensors";

/// Embedding tables are padded with rows that no piece has, to a multiple of 8 at least and of 128 at most: other
/// tables have a row for each piece.
const PADDED_TO: [usize; 2] = [8, 128];

/// A model directory that is open for reading.
pub struct HfDirectory {
    /// Where it lies.
    pub path: PathBuf,
    /// What `config.json` says. If that names no classes and the file has a classifier, they are called
    /// `LABEL_0`, `LABEL_1`, … as transformers calls them.
    pub config: ModelConfig,
    /// The weights.
    pub tensors: TensorFile,
}

/// A parameter that a network is built of.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Hugging Face's name for it, with the model's prefix.
    pub name: &'a str,
    /// Extents, outermost first.
    pub shape: &'a [usize],
}

/// Where a parameter's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// From the tensor of this name, which has the right shape.
    Found(String),
    /// From nowhere: it belongs to a head that the file does not have, and must be initialised.
    Fresh,
}

impl HfDirectory {
    /// Opens a model directory and checks that its two files belong together as far as names go.
    ///
    /// # Errors
    /// What [`read_config`] and [`TensorFile::open`] return; [`Error::File`] if the weights are missing or
    /// in a format that is not read here, or if the directory is none of a model but holds some;
    /// [`Error::Tensor`] for a tensor of a layer that the configuration does not have.
    pub fn open(path: &Path) -> Result<HfDirectory> {
        if !path.is_dir() {
            let mend = "give a directory with config.json and model.safetensors";
            return Err(Error::file(path, "there is no such model directory", mend));
        }
        if !path.join(CONFIG).exists()
            && let Some(models) = models_in(path)
        {
            let problem =
                "this is no model directory (no config.json), but holds models, as a run directory does";
            return Err(Error::file(path, problem, format!("give {models}")));
        }
        let mut config = read_config(&path.join(CONFIG))?;
        let weights = path.join(WEIGHTS);
        if !weights.exists() {
            return Err(missing_weights(path));
        }
        let tensors = TensorFile::open(&weights)?;
        let layers = config.layers.len();
        if let Some(name) = tensors.names().find(|name| layer_of(name).is_some_and(|layer| layer >= layers)) {
            let problem = format!("the file has this layer, and config.json has {layers}, counted from 0");
            return Err(Error::tensor(
                &weights,
                name,
                problem,
                "take the config.json that belongs to these weights",
            ));
        }
        if config.labels.is_empty()
            && let Some(&[classes, _]) = tensors.shape("classifier.weight")
        {
            config.labels = (0..classes).map(|class| format!("LABEL_{class}")).collect();
        }
        Ok(HfDirectory { path: path.to_owned(), config, tensors })
    }

    /// Reads the tokenizer that lies beside the weights.
    ///
    /// # Errors
    /// What [`Tokenizer::from_directory`] returns; [`Error::File`] if its vocabulary is larger than the
    /// model's, whose last pieces would have no embedding, or so much smaller that it is another model's or cut
    /// short: a table is padded to a multiple of 8, by fewer than 128 rows.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = Tokenizer::from_directory(&self.path)?;
        let (pieces, rows) = (tokenizer.vocab(), self.config.vocab);
        let [least, most] = PADDED_TO;
        if pieces == rows || pieces < rows && rows - pieces < most && rows.is_multiple_of(least) {
            return Ok(tokenizer);
        }
        let problem = format!("it has {pieces} pieces, the model has {rows}");
        let mend = match tokenizer.file() {
            "vocab.txt" if pieces < rows => {
                "fetch the whole file again, or the tokenizer.json, which has added pieces too; for a model that has \
                 rows without pieces, add a line such as [none1] for each"
            }
            _ => "fetch the tokenizer that belongs to this model",
        };
        Err(Error::file(&self.path.join(tokenizer.file()), problem, mend))
    }

    /// Finds the tensors of a network in the file, and checks their shapes. With `fresh_classifier` the file's
    /// classifier, if it has one, is left alone: the task has other classes. The rest of the head is taken from
    /// the file all the same, as transformers does it.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor has another shape, or if the encoder is incomplete: the first missing
    /// name, and how many are.
    pub fn locate(&self, wanted: &[Expected<'_>], fresh_classifier: bool) -> Result<Vec<ValueSource>> {
        let mut located = Vec::with_capacity(wanted.len());
        let mut missing = Vec::new();
        for parameter in wanted {
            let set_aside = fresh_classifier && is_of_classes(parameter.name);
            match find(parameter.name, |name| self.tensors.shape(name).is_some()) {
                Some(name) if !set_aside => {
                    self.check_shape(parameter, &name)?;
                    located.push(ValueSource::Found(name));
                }
                Some(_) => located.push(ValueSource::Fresh),
                None => {
                    located.push(ValueSource::Fresh);
                    if !is_head(parameter.name) {
                        missing.push(parameter.name);
                    }
                }
            }
        }
        match missing.first() {
            None => Ok(located),
            Some(first) => Err(self.incomplete(first, missing.len(), wanted.len())),
        }
    }

    fn check_shape(&self, parameter: &Expected<'_>, name: &str) -> Result<()> {
        let found = self.tensors.shape(name).unwrap_or_default();
        if found == parameter.shape {
            return Ok(());
        }
        let mend = if is_of_classes(parameter.name) {
            "give the task's classes as this model has them, or train a fresh head"
        } else {
            "take the config.json that belongs to these weights"
        };
        let problem = format!("its shape is {found:?}, the configuration makes it {:?}", parameter.shape);
        Err(Error::tensor(self.tensors.path(), name, problem, mend))
    }

    fn incomplete(&self, first: &str, missing: usize, wanted: usize) -> Error {
        let some: Vec<&str> = self.tensors.names().take(2).collect();
        let problem = format!(
            "the file does not have it; {missing} of {wanted} parameters are missing, \
             and its own names are like {some:?}"
        );
        Error::tensor(
            self.tensors.path(),
            first,
            problem,
            "take the config.json that belongs to these weights",
        )
    }

    /// Writes a model directory. A new one appears complete or not at all; in one that exists each file does, the
    /// configuration last, and other files are left alone.
    ///
    /// # Errors
    /// [`Error::Occupied`] if the directory holds a model already; [`Error::Io`];
    /// [`Error::Tensor`] for values that cannot be stored.
    pub fn save(
        path: &Path,
        config: &ModelConfig,
        tensors: &[TensorToWrite<'_>],
        dtype: Dtype,
        metadata: &BTreeMap<String, String>,
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        // transformers refuses a file that does not say which framework's conventions it follows.
        let mut metadata = metadata.clone();
        metadata.insert("format".to_owned(), "pt".to_owned());
        let write = |directory: &Path| -> Result<()> {
            tokenizer.save(directory, config.positions, config.token_types > 0)?;
            write_tensors(&directory.join(WEIGHTS), tensors, dtype, &metadata)?;
            let text = format!("{:#}\n", config_to_json(config));
            files::replace_bytes(&directory.join(CONFIG), text.as_bytes())
        };
        if path.exists() {
            let held = [CONFIG, WEIGHTS].into_iter().find(|name| path.join(name).exists());
            if let Some(name) = held {
                let mend = "choose another directory";
                return Err(Error::Occupied { path: path.into(), found: name.into(), mend: mend.into() });
            }
            return write(path);
        }
        let temporary = files::Temporary::directory(path)?;
        write(&temporary.path).map_err(|error| under(&temporary.path, path, error))?;
        temporary.rename(path)
    }
}

/// An error of writing below a temporary directory, told of the place that was meant.
fn under(temporary: &Path, meant: &Path, mut error: Error) -> Error {
    if let Error::Io { path, .. } | Error::Tensor { path, .. } = &mut error
        && let Ok(name) = path.strip_prefix(temporary)
    {
        *path = meant.join(name);
    }
    error
}

/// The models that a directory holds, by their paths, `.limbeck` files first.
fn models_in(path: &Path) -> Option<String> {
    let entries = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for entry in entries {
        if entry.extension().is_some_and(|extension| extension == "limbeck") {
            files.push(entry);
        } else if entry.join(CONFIG).exists() && entry.join(WEIGHTS).exists() {
            directories.push(entry);
        }
    }
    files.sort();
    directories.sort();
    let named: Vec<String> =
        files.iter().chain(&directories).map(|path| path.display().to_string()).collect();
    let more = if named.len() > 4 { ", …" } else { "" };
    (!named.is_empty()).then(|| format!("{}{more}", named[..named.len().min(4)].join(" or ")))
}

/// What to do depends on which other format is there.
fn missing_weights(path: &Path) -> Error {
    let weights = path.join(WEIGHTS);
    let found = ["model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5", "model.onnx"]
        .into_iter()
        .find(|name| path.join(name).exists());
    match found {
        Some(name) => {
            let problem = format!("the file is missing, and {name} is not read here");
            Error::file(&weights, problem, "save the model with transformers as one safetensors file")
        }
        None => Error::file(&weights, "the file is missing", "fetch the model again, or check the path"),
    }
}
