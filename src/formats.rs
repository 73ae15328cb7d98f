//! Matrices and tables in few bits: what a number is rounded to, for files, sessions and training alike.
//!
//! int8 is symmetric: `q = round(w / scale)` with ties to even and `scale = max|w| / 127` over a row (an output's weights,
//! or one embedding), so that `|q| ≤ 127` and `|w − q·scale| ≤ scale / 2`.
//!
//! int4 has two levels, so that it becomes int8 without loss, and integer products need not know of it (QServe's
//! progressive groups, arXiv:2405.04532): `w ≈ q·multiplier·scale`, with `|q| ≤ 7`, a multiplier of 1 to 18 for each
//! [`INT4_GROUP`] of a row's weights, and a scale for the row. `|q·multiplier| ≤ 126` is the int8 weight. With its multipliers
//! a weight takes 4.25 bits.

#[cfg(feature = "train")]
mod exceptions;
#[cfg(feature = "train")]
mod rounding;

#[cfg(feature = "train")]
pub use exceptions::{Exceptions, matches};
#[cfg(feature = "train")]
pub use rounding::{Int4Rows, Int8Rows, RowRounding};

/// What a matrix of a linear layer, or an embedding table, becomes.
#[cfg(feature = "train")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// int8, with a scale for each output or row.
    #[serde(alias = "channel")]
    Int8,
    /// int8, with one scale for all of it.
    #[serde(rename = "tensor")]
    Int8Tensor,
    /// int4, with a multiplier for each 32 weights of an output or row.
    Int4,
    /// 16-bit floats of 11 digits, IEEE 754: beyond 65,504 there are none.
    F16,
    /// 16-bit floats of 8 digits, the upper halves of 32-bit ones.
    Bf16,
    /// It stays in 32-bit floats.
    F32,
}

#[cfg(feature = "train")]
impl Form {
    /// What recipes and files call it.
    pub fn name(self) -> &'static str {
        match self {
            Form::F32 => "f32",
            Form::F16 => "f16",
            Form::Bf16 => "bf16",
            Form::Int8 => "int8",
            Form::Int8Tensor => "tensor",
            Form::Int4 => "int4",
        }
    }

    /// A number rounded to 16 bits, and what it stands for; `None` of other forms.
    pub fn half(self) -> Option<fn(f32) -> f32> {
        match self {
            Form::F16 => Some(|value| half::f16::from_f32(value).to_f32()),
            Form::Bf16 => Some(|value| half::bf16::from_f32(value).to_f32()),
            Form::F32 | Form::Int8 | Form::Int8Tensor | Form::Int4 => None,
        }
    }

    /// Whether sessions multiply it as bytes.
    pub fn is_integer(self) -> bool {
        matches!(self, Form::Int8 | Form::Int8Tensor | Form::Int4)
    }
}

/// Weights that share a multiplier; the last ones of a row may be fewer.
pub const INT4_GROUP: usize = 32;

/// The largest int4 weight; −8 is not used.
pub const INT4_MAX: i8 = 7;

/// The largest multiplier: of [`INT4_MAX`], it is the largest int8 weight.
pub const INT4_MAX_MULTIPLIER: u8 = 18;

/// Bytes of the int4 weights of a row, two a byte.
pub fn nibbles_of(cols: usize) -> usize {
    cols.div_ceil(INT4_GROUP) * (INT4_GROUP / 2)
}

/// Multipliers of a row.
pub fn groups_of(cols: usize) -> usize {
    cols.div_ceil(INT4_GROUP)
}

/// The int8 weights of a row. `nibbles`: [`nibbles_of`] bytes; byte i of a group holds its weight i in the low half and
/// its weight i + 16 in the high half. `multipliers`: [`groups_of`]. `out`: `[cols]`.
///
/// Whatever the bytes are, this ends; those of a damaged file may wrap around.
pub fn unpack_row(nibbles: &[u8], multipliers: &[u8], out: &mut [i8]) {
    const HALF: usize = INT4_GROUP / 2;
    let groups = nibbles.chunks_exact(HALF).zip(multipliers);
    for (out, (nibbles, &multiplier)) in out.chunks_mut(INT4_GROUP).zip(groups) {
        let multiplier = multiplier.cast_signed();
        let mut group = [0; INT4_GROUP];
        let (low, high) = group.split_at_mut(HALF);
        for ((low, high), &byte) in low.iter_mut().zip(high).zip(nibbles) {
            let byte = byte.cast_signed();
            *low = ((byte << 4) >> 4).wrapping_mul(multiplier);
            *high = (byte >> 4).wrapping_mul(multiplier);
        }
        out.copy_from_slice(&group[..out.len()]);
    }
}

/// Bytes of the int4 weights of a block of 16 outputs by 4 inputs.
pub const BLOCK_NIBBLES: usize = 32;

/// The int8 weights of a block, as [`PackedBlocks`](limbeck_kernels::gemm::PackedBlocks) has them: byte i of `nibbles` holds weight i
/// in the low half and weight i + 32 in the high half. `multipliers`: of the group that each of the 16 outputs has there.
///
/// Whatever the bytes are, this ends; those of a damaged file may wrap around.
pub fn unpack_block(
    nibbles: &[u8; BLOCK_NIBBLES],
    multipliers: &[u8; 16],
    out: &mut [i8; 2 * BLOCK_NIBBLES],
) {
    let (low, high) = out.split_at_mut(BLOCK_NIBBLES);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(nibbles) {
        let byte = byte.cast_signed();
        (*low, *high) = ((byte << 4) >> 4, byte >> 4);
    }
    for (weights, &multiplier) in out.as_chunks_mut::<4>().0.iter_mut().zip(multipliers) {
        weights.iter_mut().for_each(|weight| *weight = weight.wrapping_mul(multiplier.cast_signed()));
    }
}

/// The inverse: a block's int4 weights, two a byte.
#[cfg(feature = "train")]
pub fn pack_block(weights: &[i8; 2 * BLOCK_NIBBLES]) -> [u8; BLOCK_NIBBLES] {
    let nibble = |place: usize| weights[place].cast_unsigned() & 15;
    std::array::from_fn(|place| nibble(place) | nibble(place + BLOCK_NIBBLES) << 4)
}
