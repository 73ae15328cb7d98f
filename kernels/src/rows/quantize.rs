//! Activations to int8, row by row: symmetric, dynamic, one scale per row.
//!
//!   scale = max|x| / 127,   q = round(x · (127 / max|x|)), ties to even
//!
//! The stored byte is q + 128, which is what the unsigned-by-signed dot product of VNNI wants. |q| ≤ 127
//! by construction, and |x − q·scale| is at most half a step.

use crate::Kernels;
use crate::simd::{LANES, ROUNDER, Simd};

/// The length of a quantized row of `k` values: padded, for the GEMM, to a multiple of 4.
pub const fn quantized_stride(k: usize) -> usize {
    k.next_multiple_of(4)
}

/// The byte of zero.
pub(crate) const ZERO: u8 = 128;

impl Kernels {
    /// Quantizes the rows of `x`: `[rows, k]` into `out`: rows of [`quantized_stride`]`(k)` and `scales`: `[rows]`.
    /// The bytes are biased by 128, and so are those of the padding.
    ///
    /// A row of zeros, or of nothing larger than 127 times the smallest normal number, becomes zeros with
    /// scale 1. A row with NaN or infinity becomes zeros with scale NaN, so that whatever is computed from
    /// it is NaN rather than quietly wrong.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn quantize_rows(self, x: &[f32], k: usize, out: &mut [u8], scales: &mut [f32]) {
        let stride = quantized_stride(k);
        assert!(x.len() == scales.len() * k && out.len() == scales.len() * stride);
        if k == 0 {
            scales.fill(1.0);
            return;
        }
        for ((x, out), scale) in x.chunks_exact(k).zip(out.chunks_exact_mut(stride)).zip(scales) {
            let (out, padding) = out.split_at_mut(k);
            padding.fill(ZERO);
            // SAFETY: `Kernels` exists only for instructions that this CPU has.
            *scale = unsafe { (self.0.rows.quantize_row)(x, out) };
        }
    }
}

/// The scale.
#[inline(always)]
pub(super) fn quantize_row<S: Simd>(s: S, x: &[f32], out: &mut [u8]) -> f32 {
    quantize_row_by(s, x, &magnitudes(s, x), out)
}

/// [`quantize_row`] of values whose largest magnitudes are known, lane by lane.
#[inline(always)]
pub(super) fn quantize_row_by<S: Simd>(s: S, x: &[f32], largest: &[f32; LANES], out: &mut [u8]) -> f32 {
    let max = f32::from_bits(largest.map(f32::to_bits).into_iter().max().unwrap_or(0));
    if !max.is_finite() || max < 127.0 * f32::MIN_POSITIVE {
        out.fill(ZERO);
        return if max.is_finite() { 1.0 } else { f32::NAN };
    }
    let factor = s.splat(127.0 / max);
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (out, out_rest) = out.as_chunks_mut::<LANES>();
    for (x, out) in x.iter().zip(out) {
        s.store_u8(to_biased(s, s.load(x), factor), out);
    }
    if !x_rest.is_empty() {
        let mut bytes = [0; LANES];
        s.store_u8(to_biased(s, s.load_partial(x_rest, 0.0), factor), &mut bytes);
        out_rest.copy_from_slice(&bytes[..out_rest.len()]);
    }
    max / 127.0
}

/// round(x·factor) + 128, an integer of 1..=255.
#[inline(always)]
fn to_biased<S: Simd>(s: S, x: S::Floats, factor: S::Floats) -> S::Floats {
    // Rounded on its own first, so that ties go to the even q on every row of the table.
    let q = s.sub(s.fma(x, factor, s.splat(ROUNDER)), s.splat(ROUNDER));
    s.add(q, s.splat(f32::from(ZERO)))
}

/// max|x| by lanes, infinite or NaN if anything in `x` is: magnitudes compare as integers, where NaN is above all.
#[inline(always)]
fn magnitudes<S: Simd>(s: S, x: &[f32]) -> [f32; LANES] {
    let (x, rest) = x.as_chunks::<LANES>();
    let (pairs, last) = x.as_chunks::<2>();
    let mut max = [s.abs(s.load_partial(rest, 0.0)), s.zero()];
    for pair in pairs {
        for (max, x) in max.iter_mut().zip(pair) {
            *max = larger_magnitude(s, *max, s.load(x));
        }
    }
    for x in last {
        max[0] = larger_magnitude(s, max[0], s.load(x));
    }
    let mut lanes = [0.0; LANES];
    s.store(larger_magnitude(s, max[0], max[1]), &mut lanes);
    lanes
}

/// The larger of two magnitudes, by lanes; NaN is above all.
#[inline(always)]
pub(super) fn larger_magnitude<S: Simd>(s: S, max: S::Floats, x: S::Floats) -> S::Floats {
    let x = s.abs(x);
    s.select(s.less_bits(s.bits(max), s.bits(x)), x, max)
}
