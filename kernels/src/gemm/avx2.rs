//! AVX2 and FMA, without VNNI: tiles of six rows by one panel.
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
//! An int8 tile is half as wide, six rows by eight outputs, and as full: a register of sums holds four outputs, each
//! twice. Rows of `a` are widened to 16 bits once for all panels, words of `b` as they are loaded; `vpmaddwd` multiplies
//! four inputs by four outputs and adds pairs.
//!
//! On one core of a Zen 4 f32 reaches 83 to 96 % of the 118 Gop/s of its registers, bf16 60 to 65 %: it exists so that the
//! numbers are right everywhere, not to be fast. int8 does 130 to 150 of the 186 Gop/s that `vpmaddwd` and `vpaddd` do on
//! registers alone (the additions take multipliers' slots). The other exact way, `vpmaddubsw` with the signs of `a` moved
//! to `b`, did 115.

use super::blocks::BLOCKS_AHEAD;
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
    i8: Int8Kernels { offset: 0, widen: Some(widen), strip: strip_i8, blocks: strip_blocks },
};

/// Rows of a tile.
const ROWS: usize = 6;

/// Outputs of an int8 tile.
const HALF: usize = PANEL / 2;

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

pub(super) use by_rows;

/// Calls a tile on each panel and each group of rows.
macro_rules! strip {
    ($strip:ident, $tile:ident, $b:ty, $c:ty) => {
        avx2! {
            fn $strip(a: &[Line], b: Panels<'_, $b>, start: Start<'_, $c>, c: &mut [$c], c_stride: usize) {
                let ahead = b.ahead;
                for (panel, b) in b.each().enumerate() {
                    let start = start.map(|start| &start[panel * PANEL..]);
                    tiles(a.len(), ROWS, |first, rows| {
                        let (a, c) = (&a[first..first + rows], &mut c[first * c_stride + panel * PANEL..]);
                        by_rows!($tile, rows, a, b, ahead, start, c, c_stride)
                    });
                }
            }
        }
    };
}

strip!(strip_f32, tile_f32, [u32; PANEL], f32);
strip!(strip_bf16, tile_bf16, [u32; PANEL], f32);

