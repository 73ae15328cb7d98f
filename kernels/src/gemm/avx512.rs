//! AVX-512: tiles of twelve rows by two panels.
//!
//! ```text
//!                b: 2 loads a step
//!               zmm         zmm
//!  a: 12       ┌───────────┬───────────┐
//!  broadcasts  │ sum 0,0   │ sum 0,1   │   24 registers of sums, 2 of b, 1 of a: 27 of 32;
//!  a step      │   ⋮       │   ⋮       │   24 steps of latency 4 keep two units busy,
//!              │ sum 11,0  │ sum 11,1  │   and 14 loads feed 24 multiply-adds
//!              └───────────┴───────────┘
//! ```
//!
//! On one core of a Zen 4, as shares of what its registers alone can do (`benches/kernels_gemm.rs`; f32 118,
//! bf16 236, int8 473 Gop/s): f32 and bf16 83 to 96 %, the less the more of `b` and `c` lies outside L2; int8
//! to floats 86 to 96 %, for 16 to 512 rows, measured when its rows were still copied into lines first.

use super::blocks::BLOCKS_AHEAD;
use super::pack::{Packing, Transpose, Words, pack_a, pack_b};
use super::{
    FloatKernels, GemmKernels, Int8Kernels, KC, Line, Matrix, PANEL, Panels, PanelsMut, Start, scalar, tiles,
};
use crate::isa::avx512;
use std::arch::x86_64::*;
use std::ops::Range;

pub(crate) const GEMM: GemmKernels = GemmKernels {
    f32: FloatKernels { pack_a: pack_a_f32, pack_b: pack_b_f32, strip: strip_f32 },
    #[cfg(feature = "train")]
    bf16: FloatKernels { pack_a: pack_a_bf16, pack_b: pack_b_bf16, strip: strip_bf16 },
    i8: Int8Kernels { offset: 128, widen: None, strip: strip_i8, blocks: strip_blocks },
};

/// Rows of a tile.
const ROWS: usize = 12;

/// A product's tile and strip. They differ in the types, in how sixteen values are loaded and stored, and
/// in the one instruction that multiplies.
macro_rules! product {
    ($strip:ident, $tile:ident, $step:ident, $b:ty, $load_b:ident, $c:ty, $zero:ident, $load:ident, $store:ident) => {
        avx512! {
            fn $strip(a: &[Line], b: Panels<'_, $b>, start: Start<'_, $c>, c: &mut [$c], c_stride: usize) {
                tiles(a.len(), ROWS, |first, rows| {
                    let (a, c) = (&a[first..first + rows], &mut c[first * c_stride..]);
                    // A panel alone is multiplied twice: a tile of its own would be half of these functions' code.
                    let Panels { first, second, ahead } = b;
                    by_rows!($tile, rows, a, [first, second.unwrap_or(first)], ahead, start, c, c_stride)
                });
            }
            fn $tile<const M: usize>(
                a: &[Line],
                b: [&[$b]; 2],
                ahead: usize,
                start: Start<'_, $c>,
                c: &mut [$c],
                c_stride: usize,
            ) {
                let a: &[Line; M] = a.try_into().expect("a tile of M rows");
                let depth = b[0].len();
                assert!(depth <= KC && b[1].len() == depth);
                let (from, stride) = start.map_or((&*c, c_stride), |start| (start, 0));
                let mut sums = [[$zero(); 2]; M];
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let from = from[i * stride + j * PANEL..].first_chunk();
                        *sum = $load(from.expect("a whole panel"));
                    }
                }
                if start.is_some() {
                    // Nothing has read these lines of `c`: they would be waited for when the sums are stored.
                    for row in c.chunks(c_stride).take(M) {
                        (0..2).for_each(|j| _mm_prefetch::<_MM_HINT_ET0>(row[j * PANEL..].as_ptr().cast()));
                    }
                }
                for p in 0..depth {
                    let mut row = [_mm512_setzero_si512(); 2];
                    for (row, b) in row.iter_mut().zip(b) {
                        *row = $load_b(&b[p]);
                        // What the next strip reads, into L2.
                        _mm_prefetch::<_MM_HINT_T1>(b.as_ptr().wrapping_add(p + ahead).cast());
                    }
                    for (sums, a) in sums.iter_mut().zip(a) {
                        let a = _mm512_set1_epi32(a[p].cast_signed());
                        for (sum, &b) in sums.iter_mut().zip(&row) {
                            *sum = $step(*sum, a, b);
                        }
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    for (j, &sum) in sums.iter().enumerate() {
                        $store(c[i * c_stride + j * PANEL..].first_chunk_mut().expect("a whole panel"), sum);
                    }
                }
            }
        }
    };
}

