//! Matrices and tables in fewer than 32 bits.

use super::File;
use crate::checkpoint::{Dtype, bf16_to_f32, f16_to_f32};
use crate::error::not_finite;
use crate::formats::{BLOCK_NIBBLES, INT4_GROUP, groups_of, nibbles_of, unpack_block, unpack_row};
use crate::infer::bytes::{numbers, numbers_mut};
use crate::infer::format::{self, MAX_INPUTS};
use crate::infer::weights::{Blocks, Lists, Unpacked, Value};
use crate::nn::ParamSpec;
use crate::{Error, Result};
use limbeck_kernels::gemm::{BLOCK_SHAPE, blocks_i8_part, blocks_i8_parts, blocks_problem};
use limbeck_kernels::gemm::{pack_i8, packed_i8_len, packed_i8_sums};
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
            Some(place) => {
                Err(self.wrong(&spec.name, format!("element {place} is {}", not_finite(values[place]))))
            }
        }
    }

    /// Weights, multipliers and scales.
    pub(super) fn take_int4(&mut self, spec: &ParamSpec) -> Result<[Range<usize>; 3]> {
        let nibbles = self.take(&spec.name, Dtype::U8, &[spec.rows, nibbles_of(spec.cols)])?;
        let [multipliers, scale] = self.take_steps(spec)?;
        Ok([nibbles, multipliers, scale])
    }

    /// Multipliers and scales of a matrix or table in int4.
    fn take_steps(&mut self, spec: &ParamSpec) -> Result<[Range<usize>; 2]> {
        let ParamSpec { name, rows, cols, .. } = spec;
        let shape = [*rows, groups_of(*cols)];
        let multipliers = self.take(&format::multipliers_name(name), Dtype::U8, &shape)?;
        Ok([multipliers, self.take_finite(&format::scale_name(name), &[*rows])?])
    }

    /// Unpacks a matrix into memory.
    pub(super) fn int4_matrix(&mut self, spec: &ParamSpec) -> Result<Value> {
        self.check_inputs(spec)?;
        if self.header.tensors.contains_key(&format::words_name(&spec.name)) {
            return self.int4_blocks(spec);
        }
        let (rows, cols) = (spec.rows, spec.cols);
        let [nibbles, multipliers, scale] = self.take_int4(spec)?;
        let stored = nibbles.len() + multipliers.len();
        let (nibbles, multipliers) = (&self.bytes[nibbles], &self.bytes[multipliers]);
        let mut weights = vec![0; rows * cols];
        for (row, weights) in weights.chunks_mut(cols.max(1)).enumerate() {
            let nibbles = &nibbles[row * nibbles_of(cols)..];
            unpack_row(nibbles, &multipliers[row * groups_of(cols)..], weights);
        }
        let length = packed_i8_len(rows, cols);
        let (mut panels, mut sums) = self.memory(length, rows)?;
        let packed = numbers_mut(&mut panels[..length]);
        pack_i8(&weights, rows, cols, packed);
        packed_i8_sums(packed, rows, cols, &mut sums);
        Ok(Value::MatrixI4 { unpacked: self.unpacked(panels, sums, stored)?, scale })
    }

    /// Unpacks a block-sparse matrix into memory.
    fn int4_blocks(&mut self, spec: &ParamSpec) -> Result<Value> {
        let lists = self.take_lists(spec)?;
        let count = lists.words.len();
        let nibbles = self.take(&spec.name, Dtype::U8, &[count, BLOCK_NIBBLES])?;
        let [multipliers, scale] = self.take_steps(spec)?;
        let stored = nibbles.len() + multipliers.len() + count + lists.starts.len();
        let (nibbles, multipliers) = (self.bytes[nibbles].as_chunks().0, &self.bytes[multipliers]);
        let (words, starts) =
            (&self.bytes[lists.words.clone()], numbers::<i32>(&self.bytes[lists.starts.clone()]));
        let (mut memory, mut sums) = self.memory(64 * count, spec.rows)?;
        let (blocks, _) = numbers_mut(&mut memory).as_chunks_mut::<64>();
        let (groups, parts) = (groups_of(spec.cols), blocks_i8_parts(spec.cols));
        for (list, ends) in starts.windows(2).enumerate() {
            let (panel, first) = (list / parts, blocks_i8_part(spec.cols, list % parts));
            for i in ends[0] as usize..ends[1] as usize {
                let group = 4 * (first + usize::from(words[i])) / INT4_GROUP;
                // Outputs that only fill a panel have no multipliers; their weights are zero.
                let mut own = [0; 16];
                for (output, own) in own.iter_mut().enumerate() {
                    *own = *multipliers.get((16 * panel + output) * groups + group).unwrap_or(&0);
                }
                unpack_block(&nibbles[i], &own, &mut blocks[i]);
                for (sum, weights) in sums[16 * panel..].iter_mut().zip(blocks[i].chunks_exact(4)) {
                    *sum += weights.iter().map(|&weight| i32::from(weight)).sum::<i32>();
                }
            }
        }
        Ok(Value::BlocksI4 { unpacked: self.unpacked(memory, sums, stored)?, lists, scale })
    }

    /// Memory for so many weights, which begins on a page, as products like it, and for the sums of `rows` outputs.
    fn memory(&self, length: usize, rows: usize) -> Result<(MmapMut, Vec<i32>)> {
        let map = MmapMut::map_anon(length.max(1)).map_err(Error::io("unpack", self.path))?;
        Ok((map, vec![0; rows.next_multiple_of(16)]))
    }

    fn unpacked(&self, panels: MmapMut, sums: Vec<i32>, stored: usize) -> Result<Unpacked> {
        let panels = panels.make_read_only().map_err(Error::io("unpack", self.path))?;
        Ok(Unpacked { panels, sums, stored })
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
        if self.header.tensors.contains_key(&format::words_name(name)) {
            return self.int8_blocks(spec);
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

    fn int8_blocks(&mut self, spec: &ParamSpec) -> Result<Value> {
        let lists = self.take_lists(spec)?;
        let shape = [lists.words.len(), BLOCK_SHAPE[0], BLOCK_SHAPE[1]];
        let blocks = Blocks { bytes: self.take(&spec.name, Dtype::I8, &shape)?, lists };
        let (scale, sums) = self.scale_and_sums(spec)?;
        Ok(Value::BlocksI8 { blocks, scale, sums })
    }

    /// The lists of a block-sparse matrix, compared with its shape; they are small beside its blocks.
    fn take_lists(&mut self, spec: &ParamSpec) -> Result<Lists> {
        let ParamSpec { name, rows, cols, .. } = spec;
        let words_name = format::words_name(name);
        let count = self.header.tensors[&words_name].bytes.len();
        let panels = rows.div_ceil(BLOCK_SHAPE[0]);
        let lists = Lists {
            words: self.take(&words_name, Dtype::U8, &[count])?,
            starts: self.take(
                &format::starts_name(name),
                Dtype::I32,
                &[panels * blocks_i8_parts(*cols) + 1],
            )?,
        };
        let (words, starts) = (&self.bytes[lists.words.clone()], numbers(&self.bytes[lists.starts.clone()]));
        match blocks_problem(words, starts, *cols) {
            None => Ok(lists),
            Some(problem) => Err(self.wrong(name, problem)),
        }
    }
}
