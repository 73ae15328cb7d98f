//! NEON without its later additions: tiles of six rows by one panel; of four rows in bf16, and of two in int8.
//!
//! ```text
//!                  b: 4 loads a word
//!                 q     q     q     q
//!  a: 6 loads    ┌─────┬─────┬─────┬─────┐
//!  for 4 words,  │ 0,0 │ 0,1 │ 0,2 │ 0,3 │   24 registers of sums, 6 of a, 2 of b: 32 of 32;
//!  multiplied    │  ⋮  │     │     │     │   24 steps of latency 4 keep two units busy,
//!  lane by lane  │ 5,0 │ 5,1 │ 5,2 │ 5,3 │   and 22 loads feed 96 multiply-adds
//!                └─────┴─────┴─────┴─────┘
//! ```
//!
//! It has run under emulation only, which shows that it is right, and nothing of its speed.

use super::pack::{Transpose, Words, pack_a, pack_b};
use super::{
    FloatKernels, GemmKernels, Int8Kernels, KC, Line, Matrix, PANEL, Panels, PanelsMut, Start, scalar, tiles,
};
use crate::isa::neon;
use std::arch::aarch64::*;
use std::ops::Range;

pub(crate) const GEMM: GemmKernels = GemmKernels {
    f32: FloatKernels { pack_a: pack_a_f32, pack_b: pack_b_f32, strip: strip_f32 },
    #[cfg(feature = "train")]
    bf16: FloatKernels { pack_a: pack_a_bf16, pack_b: pack_b_bf16, strip: strip_bf16 },
    i8: Int8Kernels { offset: 0, widen: None, strip: strip_i8, blocks: strip_blocks },
};

/// Rows of an f32 tile.
const ROWS: usize = 6;

/// Rows of a bf16 tile: 16 registers of sums, 8 of a in two halves, and 8 for b.
const ROWS_BF16: usize = 4;

/// Rows of an int8 tile: 16 registers of sums, 4 of a, and the others for b and products.
const ROWS_I8: usize = 2;

/// Words of `a` that one load takes. A [`Line`] is a whole number of them.
pub(super) const WORDS: usize = 4;

/// Calls a tile on each panel and each group of rows.
macro_rules! strip {
    ($isa:ident, $strip:ident, $tile:ident, $b:ty, $c:ty, $most:expr, [$($rows:literal)+]) => {
        $isa! {
            fn $strip(a: &[Line], b: Panels<'_, $b>, start: Start<'_, $c>, c: &mut [$c], c_stride: usize) {
                for (panel, b) in b.each().enumerate() {
                    let start = start.map(|start| &start[panel * PANEL..]);
                    tiles(a.len(), $most, |first, rows| {
                        let (a, c) = (&a[first..first + rows], &mut c[first * c_stride + panel * PANEL..]);
                        match rows {
                            $($rows => $tile::<$rows>(a, b, start, c, c_stride),)+
                            _ => unreachable!("a tile has no more rows than {}", $most),
                        }
                    });
                }
            }
        }
    };
}

/// A tile that loads four words of each row of `a` at once, and multiplies by one lane of them after the other:
/// `$step::<lane, rows>(sums, words of a, row of b)`.
macro_rules! tile {
    ($isa:ident, $tile:ident, $step:ident, $load_a:ident, $b:ty, $c:ty, $load:ident, $store:ident) => {
        $isa! {
            fn $tile<const M: usize>(a: &[Line], b: &[$b], start: Option<&[$c]>, c: &mut [$c], c_stride: usize) {
                let a: &[Line; M] = a.try_into().expect("a tile of M rows");
                assert!(b.len() <= KC);
                let mut sums = [$load(&[<$c>::default(); PANEL]); M];
                for (i, sums) in sums.iter_mut().enumerate() {
                    *sums = $load(start.unwrap_or(&c[i * c_stride..]).first_chunk().expect("a whole panel"));
                }
                let (whole, rest) = b.as_chunks::<WORDS>();
                for (p, b) in (0..).step_by(WORDS).zip(whole) {
                    let mut words = [$load_a(&[0; WORDS]); M];
                    for (words, a) in words.iter_mut().zip(a) {
                        *words = $load_a(a[p..p + WORDS].as_array().expect("four words"));
                    }
                    $step::<0, M>(&mut sums, &words, &b[0]);
                    $step::<1, M>(&mut sums, &words, &b[1]);
                    $step::<2, M>(&mut sums, &words, &b[2]);
                    $step::<3, M>(&mut sums, &words, &b[3]);
                }
                for (p, b) in (WORDS * whole.len()..).zip(rest) {
                    let mut words = [$load_a(&[0; WORDS]); M];
                    for (words, a) in words.iter_mut().zip(a) {
                        *words = $load_a(&[a[p]; WORDS]);
                    }
                    $step::<0, M>(&mut sums, &words, b);
                }
                for (i, &sums) in sums.iter().enumerate() {
                    $store(c[i * c_stride..].first_chunk_mut().expect("a whole panel"), sums);
                }
            }
        }
    };
}