/// Rows of the tiles of blocks, one panel wide since the next panel has other words: four sums hide the latency of the
/// product already, so a few sizes do, and spare the binary a tile for each number. (Short texts spend most on the rows that
/// are left: with three there, 11 rows take an eighth less.)
const BLOCK_ROWS: [usize; 7] = [24, 16, 8, 4, 3, 2, 1];

avx512! {
    fn strip_blocks(
        a: &[Line],
        words: &[u8],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32; PANEL]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let mut first = 0;
        while let Some(rows) = BLOCK_ROWS.into_iter().find(|&rows| rows <= a.len() - first) {
            let (a, c) = (&a[first..first + rows], &mut c[first * c_stride..]);
            match rows {
                24 => tile_blocks::<24>(a, words, b, start, c, c_stride),
                16 => tile_blocks::<16>(a, words, b, start, c, c_stride),
                8 => tile_blocks::<8>(a, words, b, start, c, c_stride),
                4 => tile_blocks::<4>(a, words, b, start, c, c_stride),
                3 => tile_blocks::<3>(a, words, b, start, c, c_stride),
                2 => tile_blocks::<2>(a, words, b, start, c, c_stride),
                _ => tile_blocks::<1>(a, words, b, start, c, c_stride),
            }
            first += rows;
        }
    }

    /// As a dense tile, but for the place of each word of `a`: it is read, not counted.
    fn tile_blocks<const M: usize>(
        a: &[Line],
        words: &[u8],
        b: &[[i8; 4 * PANEL]],
        start: Option<&[i32; PANEL]>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let a: &[Line; M] = a.try_into().expect("a tile of M rows");
        let mut sums = [_mm512_setzero_si512(); M];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = load_i32(start.unwrap_or_else(|| c[i * c_stride..].first_chunk().expect("a whole panel")));
        }
        for (&word, b) in words.iter().zip(b) {
            _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(b).wrapping_add(BLOCKS_AHEAD).cast());
            // No word is beyond a line; saying so here spares a check in each row.
            let word = usize::from(word).min(KC - 1);
            let b = load_i8(b);
            for (sum, a) in sums.iter_mut().zip(a) {
                *sum = step_i8(*sum, _mm512_set1_epi32(a[word].cast_signed()), b);
            }
        }
        for (i, &sum) in sums.iter().enumerate() {
            store_i32(c[i * c_stride..].first_chunk_mut().expect("a whole panel"), sum);
        }
    }
}

/// One tile for every number of rows.
macro_rules! by_rows {
    ($tile:ident, $rows:expr, $($argument:expr),+) => {
        match $rows {
            1 => $tile::<1>($($argument),+),
            2 => $tile::<2>($($argument),+),
            3 => $tile::<3>($($argument),+),
            4 => $tile::<4>($($argument),+),
            5 => $tile::<5>($($argument),+),
            6 => $tile::<6>($($argument),+),
            7 => $tile::<7>($($argument),+),
            8 => $tile::<8>($($argument),+),
            9 => $tile::<9>($($argument),+),
            10 => $tile::<10>($($argument),+),
            11 => $tile::<11>($($argument),+),
            _ => $tile::<12>($($argument),+),
        }
    };
}

product!(strip_f32, tile_f32, step_f32, [u32; PANEL], load_u32, f32, _mm512_setzero_ps, load_f32, store_f32);
product!(
    strip_bf16,
    tile_bf16,
    step_bf16,
    [u32; PANEL],
    load_u32,
    f32,
    _mm512_setzero_ps,
    load_f32,
    store_f32
);
product!(
    strip_i8,
    tile_i8,
    step_i8,
    [i8; 4 * PANEL],
    load_i8,
    i32,
    _mm512_setzero_si512,
    load_i32,
    store_i32
);

