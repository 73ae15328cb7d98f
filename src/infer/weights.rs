//! The values of a model's parameters, for reading: in the file, or packed at load.

use super::bytes::{Bytes, Number, numbers};
use crate::formats::{INT4_GROUP, groups_of, nibbles_of, unpack_row};
use crate::nn::{ParamId, ParamSpec};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{BlocksI8, PackedI8, PackedMatrix, WeightsI8, packed_i8_len};
use memmap2::Mmap;
use std::ops::Range;

/// Floats in the file or in memory.
pub(super) enum Floats {
    /// Bytes of the file.
    Mapped(Range<usize>),
    /// In memory.
    Owned(Vec<f32>),
    /// In memory, from 16-bit floats in the file.
    Widened(Vec<f32>),
}

/// The blocks of a matrix, and where they belong.
pub(super) struct Blocks {
    pub bytes: Range<usize>,
    pub lists: Lists,
}

/// Which blocks of a matrix there are.
pub(super) struct Lists {
    pub words: Range<usize>,
    pub starts: Range<usize>,
}

/// A matrix in int8, packed, in memory.
pub(super) struct Unpacked {
    /// All panels, or the blocks that the file has; bytes of padding may follow.
    pub panels: Mmap,
    pub sums: Vec<i32>,
    /// Bytes that it takes in the file, its scales left out.
    pub stored: usize,
}

/// One parameter. Ranges are bytes of the file, which the loader has checked.
pub(super) enum Value {
    /// Bias, gamma or beta.
    Vector(Floats),
    /// An embedding table in f32.
    Table(Floats),
    /// An embedding table in int8, with a scale for each row.
    TableI8 { rows: Range<usize>, scale: Range<usize> },
    /// An embedding table in int4, unpacked when it is read.
    TableI4 { nibbles: Range<usize>, multipliers: Range<usize>, scale: Range<usize> },
    /// A matrix in f32, packed at load, how many of its elements are zero, and the bytes that each takes in the file.
    Matrix { packed: PackedMatrix, zeros: usize, width: usize },
    /// A matrix in int8, packed in the file, with a scale for each output.
    MatrixI8 { panels: Range<usize>, scale: Range<usize>, sums: Range<usize> },
    /// A matrix in int4, unpacked at load into what a product of int8 reads.
    MatrixI4 { unpacked: Unpacked, scale: Range<usize> },
    /// A matrix in int8 of which only some blocks are in the file.
    BlocksI8 { blocks: Blocks, scale: Range<usize>, sums: Range<usize> },
    /// A matrix in int4 of which only some blocks are in the file, unpacked at load.
    BlocksI4 { unpacked: Unpacked, lists: Lists, scale: Range<usize> },
}

/// A matrix, as a product takes it.
pub(super) enum Matrix<'a> {
    F32(&'a PackedMatrix),
    I8 { weights: WeightsI8<'a>, scale: &'a [f32] },
}

/// An embedding table.
#[derive(Clone, Copy)]
pub(super) enum Table<'a> {
    F32(&'a [f32]),
    I8 { rows: &'a [i8], scale: &'a [f32] },
    I4 { nibbles: &'a [u8], multipliers: &'a [u8], scale: &'a [f32] },
}

/// Groups of an int4 row that are unpacked together.
const PART: usize = 16;

impl Table<'_> {
    /// Row `index` into `out`, or added to it.
    pub fn read(self, kernels: Kernels, index: usize, out: &mut [f32], accumulate: bool) {
        let row = index * out.len()..(index + 1) * out.len();
        match self {
            Table::I8 { rows, scale } => kernels.dequantize_row(&rows[row], scale[index], out, accumulate),
            Table::I4 { nibbles, multipliers, scale } => {
                let groups = index * groups_of(out.len());
                // A part of the row at a time, by way of the stack.
                for (part, out) in out.chunks_mut(INT4_GROUP * PART).enumerate() {
                    let mut bytes = [0; INT4_GROUP * PART];
                    let (first, bytes) = (groups + part * PART, &mut bytes[..out.len()]);
                    unpack_row(&nibbles[nibbles_of(INT4_GROUP * first)..], &multipliers[first..], bytes);
                    kernels.dequantize_row(bytes, scale[index], out, accumulate);
                }
            }
            Table::F32(rows) if accumulate => kernels.add(&rows[row], out),
            Table::F32(rows) => out.copy_from_slice(&rows[row]),
        }
    }
}

