//! Weights to int8 and int4, and the `.limbeck` file that holds them.
//!
//! [`crate::quantized`] says what is rounded to what. In int8 the largest weight is taken over each output of a matrix,
//! each row of a table, or the whole matrix, as the published system has it. Activations need nothing here: a session
//! quantizes them as they come.

use super::layout::{self, Layout, LayoutTimes};
use crate::checkpoint::Dtype;
use crate::infer::format::{Golden, MAX_INPUTS, Metadata, Parents, Settings, VOCABULARY};
use crate::infer::format::{multipliers_name, panels_shape, scale_name, starts_name, sums_name, words_name};
use crate::infer::{Image, Tensor};
use crate::models::{Classifier, ModelConfig};
use crate::nn::{ParamSpec, Role};
use crate::ops::rounded::Rounding;
use crate::quantized::{
    BLOCK_NIBBLES, Int4Rows, Int8Rows, RowRounding, groups_of, matches, nibbles_of, pack_block,
};
pub use crate::quantized::{Exceptions, Form};
use crate::{Error, Result};
use half::{bf16, f16};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{
    BLOCK_SHAPE, PackedBlocks, pack_blocks_i8, pack_i8, packed_i8_len, packed_i8_sums,
};
use limbeck_kernels::random::SplitMix64;
use std::path::Path;

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
        check(path, spec, &values)?;
        let first = tensors.len();
        let form = rounding.form(spec);
        let (rows, layout) = match form {
            Form::F32 | Form::F16 | Form::Bf16 => {
                tensors.push(floats(path, spec, form, &values)?);
                continue;
            }
            Form::Int8 | Form::Int8Tensor => {
                let rows = RowRounding::new(form, &values).rows(&values, spec.rows, spec.cols);
                let times = int8(kernels, spec, &rows, quantization.layout, &mut tensors);
                (rows, times)
            }
            Form::Int4 => int4(kernels, spec, &values, quantization.layout, &mut tensors),
        };
        let bytes = tensors[first..].iter().map(|tensor| tensor.bytes.len()).sum();
        let signal_to_noise = rows.signal_to_noise(&values);
        let ParamSpec { name, rows, cols, .. } = spec.clone();
        losses.push(Loss { name, rows, cols, bytes, signal_to_noise, layout });
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
/// # Panics
/// If there are not `spec.len()` values.
pub fn stored_bytes(spec: &ParamSpec, form: Form, blocks: bool, values: &[f32]) -> usize {
    assert_eq!(values.len(), spec.len(), "the values of {}", spec.name);
    let (n, k) = (spec.rows, spec.cols);
    let matrix = spec.role == Role::Weight;
    let (dense, rest) = match form {
        Form::F32 => return 4 * n * k,
        Form::F16 | Form::Bf16 => return 2 * n * k,
        Form::Int4 => (n * nibbles_of(k), n * (groups_of(k) + 4)),
        Form::Int8 | Form::Int8Tensor if !matrix => (n * k, 4 * n),
        Form::Int8 | Form::Int8Tensor => (packed_i8_len(n, k), int8_bytes(n, k) - packed_i8_len(n, k)),
    };
    if !(blocks && matrix) {
        return dense + rest;
    }
    let PackedBlocks { words, starts, .. } =
        blocks_of(&RowRounding::new(form, values).rows(values, n, k).bytes, spec);
    let of_a_block = if form == Form::Int4 { BLOCK_NIBBLES } else { BLOCK_SHAPE[0] * BLOCK_SHAPE[1] };
    dense.min(words.len() * (of_a_block + 1) + 4 * starts.len()) + rest
}

