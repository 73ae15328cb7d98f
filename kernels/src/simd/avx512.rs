//! Sixteen lanes in one `zmm` register.

use std::arch::x86_64::*;

use super::avx2::{sum_doubles_4, sum_floats_8};
use super::{LANES, ROUNDER, Simd};
use crate::isa::avx512;

/// Proof that the features of [`Isa::Avx512`](crate::Isa::Avx512) may be used.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

avx512! {
    /// The proof, for functions that are themselves compiled for AVX-512.
    #[inline]
    pub(crate) fn token() -> Avx512 {
        Avx512(())
    }
}

/// Methods whose whole body is an expression over intrinsics.
macro_rules! intrinsics {
    ($(fn $name:ident $(<const $by:ident: u32>)? ($($arg:ident: $type:ty),*) -> $out:ty { $body:expr })*) => {
        $(
            #[inline(always)]
            fn $name $(<const $by: u32>)? (self, $($arg: $type),*) -> $out {
                // SAFETY: an `Avx512` exists only where these instructions may run; memory is reached
                // through references of exactly the width that is read or written.
                unsafe { $body }
            }
        )*
    };
}

/// Lanes below `len`.
#[inline(always)]
fn first(len: usize) -> __mmask16 {
    assert!(len <= LANES);
    ((1u32 << len) - 1) as __mmask16
}

impl Simd for Avx512 {
    const ONE_REGISTER: bool = true;

    type Floats = __m512;
    type Bits = __m512i;
    type Doubles = [__m512d; 2];
    type Mask = __mmask16;

    intrinsics! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn load(from: &[f32; LANES]) -> __m512 { _mm512_loadu_ps(from.as_ptr()) }
        fn store(x: __m512, to: &mut [f32; LANES]) -> () { _mm512_storeu_ps(to.as_mut_ptr(), x) }
        fn prefetch(at: *const f32) -> () { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        fn load_four(from: &[f32; 4]) -> __m512 { _mm512_broadcast_f32x4(_mm_loadu_ps(from.as_ptr())) }
        // Lanes outside the mask are neither read nor written.
        fn load_partial(from: &[f32], fill: f32) -> __m512 {
            _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(from.len()), from.as_ptr())
        }
        fn store_partial(x: __m512, to: &mut [f32]) -> () {
            _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), x)
        }

        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn sqrt(a: __m512) -> __m512 { _mm512_sqrt_ps(a) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn less(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
        fn select(mask: __mmask16, yes: __m512, no: __m512) -> __m512 { _mm512_mask_blend_ps(mask, no, yes) }
        fn interleave(a: __m512, b: __m512) -> (__m512, __m512) {
            (
                _mm512_permutex2var_ps(
                    a,
                    _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                    b,
                ),
                _mm512_permutex2var_ps(
                    a,
                    _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31),
                    b,
                ),
            )
        }
        fn sum(a: __m512) -> f32 {
            sum_floats_8(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)))
        }

        fn bits(a: __m512) -> __m512i { _mm512_castps_si512(a) }
        fn floats(a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        fn splat_bits(x: u32) -> __m512i { _mm512_set1_epi32(x.cast_signed()) }
        fn load_bits(from: &[u32; LANES]) -> __m512i { _mm512_loadu_si512(from.as_ptr().cast()) }
        fn add_bits(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn sub_bits(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn mul_bits(a: __m512i, b: __m512i) -> __m512i { _mm512_mullo_epi32(a, b) }
        fn and(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn xor(a: __m512i, b: __m512i) -> __m512i { _mm512_xor_si512(a, b) }
        fn shift_left<const BY: u32>(a: __m512i) -> __m512i { _mm512_slli_epi32::<BY>(a) }
        fn shift_right<const BY: u32>(a: __m512i) -> __m512i { _mm512_srli_epi32::<BY>(a) }
        fn less_bits(a: __m512i, b: __m512i) -> __mmask16 { _mm512_cmplt_epi32_mask(a, b) }

        fn load_i8(from: &[i8; LANES]) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())))
        }
        fn load_i32(from: &[i32; LANES]) -> __m512 { _mm512_cvtepi32_ps(_mm512_loadu_si512(from.as_ptr().cast())) }
        fn store_words(x: __m512i, to: &mut [i8; 4 * LANES]) -> () { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
        fn store_low_bytes(x: __m512i, to: &mut [u8; LANES]) -> () {
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(x))
        }

        fn zero_doubles() -> [__m512d; 2] { [_mm512_setzero_pd(); 2] }
        fn add_squares(sum: [__m512d; 2], x: __m512) -> [__m512d; 2] {
            {
                let low = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
                let high = _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(x));
                [_mm512_fmadd_pd(low, low, sum[0]), _mm512_fmadd_pd(high, high, sum[1])]
            }
        }
        fn sum_doubles(a: [__m512d; 2]) -> f64 {
            {
                let eight = _mm512_add_pd(a[0], a[1]);
                sum_doubles_4(_mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd::<1>(eight)))
            }
        }

        fn maximum(a: __m512) -> f32 { _mm512_reduce_max_ps(a) }
        fn scale_by_power(x: __m512, n_and_rounder: __m512) -> __m512 {
            _mm512_scalef_ps(x, _mm512_sub_ps(n_and_rounder, _mm512_set1_ps(ROUNDER)))
        }
    }
}
