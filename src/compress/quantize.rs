//! Weights to int8, and the `.limbeck` file that holds them.
//!
//! Symmetric: `q = round(w / scale)` with ties to even and `scale = max|w| / 127`, so that `|q| ≤ 127` and
//! `|w − q·scale| ≤ scale / 2`. The largest weight is taken over each output of a matrix, each row of a table,
//! or the whole matrix, as the published system has it. Activations need nothing here: a session quantizes
//! them as they come.

use super::layout::{self, Layout, LayoutTimes};
use crate::checkpoint::Dtype;
use crate::infer::format::{MAX_INPUTS, Metadata, Parents, Settings, VOCABULARY};
use crate::infer::format::{panels_shape, scale_name, starts_name, sums_name, words_name};
use crate::infer::{Image, Tensor};
use crate::models::{Classifier, ModelConfig};
use crate::nn::{ParamSpec, Role};
use crate::{Error, Result};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{BLOCK_SHAPE, PackedBlocks, pack_i8, packed_i8_len, packed_i8_sums};
use limbeck_kernels::random::SplitMix64;
use std::path::Path;

/// Over what the largest weight sets a matrix's scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Over each output.
    Channel,
    /// Over the whole matrix.
    Tensor,
}

/// What becomes of which weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// The matrices of linear layers; `None` leaves them in f32.
    pub weights: Option<Granularity>,
    /// Whether embedding tables become int8, with a scale for each row.
    pub embeddings: bool,
    /// Which int8 matrices leave their zero blocks out.
    pub layout: Layout,
}

impl Quantization {
    /// Everything in f32: a `.limbeck` file without loss.
    pub const NONE: Quantization = Quantization { weights: None, embeddings: false, layout: Layout::Dense };

    /// The default: a scale for each output and each row, zero blocks left out where that is faster.
    pub const INT8: Quantization =
        Quantization { weights: Some(Granularity::Channel), embeddings: true, layout: Layout::Faster };