avx2! {
    fn tile_f32<const M: usize>(a: &[Line], b: &[[u32; PANEL]], ahead: usize, start: Option<&[f32]>, c: &mut [f32], c_stride: usize) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        assert!(b.len() <= KC);
        let mut sums = load_sums::<M>(start, c, c_stride);
        for (p, b) in b.iter().enumerate() {
            prefetch(b, ahead);
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
    fn tile_bf16<const M: usize>(a: &[Line], b: &[[u32; PANEL]], ahead: usize, start: Option<&[f32]>, c: &mut [f32], c_stride: usize) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        assert!(b.len() <= KC);
        let mut sums = load_sums::<M>(start, c, c_stride);
        for (p, b) in b.iter().enumerate() {
            prefetch(b, ahead);
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

    /// What is read `ahead` rows of a panel further on, into L2.
    #[inline]
    pub(super) fn prefetch<B>(b: &B, ahead: usize) {
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(b).wrapping_add(ahead).cast());
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

    /// Signed 16-bit integers, of which one instruction multiplies pairs and adds the two products in 32 bits.
    fn widen(a: &[Line], wide: &mut [Line]) {
        let offset = _mm_set1_epi8(-128);
        for (line, wide) in a.iter().zip(wide.as_chunks_mut::<2>().0) {
            for (from, to) in line.as_chunks::<4>().0.iter().zip(wide.as_flattened_mut().as_chunks_mut::<8>().0) {
                // SAFETY: 16 bytes are borrowed, and 32 bytes.
                unsafe {
                    let signed = _mm_xor_si128(_mm_loadu_si128(from.as_ptr().cast()), offset);
                    _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm256_cvtepi8_epi16(signed));
                }
            }
        }
    }

    fn strip_i8(a: &[Line], b: Panels<'_, [i8; 4 * PANEL]>, start: Start<'_, i32>, c: &mut [i32], c_stride: usize) {
        let a = a.as_chunks().0;
        let ahead = b.ahead;
        for (panel, b) in b.each().enumerate() {
            for half in [0, 1] {
                let column = panel * PANEL + half * HALF;
                let start = start.map(|start| &start[column..]);
                tiles(a.len(), ROWS, |first, rows| {
                    let (a, c) = (&a[first..first + rows], &mut c[first * c_stride + column..]);
                    by_rows!(tile_i8, rows, a, b, half, ahead, start, c, c_stride)
                });
            }
        }
    }

    /// Half a panel: eight outputs, each in two neighbouring sums of 32 bits, of even and of odd pairs of inputs.
    fn tile_i8<const M: usize>(
        a: &[[Line; 2]],
        b: &[[i8; 4 * PANEL]],
        half: usize,
        ahead: usize,
        start: Option<&[i32]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let a: &[[Line; 2]; M] = a.try_into().expect("a tile of M rows");
        assert!(b.len() <= KC);
        let mut sums = [[_mm256_setzero_si256(); 2]; M];
        for (p, b) in b.iter().enumerate() {
            prefetch(b, ahead);
            add_products(&mut sums, a, p, load_half(b, half));
        }
        store_halves(sums, start, c, c_stride);
    }

    fn strip_blocks(
        a: &[Line],
        words: &[u8],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32; PANEL]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let a = a.as_chunks().0;
        for half in [0, 1] {
            let start = start.map(|start| &start[half * HALF..]);
            tiles(a.len(), ROWS, |first, rows| {
                let (a, c) = (&a[first..first + rows], &mut c[first * c_stride + half * HALF..]);
                by_rows!(tile_blocks, rows, a, words, b, half, start, c, c_stride)
            });
        }
    }

    /// As [`tile_i8`], but for the place of each word of `a`: it is read, not counted.
    fn tile_blocks<const M: usize>(
        a: &[[Line; 2]],
        words: &[u8],
        b: &[[i8; 4 * PANEL]],
        half: usize,
        start: Option<&[i32]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let a: &[[Line; 2]; M] = a.try_into().expect("a tile of M rows");
        let mut sums = [[_mm256_setzero_si256(); 2]; M];
        for (&word, b) in words.iter().zip(b) {
            prefetch(b, BLOCKS_AHEAD);
            // No word is beyond a line; saying so here spares a check in each row.
            add_products(&mut sums, a, usize::from(word).min(KC - 1), load_half(b, half));
        }
        store_halves(sums, start, c, c_stride);
    }

    /// The products of four inputs with eight outputs.
    #[inline]
    fn add_products<const M: usize>(sums: &mut [[__m256i; 2]; M], a: &[[Line; 2]; M], word: usize, b: [__m256i; 2]) {
        for (sums, a) in sums.iter_mut().zip(a) {
            let inputs = &a.as_flattened()[2 * word..2 * word + 2];
            // SAFETY: 8 bytes are borrowed.
            let a = _mm256_broadcastq_epi64(unsafe { _mm_loadl_epi64(inputs.as_ptr().cast()) });
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(a, b[0]));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(a, b[1]));
        }
    }

    /// Adds neighbours, and `start`, or what is in `c`.
    #[inline]
    fn store_halves<const M: usize>(
        sums: [[__m256i; 2]; M],
        start: Option<&[i32]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        for (i, [low, high]) in sums.into_iter().enumerate() {
            // Outputs 0, 1, 4, 5, 2, 3, 6, 7, and then in order.
            let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low, high));
            let c = &mut c[i * c_stride..][..HALF];
            let start = &start.unwrap_or(c)[..HALF];
            // SAFETY: 32 bytes are borrowed each.
            unsafe {
                let sums = _mm256_add_epi32(sums, _mm256_loadu_si256(start.as_ptr().cast()));
                _mm256_storeu_si256(c.as_mut_ptr().cast(), sums);
            }
        }
    }

    /// Eight outputs of a word, four in each register, in 16 bits.
    #[inline]
    fn load_half(from: &[i8; 4 * PANEL], half: usize) -> [__m256i; 2] {
        let from = &from[half * 4 * HALF..][..4 * HALF];
        // SAFETY: 32 bytes are borrowed.
        unsafe {
            [
                _mm256_cvtepi8_epi16(_mm_loadu_si128(from.as_ptr().cast())),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(from[16..].as_ptr().cast())),
            ]
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
