//! Activations to int8, row by row: symmetric, dynamic, one scale per row.
//!
//!   scale = max|x| / 127,   q = round(x · (127 / max|x|)), ties to even
//!
//! The stored byte is q + 128, which is what the unsigned-by-signed dot product of VNNI wants. |q| ≤ 127
//! by construction, and |x − q·scale| is at most half a step.

use crate::Kernels;
use crate::gemm::{QuantizedRows, RowMut};
use crate::simd::{LANES, ROUNDER, Simd};

/// The byte of zero.
pub(super) const ZERO: u8 = 128;

impl Kernels {
    /// Quantizes the rows of `x`: `[.., k]` into `out`, from row `first` on.
    ///
    /// A row of zeros, or of nothing larger than 127 times the smallest normal number, becomes zeros with
    /// scale 1. A row with NaN or infinity becomes zeros with scale NaN, so that whatever is computed from
    /// it is NaN rather than quietly wrong.
    ///
    /// # Panics
    /// If `x` is not whole rows, or more than there is room for.
    pub fn quantize_rows(self, x: &[f32], out: &mut QuantizedRows, first: usize) {
        let k = out.k();
        if k == 0 {
            assert!(x.is_empty());
            (first..out.scale().len()).for_each(|row| *out.scale_mut(row) = 1.0);
            return;
        }
        assert!(x.len().is_multiple_of(k), "rows of {k} values, {} in all", x.len());
        for (row, x) in (first..).zip(x.chunks_exact(k)) {
            // SAFETY: `Kernels` exists only for instructions that this CPU has.
            *out.scale_mut(row) = unsafe { (self.0.rows.quantize_row)(x, out.row_mut(row)) };
        }
    }
}

/// The scale.
#[inline(always)]
pub(super) fn quantize_row<S: Simd>(s: S, x: &[f32], out: RowMut<'_>) -> f32 {
    quantize_row_by(s, x, &magnitudes(s, x), out)
}

/// [`quantize_row`] of values whose largest magnitudes are known, lane by lane.
#[inline(always)]
pub(super) fn quantize_row_by<S: Simd>(s: S, x: &[f32], largest: &[f32; LANES], mut out: RowMut<'_>) -> f32 {
    let (factor, scale) = scale_of(largest_of(largest));
    fill_row(s, x, factor, &mut out);
    scale
}

/// The bytes of a row, by the factor that makes integers of its values.
#[inline(always)]
pub(super) fn fill_row<S: Simd>(s: S, x: &[f32], factor: f32, out: &mut RowMut<'_>) {
    for (values, bytes) in out.parts() {
        // What follows the last value is multiplied by zeros.
        let count = values.len();
        to_bytes(s, &x[values], factor, &mut bytes[..count]);
    }
}

/// The largest of some magnitudes; NaN is above all.
fn largest_of(magnitudes: &[f32; LANES]) -> f32 {
    f32::from_bits(magnitudes.map(f32::to_bits).into_iter().max().unwrap_or(0))
}

/// The largest magnitude of some values, NaN if one is NaN.
#[inline(always)]
pub(super) fn largest_magnitude<S: Simd>(s: S, x: &[f32]) -> f32 {
    largest_of(&magnitudes(s, x))
}

/// What values are multiplied by to be quantized, and what takes them back.
fn scale_of(max: f32) -> (f32, f32) {
    match max {
        _ if !max.is_finite() => (0.0, f32::NAN),
        _ if max < 127.0 * f32::MIN_POSITIVE => (0.0, 1.0),
        _ => (127.0 / max, max / 127.0),
    }
}

/// A factor of 0 makes zeros, of NaN too. The sums of the integers, by lanes.
#[inline(always)]
pub(super) fn to_bytes<S: Simd>(s: S, x: &[f32], factor: f32, out: &mut [u8]) -> S::Floats {
    let mut sum = s.zero();
    if factor == 0.0 {
        out.fill(ZERO);
        return sum;
    }
    let factor = s.splat(factor);
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (out, out_rest) = out.as_chunks_mut::<LANES>();
    for (x, out) in x.iter().zip(out) {
        sum = s.add(sum, to_16_bytes(s, s.load(x), factor, out));
    }
    if !x_rest.is_empty() {
        let mut bytes = [0; LANES];
        sum = s.add(sum, to_16_bytes(s, s.load_partial(x_rest, 0.0), factor, &mut bytes));
        out_rest.copy_from_slice(&bytes[..out_rest.len()]);
    }
    sum
}

/// round(x·factor), integers of −127..=127: rounded on their own, so that ties go to the even one on every row of the
/// table. The low byte of the sum with the rounder is the integer.
#[inline(always)]
fn to_16_bytes<S: Simd>(s: S, x: S::Floats, factor: S::Floats, out: &mut [u8; LANES]) -> S::Floats {
    let rounded = s.fma(x, factor, s.splat(ROUNDER));
    s.store_low_bytes(s.xor(s.bits(rounded), s.splat_bits(u32::from(ZERO))), out);
    s.sub(rounded, s.splat(ROUNDER))
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
