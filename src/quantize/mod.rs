//! Weights to int8 and int4, and the `.limbeck` file that holds them.
//!
//! [`crate::formats`] says what is rounded to what. In int8 the largest weight is taken over each output of a matrix,
//! each row of a table, or the whole matrix, as the published system has it. Activations need nothing here: a session
//! quantizes them as they come.
//!
//! | to | look into |
//! |---|---|
//! | lay matrices out in the file, dense or without zero blocks | `tensors`, [`layout`] |
//! | measure what few bits do to each matrix | [`sensitivity`], [`calibration`] (static scales of activations) |
//! | choose int4 or int8 for each | [`mixed_precision`] |

pub mod calibration;
pub mod layout;
pub mod mixed_precision;
pub mod sensitivity;
mod tensors;

use crate::checkpoint::Dtype;
use crate::formats::matches;
pub use crate::formats::{Exceptions, Form};
use crate::infer::format::{Golden, MAX_INPUTS, Metadata, Parents, Settings, VOCABULARY};
use crate::infer::{Image, Tensor};
use crate::models::{Classifier, ModelConfig};
use crate::nn::{ParamSpec, Role};
use crate::ops::rounded::Rounding;
use crate::{Error, Result};
use layout::{Layout, LayoutTimes};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::packed_i8_len;
use limbeck_kernels::random::SplitMix64;
use std::path::Path;
use tensors::{floats, whole_numbers};

/// What becomes of which weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// The matrices of linear layers.
    pub weights: Form,
    /// Embedding tables.
    pub embeddings: Form,
    /// Which matrices of whole numbers leave their zero blocks out.
    pub layout: Layout,
    /// Matrices and tables that become something else: matrices all floats, or all of whole numbers.
    pub exceptions: Exceptions,
}

impl Quantization {
    /// Everything in f32: a `.limbeck` file without loss.
    pub const NONE: Quantization = Quantization {
        weights: Form::F32,
        embeddings: Form::F32,
        layout: Layout::Dense,
        exceptions: Exceptions::NONE,
    };

    /// The default: a scale for each output and each row, zero blocks left out where that is faster.
    pub const INT8: Quantization = Quantization {
        weights: Form::Int8,
        embeddings: Form::Int8,
        layout: Layout::Faster,
        exceptions: Exceptions::NONE,
    };

    /// What parameters are rounded to.
    pub fn rounding(&self) -> Rounding {
        let Quantization { weights, embeddings, exceptions, .. } = self.clone();
        Rounding { weights, embeddings, exceptions }
    }

    /// Whether it can be meant for a network of these parameters.
    ///
    /// # Errors
    /// [`Error::Setting`] if an exception is no matrix or table, or would put matrices in floats beside matrices of whole
    /// numbers: sessions multiply either the ones or the others.
    pub fn check(&self, specs: &[ParamSpec]) -> Result<()> {
        const KEY: &str = "quantize.exceptions";
        let of = |role| specs.iter().filter(move |spec| spec.role == role);
        for (pattern, _) in self.exceptions.iter() {
            if !of(Role::Weight).chain(of(Role::Embedding)).any(|spec| matches(pattern, &spec.name)) {
                let problem = format!("\"{pattern}\" is no matrix and no table of this network");
                let mend = "`limbeck inspect --json` lists the matrices; * stands for any characters";
                return Err(Error::setting(KEY, problem, mend));
            }
        }
        for spec in of(Role::Weight) {
            let Some(form) = self.exceptions.form(&spec.name) else { continue };
            if form.is_integer() != self.weights.is_integer() {
                let (most, name) = (self.weights.name(), form.name());
                let problem = format!("{} would be {name}, and other matrices are {most}", spec.name);
                let mend = "matrices are all in int8 and int4, or all in floats; tables are free";
                return Err(Error::setting(KEY, problem, mend));
            }
        }
        Ok(())
    }

    fn settings(&self, specs: &[ParamSpec]) -> Settings {
        let scales = match self.weights {
            Form::F32 | Form::F16 | Form::Bf16 => "none",
            Form::Int8 => "channel",
            Form::Int8Tensor => "tensor",
            Form::Int4 => "group",
        };
        let weights = if self.weights == Form::Int8Tensor { Form::Int8 } else { self.weights };
        let exceptions = specs.iter().filter_map(|spec| {
            let form = self.exceptions.form(&spec.name)?;
            let most = match spec.role {
                Role::Weight => self.weights,
                Role::Embedding => self.embeddings,
                Role::Bias | Role::Gamma | Role::Beta => return None,
            };
            (form != most).then(|| (spec.name.clone(), form.name().to_owned()))
        });
        Settings {
            weights: weights.name().into(),
            block_sparse: 0,
            scales: scales.into(),
            embeddings: self.embeddings.name().into(),
            exceptions: exceptions.collect(),
        }
    }
}

/// What goes into a file beside the weights.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// The tokenizer, from [`Tokenizer::pack`](crate::tokenizer::Tokenizer::pack).
    pub vocabulary: Option<Vec<u8>>,
    /// What the model was made from.
    pub parents: Parents,
    /// Texts whose logits, still to be filled in, are kept in the file for
    /// [`Model::check_golden`](crate::infer::Model::check_golden).
    pub golden: Vec<Golden>,
}

