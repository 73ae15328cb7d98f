//! A model that is open for prediction.

mod contents;

pub use contents::{Stored, StoredAs};

use super::bytes::Bytes;
use super::format::{self, Metadata};
use super::load::{Loaded, load, pack};
use super::weights::{Floats, Matrix, Value, Weights};
use crate::models::config::Activation;
use crate::models::{Classifier, ModelConfig};
use crate::nn::{Layer, ParamId, ParamSpec, Role};
use crate::tokenizer::WordPiece;
use crate::{Error, Result, files};
use limbeck_kernels::Kernels;
use memmap2::Mmap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A classifier with its weights, for any number of [`Session`](super::Session)s on any threads.
pub struct Model {
    pub(super) path: PathBuf,
    pub(super) kernels: Kernels,
    pub(super) classifier: Classifier,
    pub(super) weights: Weights,
    /// Whether products read bytes.
    pub(super) quantizes: bool,
    metadata: Option<Metadata>,
    pub(super) vocabulary: Option<Range<usize>>,
}

impl Model {
    /// Opens a `.limbeck` file, or (with the feature `train`) a Hugging Face directory.
    ///
    /// Of a `.limbeck` file in int8 nothing is copied. Matrices in f32 are packed into memory. The header is compared
    /// with its hash, the data with theirs only by [`Model::check_golden`]: [`format`](super::format#what-is-checked-and-when).
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] or [`Error::Tensor`] if the file is cut short, damaged, of another version,
    /// or does not hold what its own configuration asks for; [`Error::Isa`].
    pub fn open(path: &Path) -> Result<Model> {
        #[cfg(feature = "train")]
        if path.is_dir() {
            return Model::from_directory(&crate::checkpoint::HfDirectory::open(path)?);
        }
        if !path.exists() {
            let mend = "check the path: a model is a .limbeck file or a directory with config.json and model.safetensors";
            return Err(Error::file(path, "there is no such model", mend));
        }
        let map = files::map(path)?;
        Model::from_file(path, Bytes::Mapped(map))
    }

    /// A `.limbeck` file that is part of the program: [`include_model!`](crate::include_model) aligns it.
    ///
    /// # Errors
    /// As [`Model::open`]; the name in errors is `embedded model`.
    pub fn from_bytes(bytes: &'static [u8]) -> Result<Model> {
        Model::from_file(Path::new("embedded model"), Bytes::Static(bytes))
    }

    /// A `.limbeck` file in memory that was mapped elsewhere; `path` is its name in errors.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_map(path: &Path, map: Mmap) -> Result<Model> {
        Model::from_file(path, Bytes::Mapped(map))
    }

    fn from_file(path: &Path, bytes: Bytes) -> Result<Model> {
        let kernels = Kernels::select()?;
        let Loaded { metadata, classifier, weights, vocabulary } = load(path, bytes, kernels)?;
        Ok(Model {
            path: path.to_owned(),
            kernels,
            classifier,
            quantizes: weights.any_int8(),
            weights,
            metadata: Some(metadata),
            vocabulary,
        })
    }

    /// A Hugging Face directory, in f32.
    ///
    /// # Errors
    /// [`Error::File`] if there are no classes; [`Error::Tensor`] if a tensor is missing (a head counts), has
    /// another shape or holds NaN; [`Error::Isa`].
    #[cfg(feature = "train")]
    pub fn from_directory(directory: &crate::checkpoint::HfDirectory) -> Result<Model> {
        use crate::checkpoint::{check_complete, read_value};
        check_complete(directory, &Classifier::new(&directory.config).1)?;
        let mut model = Model::from_values(&directory.config, |spec| read_value(directory, spec))?;
        model.path = directory.path.clone();
        Ok(model)
    }

    /// A network with these values in f32: `spec.len()` of them, row-major, for each parameter.
    ///
    /// # Errors
    /// Those of `values`; [`Error::Setting`] if there are no classes; [`Error::Isa`].
    pub fn from_values(
        config: &ModelConfig,
        mut values: impl FnMut(&ParamSpec) -> Result<Vec<f32>>,
    ) -> Result<Model> {
        if config.labels.is_empty() {
            return Err(Error::setting("id2label", "the model has no classes", "train a head first"));
        }
        let kernels = Kernels::select()?;
        let (classifier, specs) = Classifier::new(config);
        let mut held = Vec::with_capacity(specs.len());
        for spec in &specs {
            let values = values(spec)?;
            assert_eq!(values.len(), spec.len(), "the values of {}", spec.name);
            held.push(match spec.role {
                Role::Weight => pack(kernels, spec, &values, 4),
                Role::Embedding => Value::Table(Floats::Owned(values)),
                Role::Bias | Role::Gamma | Role::Beta => Value::Vector(Floats::Owned(values)),
            });
        }
        let zeros = vec![0.0; config.hidden];
        let weights = Weights { bytes: Bytes::Static(&[]), specs, values: held, zeros };
        let path = PathBuf::from("model in memory");
        Ok(Model { path, kernels, classifier, quantizes: false, weights, metadata: None, vocabulary: None })
    }

    /// Columns of the widest activation that is held whole; one with a nonlinearity is not.
    pub(super) fn widest(&self) -> usize {
        // Ranks are no larger than the width.
        let layers = self.classifier.layers.iter().flat_map(Layer::linears);
        let linears = layers.chain(&self.classifier.head.dense).chain([&self.classifier.head.classifier]);
        let held = linears.filter(|linear| linear.activation == Activation::Identity);
        held.map(|linear| linear.outputs).max().unwrap_or(0).max(self.config().hidden)
    }

    /// The network: its layers and the ids of their parameters.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// Its sizes, classes and layers.
    pub fn config(&self) -> &ModelConfig {
        &self.classifier.config
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its file says of itself; `None` if it is not from a `.limbeck` file.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// The tokenizer that its file carries. Making one checks the whole vocabulary: keep it.
    pub fn tokenizer(&self) -> Option<WordPiece<&[u8]>> {
        let bytes = &self.weights.bytes[self.vocabulary.clone()?];
        Some(WordPiece::from_bytes(bytes).expect("checked when the file was opened"))
    }

    /// Compares the data of its file with their hash, and the sums of int8 matrices with their weights, none of which may be
    /// -128. Reads the whole file.
    ///
    /// # Errors
    /// [`Error::File`] if they differ: the file is damaged; [`Error::Tensor`] if sums are wrong, or a weight is -128.
    pub fn check_data(&self) -> Result<()> {
        let Some(metadata) = &self.metadata else { return Ok(()) };
        let (_, data) = format::split(&self.weights.bytes);
        if files::sha256(data) != metadata.data_hash {
            let problem = "the data are not those that were written: their hash differs";
            return Err(Error::file(&self.path, problem, "fetch the file again"));
        }
        for (i, spec) in self.weights.specs.iter().enumerate().filter(|(_, spec)| spec.role == Role::Weight) {
            if let Matrix::I8 { weights, .. } = self.weights.matrix(ParamId(i as u32))
                && !weights.is_sound()
            {
                let problem = "its sums are not those of its weights, or a weight is -128";
                let mend = "quantize the model again: whatever wrote this file did it wrongly";
                return Err(Error::tensor(&self.path, &spec.name, problem, mend));
            }
        }
        Ok(())
    }
}
