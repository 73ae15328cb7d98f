//! What a model holds, parameter by parameter.

use super::Model;
use crate::infer::weights::{Blocks, Floats, Table, Value};
use crate::models::parts::Kind;
use crate::nn::{Linear, ParamId, ParamSpec};
use limbeck_kernels::gemm::packed_i8_len;

/// In what form a parameter is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAs {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, of either kind.
    Half,
    /// Bytes with scales.
    Int8,
    /// Bytes with scales, without the blocks that are zero.
    Int8Blocks,
    /// Halves of bytes, in groups with a multiplier each.
    Int4,
    /// Halves of bytes, without the blocks that are zero.
    Int4Blocks,
}

/// One parameter as it is held.
#[derive(Clone, Debug)]
pub struct Stored<'a> {
    /// Name, purpose and size.
    pub spec: &'a ParamSpec,
    /// Its form.
    pub form: StoredAs,
    /// Its bytes, with padding, scales and sums.
    pub bytes: usize,
}

impl Model {
    /// Every parameter, in order, as it is held.
    pub fn parameters(&self) -> impl Iterator<Item = Stored<'_>> {
        let weights = &self.weights;
        weights.specs.iter().zip(&weights.values).map(|(spec, value)| {
            let (form, bytes) = match value {
                Value::TableI8 { rows, scale } => (StoredAs::Int8, rows.len() + scale.len()),
                Value::MatrixI8 { panels, scale, sums } => {
                    (StoredAs::Int8, panels.len() + scale.len() + sums.len())
                }
                Value::TableI4 { nibbles, multipliers, scale } => {
                    (StoredAs::Int4, nibbles.len() + multipliers.len() + scale.len())
                }
                Value::MatrixI4 { unpacked, scale } => (StoredAs::Int4, unpacked.stored + scale.len()),
                Value::BlocksI8 { blocks, scale, sums } => {
                    let parts = [&blocks.bytes, &blocks.lists.words, &blocks.lists.starts, scale, sums];
                    (StoredAs::Int8Blocks, parts.iter().map(|part| part.len()).sum())
                }
                Value::BlocksI4 { unpacked, scale, .. } => {
                    (StoredAs::Int4Blocks, unpacked.stored + scale.len())
                }
                Value::Table(Floats::Widened(_)) | Value::Matrix { width: 2, .. } => {
                    (StoredAs::Half, 2 * spec.len())
                }
                Value::Vector(_) | Value::Table(_) | Value::Matrix { .. } => (StoredAs::F32, 4 * spec.len()),
            };
            Stored { spec, form, bytes }
        })
    }

    /// How many elements of all parameters are zero.
    pub fn zeros(&self) -> usize {
        (0..self.weights.specs.len() as u32).map(|i| self.zeros_of(ParamId(i))).sum()
    }

    /// How many elements of a parameter are zero.
    pub fn zeros_of(&self, id: ParamId) -> usize {
        let weights = &self.weights;
        // A damaged file may hold more than there can be.
        let rest = |nonzero: usize| weights.specs[id.index()].len().saturating_sub(nonzero);
        let nonzero = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != 0).count();
        let in_floats = |values: &[f32]| values.iter().filter(|value| **value == 0.0).count();
        match &weights.values[id.index()] {
            // What pads is zero and no parameter: those that are not zero are counted.
            Value::TableI8 { rows: range, .. } | Value::MatrixI8 { panels: range, .. } => {
                rest(nonzero(&weights.bytes[range.clone()]))
            }
            Value::BlocksI8 { blocks, .. } => rest(nonzero(&weights.bytes[blocks.bytes.clone()])),
            Value::MatrixI4 { unpacked, .. } | Value::BlocksI4 { unpacked, .. } => {
                rest(nonzero(&unpacked.panels))
            }
            Value::TableI4 { nibbles, .. } => {
                let nibbles = weights.bytes[nibbles.clone()].iter();
                rest(nibbles.map(|byte| usize::from(byte & 15 != 0) + usize::from(byte & 240 != 0)).sum())
            }
            Value::Vector(_) => in_floats(weights.vector(id)),
            Value::Table(_) => match weights.table(id) {
                Table::F32(values) => in_floats(values),
                Table::I8 { .. } | Table::I4 { .. } => unreachable!("a table of floats"),
            },
            Value::Matrix { zeros, .. } => *zeros,
        }
    }

    /// How many blocks of 16 outputs by 4 inputs of a matrix are zero, and how many there are, smaller ones at the
    /// edges counted; `None` if the parameter is no matrix.
    pub fn zero_blocks_of(&self, id: ParamId) -> Option<[usize; 2]> {
        let spec = &self.weights.specs[id.index()];
        let zero = match &self.weights.values[id.index()] {
            Value::MatrixI8 { panels, .. } => zero_blocks(&self.weights.bytes[panels.clone()]),
            Value::MatrixI4 { unpacked, .. } => {
                zero_blocks(&unpacked.panels[..packed_i8_len(spec.rows, spec.cols)])
            }
            Value::BlocksI8 { blocks: Blocks { lists, .. }, .. } | Value::BlocksI4 { lists, .. } => {
                (spec.rows.div_ceil(16) * spec.cols.div_ceil(4)).saturating_sub(lists.words.len())
            }
            Value::Matrix { packed, .. } => packed.zero_blocks(),
            Value::Vector(_) | Value::Table(_) | Value::TableI8 { .. } | Value::TableI4 { .. } => {
                return None;
            }
        };
        Some([zero, spec.rows.div_ceil(16) * spec.cols.div_ceil(4)])
    }
}

impl Model {
    /// Multiply-adds of a part for one text of `tokens` tokens ([`Kind::multiply_adds`]) without those of zero 16×4 blocks in
    /// the layers' matrices. A session that has a matrix as blocks needs no more than these for it.
    pub fn multiply_adds(&self, part: Kind, tokens: usize) -> u64 {
        let left = match part {
            Kind::Attention(layer) | Kind::FeedForward(layer) => {
                self.classifier().layers[layer].linears().map(|linear| self.share_of_blocks(linear))
            }
            Kind::Embeddings | Kind::Head => [1.0; 6],
        };
        part.multiply_adds_left(self.config(), tokens, left)
    }

    /// Of the blocks of a layer's matrices, the share that is not zero.
    fn share_of_blocks(&self, linear: &Linear) -> f64 {
        let counts = linear.matrices().filter_map(|id| self.zero_blocks_of(id));
        let [zero, all] = counts.fold([0, 0], |[zero, all], [z, a]| [zero + z, all + a]);
        if all == 0 { 1.0 } else { (all - zero.min(all)) as f64 / all as f64 }
    }
}

/// Blocks of packed weights that are zero.
fn zero_blocks(panels: &[u8]) -> usize {
    panels.chunks(64).filter(|block| block.iter().all(|byte| *byte == 0)).count()
}