/// All parameters, in the order of declaration.
pub(super) struct Weights {
    pub bytes: Bytes,
    pub specs: Vec<ParamSpec>,
    pub values: Vec<Value>,
    /// The bias of layers that have none: those to a factored matrix's rank, which is no more than the network's width.
    pub zeros: Vec<f32>,
}

impl Weights {
    /// A bias, gamma or beta.
    pub fn vector(&self, id: ParamId) -> &[f32] {
        match &self.values[id.index()] {
            Value::Vector(floats) => self.floats(floats),
            _ => unreachable!("{} is no vector", self.specs[id.index()].name),
        }
    }

    /// An embedding table.
    pub fn table(&self, id: ParamId) -> Table<'_> {
        match &self.values[id.index()] {
            Value::Table(floats) => Table::F32(self.floats(floats)),
            Value::TableI8 { rows, scale } => {
                Table::I8 { rows: self.numbers(rows), scale: self.numbers(scale) }
            }
            Value::TableI4 { nibbles, multipliers, scale } => Table::I4 {
                nibbles: &self.bytes[nibbles.clone()],
                multipliers: &self.bytes[multipliers.clone()],
                scale: self.numbers(scale),
            },
            _ => unreachable!("{} is no table", self.specs[id.index()].name),
        }
    }

    /// The matrix of a linear layer.
    pub fn matrix(&self, id: ParamId) -> Matrix<'_> {
        let spec = &self.specs[id.index()];
        match &self.values[id.index()] {
            Value::Matrix { packed, .. } => Matrix::F32(packed),
            Value::MatrixI8 { panels, scale, sums } => {
                let panels = self.numbers(panels);
                let weights = PackedI8::new(panels, spec.rows, spec.cols, self.numbers(sums)).into();
                Matrix::I8 { weights, scale: self.numbers(scale) }
            }
            Value::MatrixI4 { unpacked, scale } => {
                let panels = numbers(&unpacked.panels[..packed_i8_len(spec.rows, spec.cols)]);
                let weights = PackedI8::new(panels, spec.rows, spec.cols, &unpacked.sums).into();
                Matrix::I8 { weights, scale: self.numbers(scale) }
            }
            Value::BlocksI8 { blocks, scale, sums } => {
                let (bytes, sums) = (self.numbers(&blocks.bytes), self.numbers(sums));
                let weights = self.blocks(spec, bytes, &blocks.lists, sums).into();
                Matrix::I8 { weights, scale: self.numbers(scale) }
            }
            Value::BlocksI4 { unpacked, lists, scale } => {
                let bytes = numbers(&unpacked.panels[..64 * lists.words.len()]);
                let weights = self.blocks(spec, bytes, lists, &unpacked.sums).into();
                Matrix::I8 { weights, scale: self.numbers(scale) }
            }
            _ => unreachable!("{} is no matrix", spec.name),
        }
    }

    fn blocks<'a>(
        &'a self,
        spec: &ParamSpec,
        blocks: &'a [i8],
        lists: &Lists,
        sums: &'a [i32],
    ) -> BlocksI8<'a> {
        let (words, starts) = (&self.bytes[lists.words.clone()], self.numbers(&lists.starts));
        BlocksI8::new(blocks, words, starts, sums, [spec.rows, spec.cols])
    }

    fn numbers<T: Number>(&self, range: &Range<usize>) -> &[T] {
        numbers(&self.bytes[range.clone()])
    }

    /// Whether products read bytes, so that whoever makes their input should quantize it.
    pub fn any_int8(&self) -> bool {
        let int8 = |value: &Value| match value {
            Value::MatrixI8 { .. } | Value::MatrixI4 { .. } => true,
            Value::BlocksI8 { .. } | Value::BlocksI4 { .. } => true,
            Value::Vector(_) | Value::Matrix { .. } => false,
            Value::Table(_) | Value::TableI8 { .. } | Value::TableI4 { .. } => false,
        };
        self.values.iter().any(int8)
    }

    fn floats<'a>(&'a self, floats: &'a Floats) -> &'a [f32] {
        match floats {
            Floats::Mapped(range) => numbers(&self.bytes[range.clone()]),
            Floats::Owned(values) | Floats::Widened(values) => values,
        }
    }
}
