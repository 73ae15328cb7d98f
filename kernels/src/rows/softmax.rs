//! Softmax of one row.

use super::exponential::exp_lanes;
use crate::Kernels;
use crate::simd::{LANES, Simd};

impl Kernels {
    /// Replaces a row by its softmax, e^(xᵢ − max x) / Σⱼ e^(xⱼ − max x). NaN or +∞ anywhere makes the
    /// whole row NaN, as does −∞ everywhere; single −∞ become 0.
    #[cfg(feature = "train")]
    pub fn softmax_row(self, row: &mut [f32]) {
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.softmax_row)(row) }
    }
}

#[inline(always)]
pub(super) fn softmax_row<S: Simd>(s: S, row: &mut [f32]) {
    let (row, rest) = row.as_chunks_mut::<LANES>();
    let mut max = s.load_partial(rest, f32::NEG_INFINITY);
    for x in row.iter() {
        max = s.max(max, s.load(x));
    }
    let max = s.splat(s.maximum(max));

    let mut sum = s.zero();
    for x in row.iter_mut() {
        let power = exp_lanes(s, s.sub(s.load(x), max));
        s.store(power, x);
        sum = s.add(sum, power);
    }
    if !rest.is_empty() {
        // The lanes beyond the row are e^−∞ = 0.
        let power = exp_lanes(s, s.sub(s.load_partial(rest, f32::NEG_INFINITY), max));
        s.store_partial(power, rest);
        sum = s.add(sum, power);
    }

    let factor = s.splat(1.0 / s.sum(sum));
    for x in row.iter_mut() {
        s.store(s.mul(s.load(x), factor), x);
    }
    if !rest.is_empty() {
        s.store_partial(s.mul(s.load_partial(rest, 0.0), factor), rest);
    }
}
