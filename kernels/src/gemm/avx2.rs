//! AVX2 and FMA, without VNNI: tiles of six rows by one panel, and int8 tiles of four.
//!
//! ```text
//!              b: 2 loads a step
//!              ymm         ymm
//!  a: 6       ┌───────────┬───────────┐
//!  broadcasts │ sum 0,0   │ sum 0,1   │   12 registers of sums, 2 of b, 1 of a: 15 of 16;
//!  a step     │   ⋮       │   ⋮       │   12 steps of latency 4 keep two units busy,
//!             │ sum 5,0   │ sum 5,1   │   and 8 loads feed 12 multiply-adds
//!             └───────────┴───────────┘
//! ```
//!
//! On one core of a Zen 4 f32 reaches 83 to 96 % of the 118 Gop/s of its registers, bf16 60 to 65 %: it exists
//! so that the numbers are right everywhere, not to be fast. int8 does 115 Gop/s, for its tile takes four
//! instructions where VNNI takes one. Widening to 16 bits and `vpmaddwd` was measured too: as fast from
//! 16 rows on, slower below.

use super::pack::{Transpose, Words, pack_a, pack_b};
use super::{
    FloatKernels, GemmKernels, Int8Kernels, KC, Line, Matrix, PANEL, Panels, PanelsMut, Start, scalar, tiles,
};
use crate::isa::avx2;
use std::arch::x86_64::*;
use std::ops::Range;

pub(crate) const GEMM: GemmKernels = GemmKernels {
    f32: FloatKernels { pack_a: pack_a_f32, pack_b: pack_b_f32, strip: strip_f32 },
    #[cfg(feature = "train")]
    bf16: FloatKernels { pack_a: pack_a_bf16, pack_b: pack_b_bf16, strip: strip_bf16 },
    i8: Int8Kernels { offset: 0, widen: None, strip: strip_i8, blocks: strip_blocks },
};

/// Rows of a float tile.
const ROWS: usize = 6;

/// Rows of an int8 tile: 8 registers of sums, 2 of b, 3 of a and its product with b, 2 of constants.
const ROWS_I8: usize = 4;

/// One tile for every number of rows.
macro_rules! by_rows {
    ($tile:ident, $rows:expr, $($argument:expr),+) => {
        match $rows {
            1 => $tile::<1>($($argument),+),
            2 => $tile::<2>($($argument),+),
            3 => $tile::<3>($($argument),+),
            4 => $tile::<4>($($argument),+),
            5 => $tile::<5>($($argument),+),
            _ => $tile::<6>($($argument),+),
        }
    };
}

/// Calls a tile on each panel and each group of rows.
macro_rules! strip {
    ($strip:ident, $tile:ident, $b:ty, $c:ty) => {
        avx2! {
            fn $strip(a: &[Line], b: Panels<'_, $b>, start: Start<'_, $c>, c: &mut [$c], c_stride: usize) {
                for (panel, b) in [Some(b.0), b.1].into_iter().flatten().enumerate() {
                let start = start.map(|start| &start[panel * PANEL..]);
                    tiles(a.len(), ROWS, |first, rows| {
                        let (a, c) = (&a[first..first + rows], &mut c[first * c_stride + panel * PANEL..]);
                        by_rows!($tile, rows, a, b, start, c, c_stride)
                    });
                }
            }
        }
    };
}

strip!(strip_f32, tile_f32, [u32; PANEL], f32);
strip!(strip_bf16, tile_bf16, [u32; PANEL], f32);

