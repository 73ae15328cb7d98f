//! Sixteen lanes in two `ymm` registers.

use std::arch::x86_64::*;

use super::{LANES, Simd};
use crate::isa::avx2;

/// Proof that the features of [`Isa::Avx2`](crate::Isa::Avx2) may be used.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

avx2! {
    /// The proof, for functions that are themselves compiled for AVX2.
    #[inline]
    pub(crate) fn token() -> Avx2 {
        Avx2(())
    }

    /// (lane i + lane i+4), then +2, +1.
    #[inline]
    pub(crate) fn sum_floats_8(a: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }

    /// sum + x², in double precision.
    #[inline]
    fn add_squares_4(sum: __m256d, x: __m128) -> __m256d {
        let x = _mm256_cvtps_pd(x);
        _mm256_fmadd_pd(x, x, sum)
    }

    /// (a0, b0, a1, b1, …), in two registers.
    #[inline]
    fn interleave_8(a: __m256, b: __m256) -> [__m256; 2] {
        let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
    }

    /// (lane i + lane i+2), then +1.
    #[inline]
    pub(crate) fn sum_doubles_4(a: __m256d) -> f64 {
        let two = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd::<1>(a));
        _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
    }
}

/// Methods whose whole body is an expression over intrinsics. `each` ones do the same to both halves.
macro_rules! intrinsics {
    ($(fn $name:ident $(<const $by:ident: u32>)? ($($arg:ident: $type:ty),*) -> $out:ty { $body:expr })*) => {
        $(
            #[inline(always)]
            fn $name $(<const $by: u32>)? (self, $($arg: $type),*) -> $out {
                // SAFETY: an `Avx2` exists only where these instructions may run; memory is reached
                // through references of exactly the width that is read or written.
                unsafe { $body }
            }
        )*
    };
}

macro_rules! each {
    ($($name:ident($($arg:ident),+): $type:ty => $out:ty { $body:expr })*) => {
        intrinsics! {
            $(fn $name($($arg: [$type; 2]),+) -> [$out; 2] {
                {
                    let low = { $(let $arg = $arg[0];)+ $body };
                    let high = { $(let $arg = $arg[1];)+ $body };
                    [low, high]
                }
            })*
        }
    };
}

/// What the load of an empty slice points at, without reading it.
static NOTHING: [f32; LANES] = [0.0; LANES];

/// All ones in the lanes below `len`, zero above.
#[inline(always)]
fn first(len: usize) -> [__m256i; 2] {
    assert!(len <= LANES);
    const BITS: [i32; 2 * LANES] = {
        let mut bits = [0; 2 * LANES];
        let mut i = 0;
        while i < LANES {
            bits[i] = -1;
            i += 1;
        }
        bits
    };
    let window = &BITS[LANES - len..][..LANES];
    // SAFETY: the window is sixteen integers long; only AVX2's own methods call this.
    unsafe { [_mm256_loadu_si256(window.as_ptr().cast()), _mm256_loadu_si256(window[8..].as_ptr().cast())] }
}

impl Simd for Avx2 {
    const ONE_REGISTER: bool = false;

    type Floats = [__m256; 2];
    type Bits = [__m256i; 2];
    type Doubles = [__m256d; 4];
    type Mask = [__m256; 2];