pub(super) use {strip, tile};

strip!(neon, strip_f32, tile_f32, Words, f32, ROWS, [1 2 3 4 5 6]);
strip!(neon, strip_bf16, tile_bf16, Words, f32, ROWS_BF16, [1 2 3 4]);
strip!(neon, strip_i8, tile_i8, [i8; 4 * PANEL], i32, ROWS_I8, [1 2]);
tile!(neon, tile_f32, step_f32, load_a_f32, Words, f32, load_f32, store_f32);
tile!(neon, tile_bf16, step_bf16, load_a_bf16, Words, f32, load_f32, store_f32);

neon! {
    #[inline]
    fn load_a_f32(words: &[u32; WORDS]) -> float32x4_t {
        // SAFETY: 16 bytes are borrowed.
        unsafe { vreinterpretq_f32_u32(vld1q_u32(words.as_ptr())) }
    }

    #[inline]
    fn step_f32<const LANE: i32, const M: usize>(
        sums: &mut [[float32x4_t; 4]; M],
        a: &[float32x4_t; M],
        b: &Words,
    ) {
        for (j, b) in load_words(b).into_iter().enumerate() {
            for (sums, &a) in sums.iter_mut().zip(a) {
                sums[j] = vfmaq_laneq_f32::<LANE>(sums[j], vreinterpretq_f32_u32(b), a);
            }
        }
    }

    /// A bf16 is the upper half of an f32: both operands are widened, and the sums go on in f32. The lower halves of
    /// the words come first.
    #[inline]
    fn load_a_bf16(words: &[u32; WORDS]) -> [float32x4_t; 2] {
        // SAFETY: 16 bytes are borrowed.
        let words = unsafe { vld1q_u32(words.as_ptr()) };
        [low(words), high(words)]
    }

    #[inline]
    fn step_bf16<const LANE: i32, const M: usize>(
        sums: &mut [[float32x4_t; 4]; M],
        a: &[[float32x4_t; 2]; M],
        b: &Words,
    ) {
        for (j, b) in load_words(b).into_iter().enumerate() {
            let b = [low(b), high(b)];
            for (sums, a) in sums.iter_mut().zip(a) {
                sums[j] = vfmaq_laneq_f32::<LANE>(sums[j], b[0], a[0]);
                sums[j] = vfmaq_laneq_f32::<LANE>(sums[j], b[1], a[1]);
            }
        }
    }

    /// The lower of the two bf16 in each word.
    #[inline]
    fn low(words: uint32x4_t) -> float32x4_t {
        vreinterpretq_f32_u32(vshlq_n_u32::<16>(words))
    }

    /// The upper of the two bf16 in each word.
    #[inline]
    fn high(words: uint32x4_t) -> float32x4_t {
        vreinterpretq_f32_u32(vandq_u32(words, vdupq_n_u32(0xffff_0000)))
    }

    /// `smull` and `smlal` multiply eight bytes to 16 bits, where two products fit: `|s| ≤ 128` and `|w| ≤ 127` make
    /// 2·128·127 = 32,512 at most. So two words of k are multiplied before `sadalp` adds neighbours to sums of 32 bits,
    /// of which an output has two: for inputs 0 and 1 of its words, and for inputs 2 and 3.
    fn tile_i8<const M: usize>(
        a: &[Line],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        assert!(b.len() <= KC);
        let mut sums = [[vdupq_n_s32(0); 8]; M];
        let (pairs, last) = b.as_chunks::<2>();
        for (p, [first, second]) in (0..).step_by(2).zip(pairs) {
            for (j, (first, second)) in outputs(first).iter().zip(outputs(second)).enumerate() {
                let (first, second) = (load_s8(first), load_s8(second));
                for (sums, a) in sums.iter_mut().zip(a) {
                    let products = vmlal_s8(vmull_s8(first, signed(a[p])), second, signed(a[p + 1]));
                    sums[j] = vpadalq_s16(sums[j], products);
                }
            }
        }
        for b in last {
            for (j, b) in outputs(b).iter().enumerate() {
                for (sums, a) in sums.iter_mut().zip(a) {
                    sums[j] = vpadalq_s16(sums[j], vmull_s8(load_s8(b), signed(a[2 * pairs.len()])));
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let mut total = load_i32(start.unwrap_or(&c[i * c_stride..]).first_chunk().expect("a whole panel"));
            for (total, [low, high]) in total.iter_mut().zip(sums.as_chunks().0) {
                *total = vaddq_s32(*total, vpaddq_s32(*low, *high));
            }
            store_i32(c[i * c_stride..].first_chunk_mut().expect("a whole panel"), total);
        }
    }

    fn strip_blocks(
        a: &[Line],
        words: &[u8],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32; PANEL]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        tiles(a.len(), ROWS_I8, |first, rows| {
            let (a, c) = (&a[first..first + rows], &mut c[first * c_stride..]);
            match rows {
                1 => tile_blocks::<1>(a, words, b, start, c, c_stride),
                _ => tile_blocks::<2>(a, words, b, start, c, c_stride),
            }
        });
    }

    /// As [`tile_i8`] one word at a time, but for the place of each word of `a`: it is read, not counted.
    fn tile_blocks<const M: usize>(
        a: &[Line],
        words: &[u8],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32; PANEL]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        let mut sums = [[vdupq_n_s32(0); 8]; M];
        for (&word, b) in words.iter().zip(b) {
            // No word is beyond a line; saying so here spares a check in each row.
            let word = usize::from(word).min(KC - 1);
            for (j, b) in outputs(b).iter().enumerate() {
                for (sums, a) in sums.iter_mut().zip(a) {
                    sums[j] = vpadalq_s16(sums[j], vmull_s8(load_s8(b), signed(a[word])));
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let c: &mut [i32; PANEL] = c[i * c_stride..].first_chunk_mut().expect("a whole panel");
            let mut total = load_i32(start.unwrap_or(c));
            for (total, [low, high]) in total.iter_mut().zip(sums.as_chunks().0) {
                *total = vaddq_s32(*total, vpaddq_s32(*low, *high));
            }
            store_i32(c, total);
        }
    }

    /// Four activations without their bias, twice.
    #[inline]
    fn signed(word: u32) -> int8x8_t {
        vreinterpret_s8_u32(vdup_n_u32(word ^ 0x8080_8080))
    }

    /// Two outputs at a time.
    #[inline]
    fn outputs(b: &[i8; 4 * PANEL]) -> &[[i8; 8]; 8] {
        b.as_chunks().0.as_array().expect("64 bytes")
    }

    #[inline]
    fn load_s8(from: &[i8; 8]) -> int8x8_t {
        // SAFETY: 8 bytes are borrowed.
        unsafe { vld1_s8(from.as_ptr()) }
    }

    #[inline]
    fn load_words(from: &Words) -> [uint32x4_t; 4] {
        // SAFETY: 64 bytes are borrowed.
        unsafe {
            let at = from.as_ptr();
            [vld1q_u32(at), vld1q_u32(at.add(4)), vld1q_u32(at.add(8)), vld1q_u32(at.add(12))]
        }
    }

    #[inline]
    pub(super) fn load_i8(from: &[i8; 4 * PANEL]) -> [int8x16_t; 4] {
        // SAFETY: 64 bytes are borrowed.
        unsafe {
            let at = from.as_ptr();
            [vld1q_s8(at), vld1q_s8(at.add(16)), vld1q_s8(at.add(32)), vld1q_s8(at.add(48))]
        }
    }

    #[inline]
    fn load_f32(from: &[f32; PANEL]) -> [float32x4_t; 4] {
        // SAFETY: 64 bytes are borrowed.
        unsafe {
            let at = from.as_ptr();
            [vld1q_f32(at), vld1q_f32(at.add(4)), vld1q_f32(at.add(8)), vld1q_f32(at.add(12))]
        }
    }

    #[inline]
    fn store_f32(to: &mut [f32; PANEL], x: [float32x4_t; 4]) {
        for (to, x) in to.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: 16 bytes are borrowed.
            unsafe { vst1q_f32(to.as_mut_ptr(), x) }
        }
    }

    #[inline]
    pub(super) fn load_i32(from: &[i32; PANEL]) -> [int32x4_t; 4] {
        // SAFETY: 64 bytes are borrowed.
        unsafe {
            let at = from.as_ptr();
            [vld1q_s32(at), vld1q_s32(at.add(4)), vld1q_s32(at.add(8)), vld1q_s32(at.add(12))]
        }
    }

    #[inline]
    pub(super) fn store_i32(to: &mut [i32; PANEL], x: [int32x4_t; 4]) {
        for (to, x) in to.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: 16 bytes are borrowed.
            unsafe { vst1q_s32(to.as_mut_ptr(), x) }
        }
    }

    fn pack_a_f32(a: Matrix<'_>, words: Range<usize>, lines: &mut [Line]) {
        pack_a::<scalar::F32, Neon>(a, words, lines);
    }

    fn pack_b_f32(b: Matrix<'_>, into: &mut PanelsMut<'_>) {
        pack_b::<scalar::F32, Neon>(b, into);
    }

    fn pack_a_bf16(a: Matrix<'_>, words: Range<usize>, lines: &mut [Line]) {
        pack_a::<scalar::Bf16, Neon>(a, words, lines);
    }

    fn pack_b_bf16(b: Matrix<'_>, into: &mut PanelsMut<'_>) {
        pack_b::<scalar::Bf16, Neon>(b, into);
    }

    /// Blocks of 4×4, those off the diagonal changing places.
    #[inline]
    fn transpose(block: &mut [Words; PANEL]) {
        for i in (0..PANEL).step_by(4) {
            for j in (i..PANEL).step_by(4) {
                let (above, below) = (transposed_4x4(block, i, j), transposed_4x4(block, j, i));
                store_4x4(block, j, i, above);
                store_4x4(block, i, j, below);
            }
        }
    }

    /// The columns of the block of 4×4 words at row `i` and column `j`: pairs of words, then pairs of pairs.
    #[inline]
    fn transposed_4x4(block: &[Words; PANEL], i: usize, j: usize) -> [uint32x4_t; 4] {
        let mut x = [vdupq_n_u32(0); 4];
        for (x, row) in x.iter_mut().zip(&block[i..]) {
            // SAFETY: 16 bytes are borrowed.
            *x = unsafe { vld1q_u32(row[j..j + 4].as_ptr()) };
        }
        let wide = |low: uint32x4_t, high: uint32x4_t| (vreinterpretq_u64_u32(low), vreinterpretq_u64_u32(high));
        let (even_top, even_bottom) = wide(vtrn1q_u32(x[0], x[1]), vtrn1q_u32(x[2], x[3]));
        let (odd_top, odd_bottom) = wide(vtrn2q_u32(x[0], x[1]), vtrn2q_u32(x[2], x[3]));
        [
            vreinterpretq_u32_u64(vtrn1q_u64(even_top, even_bottom)),
            vreinterpretq_u32_u64(vtrn1q_u64(odd_top, odd_bottom)),
            vreinterpretq_u32_u64(vtrn2q_u64(even_top, even_bottom)),
            vreinterpretq_u32_u64(vtrn2q_u64(odd_top, odd_bottom)),
        ]
    }

    #[inline]
    fn store_4x4(block: &mut [Words; PANEL], i: usize, j: usize, x: [uint32x4_t; 4]) {
        for (row, x) in block[i..].iter_mut().zip(x) {
            // SAFETY: 16 bytes are borrowed.
            unsafe { vst1q_u32(row[j..j + 4].as_mut_ptr(), x) }
        }
    }
}

/// The transpose of this row: instantiated by the functions of this file alone. Rounding to bf16 is plain Rust,
/// which the compiler turns into NEON.
struct Neon;

impl Transpose for Neon {
    #[inline(always)]
    fn transpose(block: &mut [Words; PANEL]) {
        // SAFETY: runs inside functions that have the instructions, see the struct.
        unsafe { transpose(block) }
    }
}
