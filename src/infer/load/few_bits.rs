//! Matrices and tables in fewer than 32 bits.

use super::File;
use crate::checkpoint::{Dtype, bf16_to_f32, f16_to_f32};
use crate::infer::bytes::{numbers, numbers_mut};
use crate::infer::format::{self, MAX_INPUTS};
use crate::infer::weights::{Blocks, Unpacked, Value};
use crate::nn::ParamSpec;
use crate::quantized::{groups_of, nibbles_of, unpack_row};
use crate::{Error, Result};
use limbeck_kernels::gemm::{BLOCK_SHAPE, BlocksI8, blocks_i8_parts, pack_i8, packed_i8_len, packed_i8_sums};
use memmap2::MmapMut;
use std::ops::Range;

impl File<'_> {
    /// The values of 16-bit floats, of which none may be NaN or infinite.
    pub(super) fn take_half(&mut self, spec: &ParamSpec, dtype: Dtype) -> Result<Vec<f32>> {
        let widen = if dtype == Dtype::F16 { f16_to_f32 } else { bf16_to_f32 };
        let range = self.take(&spec.name, dtype, &spec.dims())?;
        let values = self.bytes[range].as_chunks().0.iter().map(|&bytes| widen(u16::from_le_bytes(bytes)));
        let values: Vec<f32> = values.collect();
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(place) => Err(self.wrong(&spec.name, format!("element {place} is {}", values[place]))),
        }
    }

    /// Weights, multipliers and scales.
    pub(super) fn take_int4(&mut self, spec: &ParamSpec) -> Result<[Range<usize>; 3]> {
        let ParamSpec { name, rows, cols, .. } = spec;
        let nibbles = self.take(name, Dtype::U8, &[*rows, nibbles_of(*cols)])?;
        let multipliers =
            self.take(&format::multipliers_name(name), Dtype::U8, &[*rows, groups_of(*cols)])?;
        Ok([nibbles, multipliers, self.take_finite(&format::scale_name(name), &[*rows])?])
    }

    /// Unpacks a matrix into memory.
    pub(super) fn int4_matrix(&mut self, spec: &ParamSpec) -> Result<Value> {
        self.check_inputs(spec)?;
        let (rows, cols) = (spec.rows, spec.cols);
        let [nibbles, multipliers, scale] = self.take_int4(spec)?;
        let stored = nibbles.len() + multipliers.len();
        let (nibbles, multipliers) = (&self.bytes[nibbles], &self.bytes[multipliers]);
        let mut weights = vec![0; rows * cols];
        for (row, weights) in weights.chunks_mut(cols.max(1)).enumerate() {
            let nibbles = &nibbles[row * nibbles_of(cols)..];
            unpack_row(nibbles, &multipliers[row * groups_of(cols)..], weights);
        }
        // A map begins on a page, as products like it.
        let length = packed_i8_len(rows, cols);
        let no_memory = || Error::io("unpack", self.path);
        let mut panels = MmapMut::map_anon(length.max(1)).map_err(no_memory())?;
        pack_i8(&weights, rows, cols, numbers_mut(&mut panels[..length]));
        let panels = panels.make_read_only().map_err(no_memory())?;
        let mut sums = vec![0; rows.next_multiple_of(16)];
        packed_i8_sums(numbers(&panels[..length]), rows, cols, &mut sums);
        Ok(Value::MatrixI4 { unpacked: Unpacked { panels, sums, stored }, scale })
    }

    fn check_inputs(&self, spec: &ParamSpec) -> Result<()> {
        let cols = spec.cols;
        if cols > MAX_INPUTS {
            return Err(self.wrong(&spec.name, format!("{cols} inputs; int8 sums hold {MAX_INPUTS} at most")));
        }
        Ok(())
    }

    pub(super) fn int8_matrix(&mut self, spec: &ParamSpec) -> Result<Value> {
        let ParamSpec { name, rows, cols, .. } = spec;
        self.check_inputs(spec)?;
        let words = format::words_name(name);
        if self.header.tensors.contains_key(&words) {
            return self.blocks(spec, &words);
        }
        let panels = self.take(name, Dtype::I8, &format::panels_shape(*rows, *cols))?;
        let (scale, sums) = self.scale_and_sums(spec)?;
        Ok(Value::MatrixI8 { panels, scale, sums })
    }

    fn scale_and_sums(&mut self, spec: &ParamSpec) -> Result<(Range<usize>, Range<usize>)> {
        let ParamSpec { name, rows, cols, .. } = spec;
        let scale = self.take_finite(&format::scale_name(name), &[*rows])?;
        let sums_name = format::sums_name(name);
        let sums = self.take(&sums_name, Dtype::I32, &[rows.next_multiple_of(16)])?;
        // A sum beyond what its weights can make would overflow; comparing them would read the whole file.
        let limit = 127 * *cols as u32;
        if numbers::<i32>(&self.bytes[sums.clone()]).iter().any(|sum| sum.unsigned_abs() > limit) {
            return Err(self.wrong(&sums_name, format!("a sum is larger than that of {cols} weights can be")));
        }
        Ok((scale, sums))
    }

    /// A block-sparse matrix. Its lists are compared with its shape; they are a sixty-fourth of its bytes.
    fn blocks(&mut self, spec: &ParamSpec, words_name: &str) -> Result<Value> {
        let ParamSpec { name, rows, cols, .. } = spec;
        let count = self.header.tensors[words_name].bytes.len();
        let lists = rows.div_ceil(BLOCK_SHAPE[0]) * blocks_i8_parts(*cols);
        let blocks = Blocks {
            bytes: self.take(name, Dtype::I8, &[count, BLOCK_SHAPE[0], BLOCK_SHAPE[1]])?,
            words: self.take(words_name, Dtype::U8, &[count])?,
            starts: self.take(&format::starts_name(name), Dtype::I32, &[lists + 1])?,
        };
        let (scale, sums) = self.scale_and_sums(spec)?;
        let bytes = |range: &Range<usize>| &self.bytes[range.clone()];
        let (words, starts) = (bytes(&blocks.words), numbers(bytes(&blocks.starts)));
        let lists = BlocksI8::new(
            numbers(bytes(&blocks.bytes)),
            words,
            starts,
            numbers(bytes(&sums)),
            [*rows, *cols],
        );
        if let Some(problem) = lists.problem() {
            return Err(self.wrong(name, problem));
        }
        Ok(Value::BlocksI8 { blocks, scale, sums })
    }
}
