//! The portable row: tiles of four rows by one panel, in plain Rust.

use super::pack::{Packing, Transpose, Words, bf16_pair, pack_a, pack_b};
use super::{FloatKernels, GemmKernels, Int8Kernels, KC, Line, PANEL, Panels, Start, tiles};

pub(crate) const GEMM: GemmKernels = GemmKernels {
    f32: FloatKernels { pack_a: pack_a::<F32, Scalar>, pack_b: pack_b::<F32, Scalar>, strip: strip_f32 },
    #[cfg(feature = "train")]
    bf16: FloatKernels { pack_a: pack_a::<Bf16, Scalar>, pack_b: pack_b::<Bf16, Scalar>, strip: strip_bf16 },
    i8: Int8Kernels { offset: 128, widen: None, strip: strip_i8, blocks: strip_blocks },
};

/// Rows of a tile.
const ROWS: usize = 4;

/// A word is a float.
pub(super) struct F32;

impl Packing for F32 {
    const FLOATS: usize = 1;

    #[inline(always)]
    fn along(from: &[f32]) -> Words {
        std::array::from_fn(|i| from[i].to_bits())
    }

    #[inline(always)]
    fn across(low: &[f32; PANEL], _: &[f32; PANEL]) -> Words {
        low.map(f32::to_bits)
    }
}

/// A word is two floats, rounded to bf16, the first one low.
pub(super) struct Bf16;

impl Packing for Bf16 {
    const FLOATS: usize = 2;

    #[inline(always)]
    fn along(from: &[f32]) -> Words {
        std::array::from_fn(|i| bf16_pair(from[2 * i], from[2 * i + 1]))
    }

    #[inline(always)]
    fn across(low: &[f32; PANEL], high: &[f32; PANEL]) -> Words {
        std::array::from_fn(|i| bf16_pair(low[i], high[i]))
    }
}

struct Scalar;

impl Transpose for Scalar {
    #[inline(always)]
    fn transpose(block: &mut [Words; PANEL]) {
        let rows = *block;
        for (j, column) in block.iter_mut().enumerate() {
            *column = rows.map(|row| row[j]);
        }
    }
}

/// Both halves of a word as floats: exact, a bf16 is the upper half of an f32.
fn halves(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}

fn strip_f32(a: &[Line], b: Panels<'_, Words>, start: Start<'_, f32>, c: &mut [f32], c_stride: usize) {
    strip(a, b, start, c, c_stride, |sum, a, b, j| f32::from_bits(a).mul_add(f32::from_bits(b[j]), sum));
}

fn strip_bf16(a: &[Line], b: Panels<'_, Words>, start: Start<'_, f32>, c: &mut [f32], c_stride: usize) {
    strip(a, b, start, c, c_stride, |sum, a, b, j| {
        let ([a0, a1], [b0, b1]) = (halves(a), halves(b[j]));
        a1.mul_add(b1, a0.mul_add(b0, sum))
    });
}

fn strip_i8(
    a: &[Line],
    b: Panels<'_, [i8; 4 * PANEL]>,
    start: Start<'_, i32>,
    c: &mut [i32],
    c_stride: usize,
) {
    strip(a, b, start, c, c_stride, step_i8);
}

#[inline(always)]
fn step_i8(sum: i32, a: u32, b: &[i8; 4 * PANEL], j: usize) -> i32 {
    let products = a.to_le_bytes().into_iter().zip(&b[4 * j..]).map(|(a, &b)| i32::from(a) * i32::from(b));
    // Exact for weights and sums that belong together; damaged ones wrap, as the instructions do.
    products.fold(sum, i32::wrapping_add)
}

fn strip_blocks(
    a: &[Line],
    words: &[u8],
    b: &[[i8; 4 * PANEL]],
    start: Option<&[i32; PANEL]>,
    c: &mut [i32],
    c_stride: usize,
) {
    for (a, c) in a.iter().zip(c.chunks_mut(c_stride)) {
        let c: &mut [i32; PANEL] = c.first_chunk_mut().expect("a whole panel");
        let mut sums = *start.unwrap_or(c);
        for (&word, b) in words.iter().zip(b) {
            let a = a[usize::from(word).min(KC - 1)];
            sums.iter_mut().enumerate().for_each(|(j, sum)| *sum = step_i8(*sum, a, b, j));
        }
        *c = sums;
    }
}

/// Adds one block of products, word by word in the order of k: `step(sum, a, row of b, column)`.
#[inline(always)]
fn strip<B, C: Copy + Default>(
    a: &[Line],
    b: Panels<'_, B>,
    start: Start<'_, C>,
    c: &mut [C],
    c_stride: usize,
    step: impl Fn(C, u32, &B, usize) -> C,
) {
    for (panel, b) in b.each().enumerate() {
        tiles(a.len(), ROWS, |first, rows| {
            let mut sums = [[C::default(); PANEL]; ROWS];
            let at = |i: usize| (first + i) * c_stride + panel * PANEL;
            for (i, sums) in sums[..rows].iter_mut().enumerate() {
                let from = start.map_or(&c[at(i)..], |start| &start[panel * PANEL..]);
                sums.copy_from_slice(&from[..PANEL]);
            }
            for (p, b) in b.iter().enumerate() {
                for (a, sums) in a[first..first + rows].iter().zip(&mut sums) {
                    sums.iter_mut().enumerate().for_each(|(j, sum)| *sum = step(*sum, a[p], b, j));
                }
            }
            for (i, sums) in sums[..rows].iter().enumerate() {
                c[at(i)..][..PANEL].copy_from_slice(sums);
            }
        });
    }
}