avx2! {
    fn tile_f32<const M: usize>(a: &[Line], b: &[[u32; PANEL]], start: Option<&[f32]>, c: &mut [f32], c_stride: usize) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        assert!(b.len() <= KC);
        let mut sums = load_sums::<M>(start, c, c_stride);
        for (p, b) in b.iter().enumerate() {
            let [b0, b1] = load_words(b);
            let b = [_mm256_castsi256_ps(b0), _mm256_castsi256_ps(b1)];
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = _mm256_set1_ps(f32::from_bits(a[p]));
                sums[0] = _mm256_fmadd_ps(a, b[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(a, b[1], sums[1]);
            }
        }
        store_sums(&sums, c, c_stride);
    }

    /// A bf16 is the upper half of an f32: both operands are widened, and the sums go on in f32.
    fn tile_bf16<const M: usize>(a: &[Line], b: &[[u32; PANEL]], start: Option<&[f32]>, c: &mut [f32], c_stride: usize) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        assert!(b.len() <= KC);
        let mut sums = load_sums::<M>(start, c, c_stride);
        for (p, b) in b.iter().enumerate() {
            let b = load_words(b);
            // One half after the other: both at once would need 19 registers.
            let even = [low(b[0]), low(b[1])];
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = low(_mm256_set1_epi32(a[p].cast_signed()));
                sums[0] = _mm256_fmadd_ps(a, even[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(a, even[1], sums[1]);
            }
            let odd = [high(b[0]), high(b[1])];
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = high(_mm256_set1_epi32(a[p].cast_signed()));
                sums[0] = _mm256_fmadd_ps(a, odd[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(a, odd[1], sums[1]);
            }
        }
        store_sums(&sums, c, c_stride);
    }

    /// The lower of the two bf16 in each word.
    #[inline]
    fn low(words: __m256i) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
    }

    /// The upper of the two bf16 in each word.
    #[inline]
    fn high(words: __m256i) -> __m256 {
        _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000_u32.cast_signed())))
    }

    #[inline]
    fn load_words(from: &[u32; PANEL]) -> [__m256i; 2] {
        // SAFETY: 64 bytes are borrowed.
        unsafe { [_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from[8..].as_ptr().cast())] }
    }

    #[inline]
    fn load_sums<const M: usize>(start: Option<&[f32]>, c: &[f32], c_stride: usize) -> [[__m256; 2]; M] {
        let mut sums = [[_mm256_setzero_ps(); 2]; M];
        for (i, sums) in sums.iter_mut().enumerate() {
            let c = &start.unwrap_or(&c[i * c_stride..])[..PANEL];
            // SAFETY: 64 bytes are borrowed.
            *sums = unsafe { [_mm256_loadu_ps(c.as_ptr()), _mm256_loadu_ps(c[8..].as_ptr())] };
        }
        sums
    }

    #[inline]
    fn store_sums<const M: usize>(sums: &[[__m256; 2]; M], c: &mut [f32], c_stride: usize) {
        for (i, sums) in sums.iter().enumerate() {
            let c = &mut c[i * c_stride..][..PANEL];
            // SAFETY: 64 bytes are borrowed.
            unsafe {
                _mm256_storeu_ps(c.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(c[8..].as_mut_ptr(), sums[1]);
            }
        }
    }

    fn strip_i8(a: &[Line], b: Panels<'_, [i8; 4 * PANEL]>, start: Start<'_, i32>, c: &mut [i32], c_stride: usize) {
        for (panel, b) in [Some(b.0), b.1].into_iter().flatten().enumerate() {
                let start = start.map(|start| &start[panel * PANEL..]);
            tiles(a.len(), ROWS_I8, |first, rows| {
                let (a, c) = (&a[first..first + rows], &mut c[first * c_stride + panel * PANEL..]);
                match rows {
                    1 => tile_i8::<1>(a, b, start, c, c_stride),
                    2 => tile_i8::<2>(a, b, start, c, c_stride),
                    3 => tile_i8::<3>(a, b, start, c, c_stride),
                    _ => tile_i8::<4>(a, b, start, c, c_stride),
                }
            });
        }
    }

    /// `vpmaddubsw` adds pairs of products in 16 bits, and saturates beyond. It multiplies unsigned by signed
    /// bytes: with `|s| ≤ 127` and `w` under the sign of `s`, no pair exceeds 2·127² = 32,258, which fits.
    fn tile_i8<const M: usize>(
        a: &[Line],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        assert!(b.len() <= KC);
        let mut sums = load_integers::<M>(start, c, c_stride);
        for (p, b) in b.iter().enumerate() {
            let b = load_i8(b);
            for (sums, a) in sums.iter_mut().zip(a) {
                add_products(sums, a[p], b);
            }
        }
        store_integers(&sums, c, c_stride);
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
                2 => tile_blocks::<2>(a, words, b, start, c, c_stride),
                3 => tile_blocks::<3>(a, words, b, start, c, c_stride),
                _ => tile_blocks::<4>(a, words, b, start, c, c_stride),
            }
        });
    }

    /// As [`tile_i8`], but for the place of each word of `a`: it is read, not counted.
    fn tile_blocks<const M: usize>(
        a: &[Line],
        words: &[u8],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32; PANEL]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        let mut sums = load_integers::<M>(start.map(|start| &start[..]), c, c_stride);
        for (&word, b) in words.iter().zip(b) {
            // No word is beyond a line; saying so here spares a check in each row.
            let word = usize::from(word).min(KC - 1);
            let b = load_i8(b);
            for (sums, a) in sums.iter_mut().zip(a) {
                add_products(sums, a[word], b);
            }
        }
        store_integers(&sums, c, c_stride);
    }

    /// The products of four inputs, stored in `a`, with sixteen outputs.
    #[inline]
    fn add_products(sums: &mut [__m256i; 2], a: u32, b: [__m256i; 2]) {
        let (offset, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
        let signed = _mm256_xor_si256(_mm256_set1_epi32(a.cast_signed()), offset);
        let magnitude = _mm256_abs_epi8(signed);
        for (sum, b) in sums.iter_mut().zip(b) {
            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(b, signed));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }

    #[inline]
    fn load_integers<const M: usize>(start: Option<&[i32]>, c: &[i32], c_stride: usize) -> [[__m256i; 2]; M] {
        let mut sums = [[_mm256_setzero_si256(); 2]; M];
        for (i, sums) in sums.iter_mut().enumerate() {
            *sums = load_i32(start.unwrap_or(&c[i * c_stride..]).first_chunk().expect("a whole panel"));
        }
        sums
    }

    #[inline]
    fn store_integers<const M: usize>(sums: &[[__m256i; 2]; M], c: &mut [i32], c_stride: usize) {
        for (i, &sums) in sums.iter().enumerate() {
            store_i32(c[i * c_stride..].first_chunk_mut().expect("a whole panel"), sums);
        }
    }

    #[inline]
    pub(super) fn load_i8(from: &[i8; 4 * PANEL]) -> [__m256i; 2] {
        // SAFETY: 64 bytes are borrowed.
        unsafe { [_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from[32..].as_ptr().cast())] }
    }

    #[inline]
    pub(super) fn load_i32(from: &[i32; PANEL]) -> [__m256i; 2] {
        // SAFETY: 64 bytes are borrowed.
        unsafe { [_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from[8..].as_ptr().cast())] }
    }

    #[inline]
    pub(super) fn store_i32(to: &mut [i32; PANEL], x: [__m256i; 2]) {
        // SAFETY: 64 bytes are borrowed.
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), x[0]);
            _mm256_storeu_si256(to[8..].as_mut_ptr().cast(), x[1]);
        }
    }

    fn pack_a_f32(a: Matrix<'_>, words: Range<usize>, lines: &mut [Line]) {
        pack_a::<scalar::F32, Avx2>(a, words, lines);
    }

    fn pack_b_f32(b: Matrix<'_>, into: &mut PanelsMut<'_>) {
        pack_b::<scalar::F32, Avx2>(b, into);
    }

    fn pack_a_bf16(a: Matrix<'_>, words: Range<usize>, lines: &mut [Line]) {
        pack_a::<scalar::Bf16, Avx2>(a, words, lines);
    }

    fn pack_b_bf16(b: Matrix<'_>, into: &mut PanelsMut<'_>) {
        pack_b::<scalar::Bf16, Avx2>(b, into);
    }

    /// Four blocks of 8×8, those off the diagonal changing places.
    #[inline]
    fn transpose(block: &mut [Words; PANEL]) {
        let corner = |block: &[Words; PANEL], i: usize, j: usize| {
            let mut x = [_mm256_setzero_si256(); 8];
            for (x, row) in x.iter_mut().zip(&block[i..]) {
                // SAFETY: 32 bytes are borrowed.
                *x = unsafe { _mm256_loadu_si256(row[j..j + 8].as_ptr().cast()) };
            }
            transpose_8x8(x)
        };
        let (top_right, bottom_left) = (corner(block, 0, 8), corner(block, 8, 0));
        for (i, j, x) in [
            (0, 0, corner(block, 0, 0)),
            (8, 8, corner(block, 8, 8)),
            (8, 0, top_right),
            (0, 8, bottom_left),
        ] {
            for (x, row) in x.iter().zip(&mut block[i..]) {
                // SAFETY: 32 bytes are borrowed.
                unsafe { _mm256_storeu_si256(row[j..j + 8].as_mut_ptr().cast(), *x) }
            }
        }
    }

    /// Rows become columns: pairs of words, pairs of pairs, then halves.
    #[inline]
    fn transpose_8x8(mut x: [__m256i; 8]) -> [__m256i; 8] {
        let mut y = x;
        for i in (0..8).step_by(2) {
            y[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
            y[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
        }
        // x[4g + j], half h: column 4h + j of rows 4g to 4g + 3.
        for i in (0..8).step_by(4) {
            x[i] = _mm256_unpacklo_epi64(y[i], y[i + 2]);
            x[i + 1] = _mm256_unpackhi_epi64(y[i], y[i + 2]);
            x[i + 2] = _mm256_unpacklo_epi64(y[i + 1], y[i + 3]);
            x[i + 3] = _mm256_unpackhi_epi64(y[i + 1], y[i + 3]);
        }
        for j in 0..4 {
            y[j] = _mm256_permute2x128_si256::<0x20>(x[j], x[4 + j]);
            y[4 + j] = _mm256_permute2x128_si256::<0x31>(x[j], x[4 + j]);
        }
        y
    }
}

/// The transpose of this row: instantiated by the functions of this file alone. Rounding to bf16 is plain Rust,
/// which the compiler turns into AVX2.
struct Avx2;

impl Transpose for Avx2 {
    #[inline(always)]
    fn transpose(block: &mut [Words; PANEL]) {
        // SAFETY: runs inside functions that have the instructions, see the struct.
        unsafe { transpose(block) }
    }
}