    fn settings(self) -> Settings {
        let (weights, scales) = match self.weights {
            None => ("f32", "none"),
            Some(Granularity::Channel) => ("int8", "channel"),
            Some(Granularity::Tensor) => ("int8", "tensor"),
        };
        let embeddings = if self.embeddings { "int8" } else { "f32" };
        Settings {
            weights: weights.into(),
            block_sparse: 0,
            scales: scales.into(),
            embeddings: embeddings.into(),
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
    /// Texts as token ids, whose logits are kept in the file for [`Model::check_golden`](crate::infer::Model::check_golden).
    pub golden: Vec<Vec<u32>>,
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
    /// One entry for each matrix or table that became int8.
    pub losses: Vec<Loss>,
}

/// Lays out a `.limbeck` file of a network with these values: `spec.len()` of them, row-major, for each
/// parameter. Nothing is written; `path` is the name in errors.
///
/// # Errors
/// Those of `values`; [`Error::Tensor`] if a value is NaN or infinite or a matrix too wide for int8 sums; what
/// [`Image::new`] returns.
pub fn quantize(
    path: &Path,
    config: &ModelConfig,
    mut values: impl FnMut(&ParamSpec) -> Result<Vec<f32>>,
    quantization: Quantization,
    extras: &Extras,
) -> Result<Quantized> {
    let (_, specs) = Classifier::new(config);
    let kernels = Kernels::select()?;
    let (mut tensors, mut losses) = (Vec::new(), Vec::new());
    for spec in &specs {
        let values = values(spec)?;
        assert_eq!(values.len(), spec.len(), "the values of {}", spec.name);
        check(path, spec, &values)?;
        let first = tensors.len();
        let dequantized = match (spec.role, quantization.weights) {
            (Role::Weight, Some(granularity)) => {
                let rows = quantize_matrix(spec, &values, granularity);
                let times = matrix(kernels, spec, &rows, quantization.layout, &mut tensors);
                Some((rows, times))
            }
            (Role::Embedding, _) if quantization.embeddings => {
                Some((table(spec, &values, &mut tensors), None))
            }
            _ => {
                tensors.push(floats(spec.name.clone(), spec.dims(), &values));
                None
            }
        };
        if let Some((rows, layout)) = dequantized {
            let bytes = tensors[first..].iter().map(|tensor| tensor.bytes.len()).sum();
            let signal_to_noise = rows.signal_to_noise(&values);
            let ParamSpec { name, rows, cols, .. } = spec.clone();
            losses.push(Loss { name, rows, cols, bytes, signal_to_noise, layout });
        }
    }
    if let Some(bytes) = &extras.vocabulary {
        let (name, shape) = (VOCABULARY.to_owned(), vec![bytes.len()]);
        tensors.push(Tensor { name, dtype: Dtype::U8, shape, bytes: bytes.clone() });
    }
    let blocks = losses.iter().filter(|loss| loss.layout.is_some_and(|times| times.blocks)).count();
    let metadata = Metadata {
        config: config.clone(),
        parents: extras.parents.clone(),
        settings: Settings { block_sparse: blocks, ..quantization.settings() },
        golden: Vec::new(),
        writer: env!("CARGO_PKG_VERSION").to_owned(),
        data_hash: String::new(),
    };
    let image = Image::new(path, metadata, &tensors, &extras.golden)?;
    Ok(Quantized { image, losses })
}

/// Texts for [`Extras::golden`] where no real ones are at hand: random ids of a few lengths, always the same for
/// the same sizes.
pub fn golden_texts(config: &ModelConfig) -> Vec<Vec<u32>> {
    let mut random = SplitMix64::new(0);
    let lengths = [1, 2, 7, 33, 128].into_iter().filter(|&length| length <= config.positions);
    lengths.map(|length| (0..length).map(|_| random.below(config.vocab) as u32).collect()).collect()
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

/// Rows in int8, each with its scale.
struct Rows {
    bytes: Vec<i8>,
    scales: Vec<f32>,
    cols: usize,
}

impl Rows {
    /// Quantizes `[rows, cols]` values, each row by its own largest value.
    fn by_row(values: &[f32], rows: usize, cols: usize) -> Rows {
        let scales = (0..rows).map(|row| scale(&values[row * cols..(row + 1) * cols])).collect();
        Rows::with_scales(values, scales, cols)
    }

    fn with_scales(values: &[f32], scales: Vec<f32>, cols: usize) -> Rows {
        let rows = values.chunks(cols.max(1)).zip(&scales);
        let bytes = rows.flat_map(|(row, &scale)| {
            row.iter().map(move |&value| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8)
        });
        Rows { bytes: bytes.collect(), scales, cols }
    }

    fn signal_to_noise(&self, values: &[f32]) -> f64 {
        let (mut signal, mut noise) = (0.0, 0.0);
        let rows = values.chunks(self.cols.max(1)).zip(self.bytes.chunks(self.cols.max(1)));
        for ((values, bytes), &scale) in rows.zip(&self.scales) {
            for (&value, &byte) in values.iter().zip(bytes) {
                let value = f64::from(value);
                signal += value * value;
                noise += (value - f64::from(byte) * f64::from(scale)).powi(2);
            }
        }
        if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() }
    }
}

/// The largest magnitude, as 127; 1 for a row of zeros, or of values too small for the division.
fn scale(values: &[f32]) -> f32 {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    if scale.is_normal() { scale } else { 1.0 }
}

fn quantize_matrix(spec: &ParamSpec, values: &[f32], granularity: Granularity) -> Rows {
    let (n, k) = (spec.rows, spec.cols);
    match granularity {
        Granularity::Channel => Rows::by_row(values, n, k),
        Granularity::Tensor => Rows::with_scales(values, vec![scale(values); n], k),
    }
}

/// Lays a matrix out, densely or in blocks.
fn matrix(
    kernels: Kernels,
    spec: &ParamSpec,
    rows: &Rows,
    layout: Layout,
    tensors: &mut Vec<Tensor>,
) -> Option<LayoutTimes> {
    let (n, k) = (spec.rows, spec.cols);
    let mut panels = vec![0; packed_i8_len(n, k)];
    pack_i8(&rows.bytes, n, k, &mut panels);
    let mut sums = vec![0; n.next_multiple_of(16)];
    packed_i8_sums(&panels, n, k, &mut sums);
    let (blocks, times) = layout::choose(kernels, layout, &panels, &sums, [n, k]);
    match blocks {
        None => tensors.push(bytes(spec.name.clone(), panels_shape(n, k).to_vec(), &panels)),
        Some(PackedBlocks { blocks, words, starts }) => {
            let shape = vec![words.len(), BLOCK_SHAPE[0], BLOCK_SHAPE[1]];
            tensors.push(bytes(spec.name.clone(), shape, &blocks));
            let (name, shape) = (words_name(&spec.name), vec![words.len()]);
            tensors.push(Tensor { name, dtype: Dtype::U8, shape, bytes: words });
            tensors.push(integers(starts_name(&spec.name), &starts));
        }
    }
    tensors.push(floats(scale_name(&spec.name), vec![n], &rows.scales));
    tensors.push(integers(sums_name(&spec.name), &sums));
    times
}

fn integers(name: String, values: &[i32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { name, dtype: Dtype::I32, shape: vec![values.len()], bytes }
}

fn table(spec: &ParamSpec, values: &[f32], tensors: &mut Vec<Tensor>) -> Rows {
    let rows = Rows::by_row(values, spec.rows, spec.cols);
    tensors.push(bytes(spec.name.clone(), spec.dims(), &rows.bytes));
    tensors.push(floats(scale_name(&spec.name), vec![spec.rows], &rows.scales));
    rows
}

fn bytes(name: String, shape: Vec<usize>, values: &[i8]) -> Tensor {
    Tensor {
        name,
        dtype: Dtype::I8,
        shape,
        bytes: values.iter().map(|&value| value.cast_unsigned()).collect(),
    }
}

fn floats(name: String, shape: Vec<usize>, values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { name, dtype: Dtype::F32, shape, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_off_by_half_a_step_at_most() {
        let values: Vec<f32> = (0..96).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        let rows = Rows::by_row(&values, 4, 24);
        for (row, values) in values.chunks(24).enumerate() {
            let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let quantized = &rows.bytes[row * 24..(row + 1) * 24];
            assert!(quantized.iter().any(|q| q.unsigned_abs() == 127), "the largest value fills the range");
            for (value, &q) in values.iter().zip(quantized) {
                let error = (f64::from(*value) - f64::from(q) * f64::from(rows.scales[row])).abs();
                assert!(error <= f64::from(largest) / 254.0 * (1.0 + 1e-5), "{error}");
            }
        }
        // A uniform error of half a step at most: Bennett's noise is step²/12.
        assert!(rows.signal_to_noise(&values) > 40.0);
    }

    #[test]
    fn zeros_stay_zero() {
        let rows = Rows::by_row(&[0.0, 0.0, 1e-42, -1e-42], 2, 2);
        assert_eq!((rows.bytes, rows.scales), (vec![0; 4], vec![1.0; 2]));
        assert_eq!(Rows::by_row(&[], 3, 0).scales, [1.0; 3]);
    }
}