/// What quantization did to one matrix or table.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The parameter.
    pub name: String,
    /// Outputs, or entries.
    pub rows: usize,
    /// Inputs, or the width of a row.
    pub cols: usize,
    /// Bytes in the file, with padding, scales and sums.
    pub bytes: usize,
    /// `10·log₁₀(Σ w² / Σ (w − q·scale)²)`, in decibels; infinite where nothing was lost.
    pub signal_to_noise: f64,
    /// Of a matrix with zero blocks: what its two layouts cost, and which it has.
    pub layout: Option<LayoutTimes>,
}

/// A quantized model, ready to be written or run.
pub struct Quantized {
    /// The file.
    pub image: Image,
    /// One entry for each matrix or table that is not f32.
    pub losses: Vec<Loss>,
}

/// Lays out a `.limbeck` file of a network with these values: `spec.len()` of them, row-major, for each
/// parameter. Nothing is written; `path` is the name in errors.
///
/// # Errors
/// Those of `values` and of [`Quantization::check`]; [`Error::Tensor`] if a value is NaN or infinite or a matrix too wide for int8 sums; what
/// [`Image::new`] returns.
pub fn quantize(
    path: &Path,
    config: &ModelConfig,
    mut values: impl FnMut(&ParamSpec) -> Result<Vec<f32>>,
    quantization: Quantization,
    extras: &Extras,
) -> Result<Quantized> {
    let (_, specs) = Classifier::new(config);
    quantization.check(&specs)?;
    let (kernels, rounding) = (Kernels::select()?, quantization.rounding());
    let (mut tensors, mut losses) = (Vec::new(), Vec::new());
    for spec in &specs {
        let values = values(spec)?;
        assert_eq!(values.len(), spec.len(), "the values of {}", spec.name);
        let form = rounding.form(spec);
        check(path, spec, form, &values)?;
        if !form.is_integer() {
            tensors.push(floats(path, spec, form, &values)?);
            continue;
        }
        let laid = whole_numbers(kernels, spec, form, quantization.layout, &values);
        let (bytes, signal_to_noise) = (laid.bytes(), laid.rows.signal_to_noise(&values));
        let ParamSpec { name, rows, cols, .. } = spec.clone();
        losses.push(Loss { name, rows, cols, bytes, signal_to_noise, layout: laid.times });
        tensors.extend(laid.tensors);
    }
    if let Some(bytes) = &extras.vocabulary {
        let (name, shape) = (VOCABULARY.to_owned(), vec![bytes.len()]);
        tensors.push(Tensor { name, dtype: Dtype::U8, shape, bytes: bytes.clone() });
    }
    let blocks = losses.iter().filter(|loss| loss.layout.is_some_and(|times| times.blocks)).count();
    let metadata = Metadata {
        config: config.clone(),
        parents: extras.parents.clone(),
        settings: Settings { block_sparse: blocks, ..quantization.settings(&specs) },
        golden: Vec::new(),
        writer: env!("CARGO_PKG_VERSION").to_owned(),
        data_hash: String::new(),
    };
    let image = Image::new(path, metadata, &tensors, &extras.golden)?;
    Ok(Quantized { image, losses })
}

/// Bytes that an int8 matrix `[n, k]` takes in a file without leaving blocks out: packed weights, scales, and sums of rows.
pub fn int8_bytes(n: usize, k: usize) -> usize {
    packed_i8_len(n, k) + 4 * n + 4 * n.next_multiple_of(16)
}

/// Bytes that a matrix or table of these values takes in a file, the padding between tensors left out. With `blocks` a
/// matrix in int8 or int4 leaves its zero blocks out where that is smaller, whatever its speed.
///
/// # Errors
/// [`Error::Isa`].
///
/// # Panics
/// If there are not `spec.len()` values.
pub fn stored_bytes(spec: &ParamSpec, form: Form, blocks: bool, values: &[f32]) -> Result<usize> {
    assert_eq!(values.len(), spec.len(), "the values of {}", spec.name);
    let kernels = Kernels::select()?;
    let bytes = |layout| whole_numbers(kernels, spec, form, layout, values).bytes();
    Ok(match form {
        Form::F32 => 4 * spec.len(),
        Form::F16 | Form::Bf16 => 2 * spec.len(),
        _ if blocks => bytes(Layout::Dense).min(bytes(Layout::Blocks)),
        _ => bytes(Layout::Dense),
    })
}

/// Texts for [`Extras::golden`] where no real ones are at hand: random ids of a few lengths, always the same for
/// the same sizes.
pub fn golden_texts(config: &ModelConfig) -> Vec<Golden> {
    let mut random = SplitMix64::new(0);
    let lengths = [1, 2, 7, 33, 128].into_iter().filter(|&length| length <= config.positions);
    let text = |length: usize| Golden {
        ids: (0..length).map(|_| random.below(config.vocab) as u32).collect(),
        first: (config.decoupled > 0 && length > 2).then_some(length / 3),
        logits: Vec::new(),
    };
    lengths.map(text).collect()
}

fn check(path: &Path, spec: &ParamSpec, form: Form, values: &[f32]) -> Result<()> {
    if let Some(place) = values.iter().position(|value| !value.is_finite()) {
        let problem = format!("element {place} is {}", values[place]);
        let mend = "the training that wrote it diverged: take an earlier checkpoint";
        return Err(Error::tensor(path, &spec.name, problem, mend));
    }
    if spec.role == Role::Weight && form.is_integer() && spec.cols > MAX_INPUTS {
        let problem = format!("{} inputs; int8 sums hold {MAX_INPUTS} at most", spec.cols);
        return Err(Error::tensor(path, &spec.name, problem, "quantize.weights = \"f32\""));
    }
    Ok(())
}