avx512! {
    #[inline]
    fn step_f32(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum)
    }

    #[inline]
    fn step_bf16(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        _mm512_dpbf16_ps(sum, bf16(a), bf16(b))
    }

    #[inline]
    fn step_i8(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sum, a, b)
    }

    #[inline]
    fn bf16(words: __m512i) -> __m512bh {
        // SAFETY: both are 512 bits without invalid values.
        unsafe { std::mem::transmute(words) }
    }

    #[inline]
    fn load_u32(from: &[u32; PANEL]) -> __m512i {
        // SAFETY: 64 bytes are borrowed.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline]
    fn load_i8(from: &[i8; 4 * PANEL]) -> __m512i {
        // SAFETY: 64 bytes are borrowed.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline]
    fn load_i32(from: &[i32; PANEL]) -> __m512i {
        // SAFETY: 64 bytes are borrowed.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline]
    fn load_f32(from: &[f32; PANEL]) -> __m512 {
        // SAFETY: 64 bytes are borrowed.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline]
    fn store_f32(to: &mut [f32; PANEL], x: __m512) {
        // SAFETY: 64 bytes are borrowed.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline]
    fn store_i32(to: &mut [i32; PANEL], x: __m512i) {
        // SAFETY: 64 bytes are borrowed.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
    }

    fn pack_a_f32(a: Matrix<'_>, words: Range<usize>, lines: &mut [Line]) {
        pack_a::<scalar::F32, Avx512>(a, words, lines);
    }

    fn pack_b_f32(b: Matrix<'_>, into: &mut PanelsMut<'_>) {
        pack_b::<scalar::F32, Avx512>(b, into);
    }

    fn pack_a_bf16(a: Matrix<'_>, words: Range<usize>, lines: &mut [Line]) {
        pack_a::<Bf16, Avx512>(a, words, lines);
    }

    fn pack_b_bf16(b: Matrix<'_>, into: &mut PanelsMut<'_>) {
        pack_b::<Bf16, Avx512>(b, into);
    }

    #[inline]
    fn along_bf16(from: &[f32; 2 * PANEL]) -> Words {
        let [low, high] = [0, PANEL].map(|at| load_f32(from[at..].first_chunk().expect("half of 32")));
        words(_mm512_cvtne2ps_pbh(high, low))
    }

    #[inline]
    fn across_bf16(low: &[f32; PANEL], high: &[f32; PANEL]) -> Words {
        /// From all the low halves and then all the high ones, 16 bits each, to pairs.
        const PAIRS: [u32; PANEL] = {
            let mut pairs = [0; PANEL];
            let mut at = 0;
            while at < PANEL {
                pairs[at] = (at | (PANEL + at) << 16) as u32;
                at += 1;
            }
            pairs
        };
        let halves = words(_mm512_cvtne2ps_pbh(load_f32(high), load_f32(low)));
        let mut pairs = [0; PANEL];
        store_u32(&mut pairs, _mm512_permutexvar_epi16(load_u32(&PAIRS), load_u32(&halves)));
        pairs
    }

    #[inline]
    fn words(x: __m512bh) -> Words {
        // SAFETY: both are 512 bits without invalid values.
        unsafe { std::mem::transmute(x) }
    }

    /// Sixteen registers, rows become columns: pairs of words, pairs of pairs, then lanes of 128 bits twice.
    #[inline]
    fn transpose(block: &mut [Words; PANEL]) {
        let mut x = [_mm512_setzero_si512(); PANEL];
        for (x, row) in x.iter_mut().zip(&*block) {
            *x = load_u32(row);
        }
        let mut y = x;
        for i in (0..PANEL).step_by(2) {
            y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
            y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        }
        // x[4g + j], lane l: column 4l + j of rows 4g to 4g + 3.
        for i in (0..PANEL).step_by(4) {
            x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
            x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
            x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
            x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
        }
        for j in 0..4 {
            let (even_top, odd_top) = even_odd(x[j], x[4 + j]);
            let (even_bottom, odd_bottom) = even_odd(x[8 + j], x[12 + j]);
            (y[j], y[8 + j]) = even_odd(even_top, even_bottom);
            (y[4 + j], y[12 + j]) = even_odd(odd_top, odd_bottom);
        }
        for (y, row) in y.iter().zip(block) {
            store_u32(row, *y);
        }
    }

    /// The even lanes of both, and the odd lanes of both.
    #[inline]
    fn even_odd(a: __m512i, b: __m512i) -> (__m512i, __m512i) {
        (_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
    }

    #[inline]
    fn store_u32(to: &mut [u32; PANEL], x: __m512i) {
        // SAFETY: 64 bytes are borrowed.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
    }
}

/// The transpose of this row: instantiated by the functions of this file alone.
struct Avx512;

impl Transpose for Avx512 {
    #[inline(always)]
    fn transpose(block: &mut [Words; PANEL]) {
        // SAFETY: runs inside functions that have the instructions, see the struct.
        unsafe { transpose(block) }
    }
}

/// bf16 by this row's own conversion: instantiated as [`Avx512`] is.
struct Bf16;

impl Packing for Bf16 {
    const FLOATS: usize = 2;

    #[inline(always)]
    fn along(from: &[f32]) -> Words {
        let from = from.first_chunk().expect("32 floats");
        // SAFETY: runs inside functions that have the instructions, see the struct.
        unsafe { along_bf16(from) }
    }

    #[inline(always)]
    fn across(low: &[f32; PANEL], high: &[f32; PANEL]) -> Words {
        // SAFETY: runs inside functions that have the instructions, see the struct.
        unsafe { across_bf16(low, high) }
    }
}