    each! {
        add(a, b): __m256 => __m256 { _mm256_add_ps(a, b) }
        sub(a, b): __m256 => __m256 { _mm256_sub_ps(a, b) }
        mul(a, b): __m256 => __m256 { _mm256_mul_ps(a, b) }
        div(a, b): __m256 => __m256 { _mm256_div_ps(a, b) }
        fma(a, b, c): __m256 => __m256 { _mm256_fmadd_ps(a, b, c) }
        sqrt(a): __m256 => __m256 { _mm256_sqrt_ps(a) }
        max(a, b): __m256 => __m256 { _mm256_max_ps(a, b) }
        min(a, b): __m256 => __m256 { _mm256_min_ps(a, b) }
        less(a, b): __m256 => __m256 { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
        select(mask, yes, no): __m256 => __m256 { _mm256_blendv_ps(no, yes, mask) }

        bits(a): __m256 => __m256i { _mm256_castps_si256(a) }
        floats(a): __m256i => __m256 { _mm256_castsi256_ps(a) }
        add_bits(a, b): __m256i => __m256i { _mm256_add_epi32(a, b) }
        sub_bits(a, b): __m256i => __m256i { _mm256_sub_epi32(a, b) }
        mul_bits(a, b): __m256i => __m256i { _mm256_mullo_epi32(a, b) }
        and(a, b): __m256i => __m256i { _mm256_and_si256(a, b) }
        xor(a, b): __m256i => __m256i { _mm256_xor_si256(a, b) }
        less_bits(a, b): __m256i => __m256 { _mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a)) }
    }

    intrinsics! {
        fn splat(x: f32) -> [__m256; 2] { [_mm256_set1_ps(x); 2] }
        fn load(from: &[f32; LANES]) -> [__m256; 2] {
            [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from[8..].as_ptr())]
        }
        fn prefetch(at: *const f32) -> () { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        fn load_four(from: &[f32; 4]) -> [__m256; 2] { [_mm256_broadcast_ps(&_mm_loadu_ps(from.as_ptr())); 2] }
        fn store(x: [__m256; 2], to: &mut [f32; LANES]) -> () {
            {
                _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
                _mm256_storeu_ps(to[8..].as_mut_ptr(), x[1]);
            }
        }
        // Lanes outside the mask are neither read nor written, so the second half's address, which may
        // lie beyond the slice, is never followed there. (qemu does read all of a load that begins at no memory at
        // all, as that of an empty slice may: hence its stand-in.)
        fn load_partial(from: &[f32], fill: f32) -> [__m256; 2] {
            {
                let at = if from.is_empty() { NOTHING.as_ptr() } else { from.as_ptr() };
                let mask = first(from.len());
                let low = _mm256_maskload_ps(at, mask[0]);
                let high = _mm256_maskload_ps(at.wrapping_add(8), mask[1]);
                let fill = _mm256_set1_ps(fill);
                [
                    _mm256_blendv_ps(fill, low, _mm256_castsi256_ps(mask[0])),
                    _mm256_blendv_ps(fill, high, _mm256_castsi256_ps(mask[1])),
                ]
            }
        }
        fn store_partial(x: [__m256; 2], to: &mut [f32]) -> () {
            {
                let (mask, at) = (first(to.len()), to.as_mut_ptr());
                _mm256_maskstore_ps(at, mask[0], x[0]);
                _mm256_maskstore_ps(at.wrapping_add(8), mask[1], x[1]);
            }
        }
        fn interleave(a: [__m256; 2], b: [__m256; 2]) -> ([__m256; 2], [__m256; 2]) {
            (interleave_8(a[0], b[0]), interleave_8(a[1], b[1]))
        }
        fn sum(a: [__m256; 2]) -> f32 { sum_floats_8(_mm256_add_ps(a[0], a[1])) }

        fn splat_bits(x: u32) -> [__m256i; 2] { [_mm256_set1_epi32(x.cast_signed()); 2] }
        fn load_bits(from: &[u32; LANES]) -> [__m256i; 2] {
            [_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from[8..].as_ptr().cast())]
        }
        // Shifts by a count in a register: the immediate forms take an `i32` constant, not a `u32` one.
        fn shift_left<const BY: u32>(a: [__m256i; 2]) -> [__m256i; 2] {
            {
                let by = _mm_cvtsi32_si128(BY.cast_signed());
                [_mm256_sll_epi32(a[0], by), _mm256_sll_epi32(a[1], by)]
            }
        }
        fn shift_right<const BY: u32>(a: [__m256i; 2]) -> [__m256i; 2] {
            {
                let by = _mm_cvtsi32_si128(BY.cast_signed());
                [_mm256_srl_epi32(a[0], by), _mm256_srl_epi32(a[1], by)]
            }
        }

        fn load_i8(from: &[i8; LANES]) -> [__m256; 2] {
            {
                let bytes = _mm_loadu_si128(from.as_ptr().cast());
                [
                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))),
                ]
            }
        }
        fn load_i32(from: &[i32; LANES]) -> [__m256; 2] {
            [
                _mm256_cvtepi32_ps(_mm256_loadu_si256(from.as_ptr().cast())),
                _mm256_cvtepi32_ps(_mm256_loadu_si256(from[8..].as_ptr().cast())),
            ]
        }
        fn store_words(x: [__m256i; 2], to: &mut [i8; 4 * LANES]) -> () {
            {
                _mm256_storeu_si256(to.as_mut_ptr().cast(), x[0]);
                _mm256_storeu_si256(to[32..].as_mut_ptr().cast(), x[1]);
            }
        }
        fn store_low_bytes(x: [__m256i; 2], to: &mut [u8; LANES]) -> () {
            {
                let low = _mm256_set1_epi32(0xff);
                // Packing keeps the 128-bit halves apart, hence the quarters 0, 2, 1, 3.
                let words = _mm256_packs_epi32(_mm256_and_si256(x[0], low), _mm256_and_si256(x[1], low));
                let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
                let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
                _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
            }
        }

        fn zero_doubles() -> [__m256d; 4] { [_mm256_setzero_pd(); 4] }
        fn add_squares(sum: [__m256d; 4], x: [__m256; 2]) -> [__m256d; 4] {
            [
                add_squares_4(sum[0], _mm256_castps256_ps128(x[0])),
                add_squares_4(sum[1], _mm256_extractf128_ps::<1>(x[0])),
                add_squares_4(sum[2], _mm256_castps256_ps128(x[1])),
                add_squares_4(sum[3], _mm256_extractf128_ps::<1>(x[1])),
            ]
        }
        fn sum_doubles(a: [__m256d; 4]) -> f64 {
            sum_doubles_4(_mm256_add_pd(_mm256_add_pd(a[0], a[2]), _mm256_add_pd(a[1], a[3])))
        }

        fn maximum(a: [__m256; 2]) -> f32 {
            {
                let eight = _mm256_max_ps(a[0], a[1]);
                let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
            }
        }
    }
}
