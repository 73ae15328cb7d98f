//! NEON with its dot product: the int8 tile is that of f32, of five rows and with `sdot` in place of the multiply-add.
//! All else is [`neon`](super::neon)'s.
//!
//! `sdot` is written in assembly because Rust 1.95 has not stabilized its intrinsic.

use super::neon::{WORDS, load_i8, load_i32, store_i32, strip, tile};
use super::{GemmKernels, Int8Kernels, KC, Line, PANEL, Panels, Start, neon, tiles};
use crate::isa::neon_dotprod;
use std::arch::aarch64::*;
use std::arch::asm;

pub(crate) const GEMM: GemmKernels =
    GemmKernels { i8: Int8Kernels { strip: strip_i8, blocks: strip_blocks, ..neon::GEMM.i8 }, ..neon::GEMM };

/// Rows of a tile: 20 registers of sums, 5 of a, 4 of b, 1 for the bias of a. A sixth row would leave b two, which the
/// compiler pays for with 38 moves to 96 products.
const ROWS: usize = 5;

strip!(neon_dotprod, strip_i8, tile_i8, [i8; 4 * PANEL], i32, ROWS, [1 2 3 4 5]);
tile!(neon_dotprod, tile_i8, step_i8, load_a_i8, [i8; 4 * PANEL], i32, load_i32, store_i32);

neon_dotprod! {
    fn strip_blocks(
        a: &[Line],
        words: &[u8],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32; PANEL]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        tiles(a.len(), ROWS, |first, rows| {
            let (a, c) = (&a[first..first + rows], &mut c[first * c_stride..]);
            match rows {
                1 => tile_blocks::<1>(a, words, b, start, c, c_stride),
                2 => tile_blocks::<2>(a, words, b, start, c, c_stride),
                3 => tile_blocks::<3>(a, words, b, start, c, c_stride),
                4 => tile_blocks::<4>(a, words, b, start, c, c_stride),
                _ => tile_blocks::<5>(a, words, b, start, c, c_stride),
            }
        });
    }

    /// As a dense tile, but for the place of each word of `a`: it is read, not counted, and fills a register.
    fn tile_blocks<const M: usize>(
        a: &[Line],
        words: &[u8],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32; PANEL]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        let mut sums = [[vdupq_n_s32(0); 4]; M];
        for (i, sums) in sums.iter_mut().enumerate() {
            *sums = load_i32(start.unwrap_or_else(|| c[i * c_stride..].first_chunk().expect("a whole panel")));
        }
        for (&word, b) in words.iter().zip(b) {
            // No word is beyond a line; saying so here spares a check in each row.
            let (word, b) = (usize::from(word).min(KC - 1), load_i8(b));
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = vdupq_n_u32(a[word] ^ 0x8080_8080);
                for (sum, b) in sums.iter_mut().zip(b) {
                    // SAFETY: as in `step_i8`.
                    unsafe {
                        asm!(
                            "sdot {sum:v}.4s, {b:v}.16b, {a:v}.16b",
                            sum = inout(vreg) *sum,
                            b = in(vreg) b,
                            a = in(vreg) a,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
        }
        for (i, &sums) in sums.iter().enumerate() {
            store_i32(c[i * c_stride..].first_chunk_mut().expect("a whole panel"), sums);
        }
    }

    /// Activations without their bias.
    #[inline]
    fn load_a_i8(words: &[u32; WORDS]) -> uint32x4_t {
        // SAFETY: 16 bytes are borrowed.
        veorq_u32(unsafe { vld1q_u32(words.as_ptr()) }, vdupq_n_u32(0x8080_8080))
    }

    #[inline]
    fn step_i8<const LANE: i32, const M: usize>(
        sums: &mut [[int32x4_t; 4]; M],
        a: &[uint32x4_t; M],
        b: &[i8; 4 * PANEL],
    ) {
        for (j, b) in load_i8(b).into_iter().enumerate() {
            for (sums, &a) in sums.iter_mut().zip(a) {
                // SAFETY: the instruction is one of this function's; it reads and writes these registers alone.
                unsafe {
                    asm!(
                        "sdot {sum:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]",
                        sum = inout(vreg) sums[j],
                        b = in(vreg) b,
                        a = in(vreg) a,
                        lane = const LANE,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
        }
    }
}