/// The blocks of a matrix of these weights that are not zero.
fn blocks_of(weights: &[i8], spec: &ParamSpec) -> PackedBlocks {
    let (n, k) = (spec.rows, spec.cols);
    let mut panels = vec![0; packed_i8_len(n, k)];
    pack_i8(weights, n, k, &mut panels);
    pack_blocks_i8(&panels, n, k)
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

fn check(path: &Path, spec: &ParamSpec, values: &[f32]) -> Result<()> {
    if let Some(place) = values.iter().position(|value| !value.is_finite()) {
        let problem = format!("element {place} is {}", values[place]);
        let mend = "the training that wrote it diverged: take an earlier checkpoint";
        return Err(Error::tensor(path, &spec.name, problem, mend));
    }
    if spec.role == Role::Weight && spec.cols > MAX_INPUTS {
        let problem = format!("{} inputs; int8 sums hold {MAX_INPUTS} at most", spec.cols);
        return Err(Error::tensor(path, &spec.name, problem, "keep the weights in f32"));
    }
    Ok(())
}

/// Lays a matrix or table in int8 out.
fn int8(
    kernels: Kernels,
    spec: &ParamSpec,
    rows: &Int8Rows,
    layout: Layout,
    tensors: &mut Vec<Tensor>,
) -> Option<LayoutTimes> {
    let name = &spec.name;
    let mut times = None;
    if spec.role == Role::Weight {
        let packed = Packed::new(&rows.bytes, spec);
        let (blocks, chosen) = packed.choose(kernels, layout);
        match blocks {
            None => tensors.push(bytes(name.clone(), packed.panels_shape().to_vec(), &packed.panels)),
            Some(PackedBlocks { blocks, words, starts }) => {
                let shape = vec![words.len(), BLOCK_SHAPE[0], BLOCK_SHAPE[1]];
                tensors.push(bytes(name.clone(), shape, &blocks));
                tensors.extend(lists(name, words, &starts));
            }
        }
        tensors.push(integers(sums_name(name), &packed.sums));
        times = chosen;
    } else {
        tensors.push(bytes(name.clone(), spec.dims(), &rows.bytes));
    }
    tensors.push(scales(scale_name(name), &rows.scale));
    times
}

/// Lays a matrix or table in int4 out; the same in int8 is returned.
fn int4(
    kernels: Kernels,
    spec: &ParamSpec,
    values: &[f32],
    layout: Layout,
    tensors: &mut Vec<Tensor>,
) -> (Int8Rows, Option<LayoutTimes>) {
    let ParamSpec { name, rows: n, cols: k, .. } = spec;
    let rows = Int4Rows::by_row(values, *n, *k);
    let int8 = rows.unpack();
    // What is multiplied is the same as in int8, and so is what is faster.
    let (blocks, times) = match spec.role {
        Role::Weight => Packed::new(&int8.bytes, spec).choose(kernels, layout),
        _ => (None, None),
    };
    let nibbles = |shape, bytes| Tensor { name: name.clone(), dtype: Dtype::U8, shape, bytes };
    match blocks {
        None => tensors.push(nibbles(vec![*n, nibbles_of(*k)], rows.nibbles)),
        Some(_) => {
            let PackedBlocks { blocks, words, starts } = blocks_of(&rows.weights(), spec);
            let packed = blocks.as_chunks().0.iter().flat_map(pack_block).collect();
            tensors.push(nibbles(vec![words.len(), BLOCK_NIBBLES], packed));
            tensors.extend(lists(name, words, &starts));
        }
    }
    let (name, shape) = (multipliers_name(name), vec![*n, groups_of(*k)]);
    tensors.push(Tensor { name, dtype: Dtype::U8, shape, bytes: rows.multipliers });
    tensors.push(scales(scale_name(&spec.name), &rows.scale));
    (int8, times)
}

/// A matrix in int8, as products read it.
struct Packed {
    panels: Vec<i8>,
    sums: Vec<i32>,
    shape: [usize; 2],
}

impl Packed {
    fn new(weights: &[i8], spec: &ParamSpec) -> Packed {
        let (n, k) = (spec.rows, spec.cols);
        let mut panels = vec![0; packed_i8_len(n, k)];
        pack_i8(weights, n, k, &mut panels);
        let mut sums = vec![0; n.next_multiple_of(16)];
        packed_i8_sums(&panels, n, k, &mut sums);
        Packed { panels, sums, shape: [n, k] }
    }

    fn choose(&self, kernels: Kernels, layout: Layout) -> (Option<PackedBlocks>, Option<LayoutTimes>) {
        layout::choose(kernels, layout, &self.panels, &self.sums, self.shape)
    }

    fn panels_shape(&self) -> [usize; 4] {
        panels_shape(self.shape[0], self.shape[1])
    }
}

/// Which blocks of a matrix there are.
fn lists(name: &str, words: Vec<u8>, starts: &[i32]) -> [Tensor; 2] {
    let (words_name, shape) = (words_name(name), vec![words.len()]);
    let words = Tensor { name: words_name, dtype: Dtype::U8, shape, bytes: words };
    [words, integers(starts_name(name), starts)]
}

fn integers(name: String, values: &[i32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { name, dtype: Dtype::I32, shape: vec![values.len()], bytes }
}

fn bytes(name: String, shape: Vec<usize>, values: &[i8]) -> Tensor {
    Tensor {
        name,
        dtype: Dtype::I8,
        shape,
        bytes: values.iter().map(|&value| value.cast_unsigned()).collect(),
    }
}

fn scales(name: String, values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { name, dtype: Dtype::F32, shape: vec![values.len()], bytes }
}

/// A parameter in floats.
fn floats(path: &Path, spec: &ParamSpec, form: Form, values: &[f32]) -> Result<Tensor> {
    let (dtype, bytes) = match form {
        Form::F16 => {
            let halves = values.iter().map(|&value| f16::from_f32(value));
            if let Some(place) = halves.clone().position(|half| !half.is_finite()) {
                let problem = format!("element {place} is {}, beyond the largest f16", values[place]);
                return Err(Error::tensor(path, &spec.name, problem, "store it as bf16"));
            }
            (Dtype::F16, halves.flat_map(f16::to_le_bytes).collect())
        }
        Form::Bf16 => {
            let halves = values.iter().map(|&value| bf16::from_f32(value));
            (Dtype::Bf16, halves.flat_map(bf16::to_le_bytes).collect())
        }
        _ => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    };
    Ok(Tensor { name: spec.name.clone(), dtype, shape: spec.dims(), bytes })
}
