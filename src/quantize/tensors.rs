//! The tensors that a parameter is in a `.limbeck` file ([`format`](crate::infer::format)), in each of its forms.

use super::layout::{self, Layout, LayoutTimes};
use crate::checkpoint::Dtype;
use crate::formats::{BLOCK_NIBBLES, Form, Int4Rows, Int8Rows, RowRounding};
use crate::formats::{groups_of, nibbles_of, pack_block};
use crate::infer::Tensor;
use crate::infer::format::{multipliers_name, panels_shape, scale_name, starts_name, sums_name, words_name};
use crate::nn::{ParamSpec, Role};
use crate::{Error, Result};
use half::{bf16, f16};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{BLOCK_SHAPE, PackedBlocks, pack_blocks_i8, packed_i8_with_sums};
use std::path::Path;

/// A matrix or table of whole numbers, laid out.
pub(super) struct QuantizedTensor {
    /// Values first.
    pub tensors: Vec<Tensor>,
    /// What they stand for, in int8.
    pub rows: Int8Rows,
    /// Of a matrix with zero blocks.
    pub times: Option<LayoutTimes>,
}

impl QuantizedTensor {
    /// Without what pads tensors apart.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.bytes.len()).sum()
    }
}

/// Rounds a matrix or table to whole numbers, and lays it out.
///
/// # Panics
/// If it is to stay in floats.
pub(super) fn whole_numbers(
    kernels: Kernels,
    spec: &ParamSpec,
    form: Form,
    layout: Layout,
    values: &[f32],
) -> QuantizedTensor {
    let (n, k) = (spec.rows, spec.cols);
    let int4 = (form == Form::Int4).then(|| Int4Rows::by_row(values, n, k));
    let rows =
        int4.as_ref().map_or_else(|| RowRounding::new(form, values).rows(values, n, k), Int4Rows::unpack);
    // What is multiplied is int8 in any case, and so is what is faster.
    let packed = (spec.role == Role::Weight).then(|| packed_i8_with_sums(&rows.bytes, n, k));
    let choose = |(panels, sums): &(Vec<i8>, Vec<i32>)| layout::choose(kernels, layout, panels, sums, [n, k]);
    let (blocks, times) = packed.as_ref().map_or((None, None), choose);
    let mut tensors = match (int4, packed) {
        (Some(int4), _) => int4_tensors(spec, int4, blocks),
        (None, Some((panels, sums))) => int8_matrix(spec, &panels, &sums, blocks),
        (None, None) => vec![bytes(spec.name.clone(), spec.dims(), &rows.bytes)],
    };
    tensors.push(scales(scale_name(&spec.name), &rows.scale));
    QuantizedTensor { tensors, rows, times }
}

fn int8_matrix(spec: &ParamSpec, panels: &[i8], sums: &[i32], blocks: Option<PackedBlocks>) -> Vec<Tensor> {
    let name = &spec.name;
    let mut tensors = match blocks {
        None => vec![bytes(name.clone(), panels_shape(spec.rows, spec.cols).to_vec(), panels)],
        Some(PackedBlocks { blocks, words, starts }) => {
            let shape = vec![words.len(), BLOCK_SHAPE[0], BLOCK_SHAPE[1]];
            let [words, starts] = lists(name, words, &starts);
            vec![bytes(name.clone(), shape, &blocks), words, starts]
        }
    };
    tensors.push(integers(sums_name(name), sums));
    tensors
}

fn int4_tensors(spec: &ParamSpec, int4: Int4Rows, blocks: Option<PackedBlocks>) -> Vec<Tensor> {
    let ParamSpec { name, rows: n, cols: k, .. } = spec;
    let halves = |name: String, shape, bytes| Tensor { name, dtype: Dtype::U8, shape, bytes };
    let weights = blocks.is_some().then(|| int4.weights());
    let mut tensors = match weights {
        None => vec![halves(name.clone(), vec![*n, nibbles_of(*k)], int4.nibbles)],
        Some(weights) => {
            // A multiplier makes nothing zero: the blocks of int4 weights are those of int8.
            let (panels, _) = packed_i8_with_sums(&weights, *n, *k);
            let PackedBlocks { blocks, words, starts } = pack_blocks_i8(&panels, *n, *k);
            let packed = blocks.as_chunks().0.iter().flat_map(pack_block).collect();
            let nibbles = halves(name.clone(), vec![words.len(), BLOCK_NIBBLES], packed);
            let [words, starts] = lists(name, words, &starts);
            vec![nibbles, words, starts]
        }
    };
    tensors.push(halves(multipliers_name(name), vec![*n, groups_of(*k)], int4.multipliers));
    tensors
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
///
/// # Errors
/// [`Error::Tensor`] if a value is beyond the largest of 16 bits.
pub(super) fn floats(path: &Path, spec: &ParamSpec, form: Form, values: &[f32]) -> Result<Tensor> {
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
        Form::F32 => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Form::Int8 | Form::Int8Tensor | Form::Int4 => unreachable!("whole numbers, and no floats"),
    };
    Ok(Tensor { name: spec.name.clone(), dtype, shape: spec.dims(), bytes })
}
