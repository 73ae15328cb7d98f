//! From the sums of an int8 product to floats, and through GELU, while the sums are in the first-level cache.
//!
//! GELU here ends in a byte, a step of which is 1/127 of a row's largest value, so it is a cheaper one than that of
//! training: x·(½ + c·P(2·c²/4.6² − 1)) with c = x held within ±4.6, where Φ is ½ ± c·P to f32's last bit. P is our own, of
//! degree 9, fitted to x·Φ(x) by reweighted least squares on the interval. Error below 1.2e-5.

use super::exponential::polynomial;
use super::quantize::larger_magnitude;
use crate::gemm::{PANEL, Scales};
use crate::simd::{LANES, Simd};

/// P, highest power first.
const NORMAL: [f32; 10] = [
    -0.001_841_198_5,
    0.005_619_337_3,
    -0.007_849_57,
    0.010_949_112,
    -0.019_019_246,
    0.029_528_005,
    -0.040_615_335,
    0.054_136_877,
    -0.075_755_77,
    0.153_543_45,
];
/// Beyond it Φ is 0 or 1.
const NORMAL_END: f32 = 4.6;

/// `c[i][j] = fma(sums[i][j], a[i]·b[j], bias[j])` for the columns that `scales` has.
#[inline(always)]
pub(super) fn dequantize<S: Simd>(
    s: S,
    sums: &[[i32; 2 * PANEL]],
    scales: Scales<'_>,
    c: &mut [f32],
    c_stride: usize,
) {
    let columns = scales.b.len();
    for (i, (sums, a)) in sums.iter().zip(scales.a).enumerate() {
        let (a, c) = (s.splat(*a), &mut c[i * c_stride..][..columns]);
        for (half, (sums, c)) in sums.as_chunks().0.iter().zip(c.chunks_mut(LANES)).enumerate() {
            let (b, bias) = columns_of(scales, half);
            let x = s.fma(s.load_i32(sums), s.mul(a, load(s, b)), load(s, bias));
            store(s, x, c);
        }
    }
}

/// GELU of what [`dequantize`] gives; `largest[i]` becomes the largest magnitudes of row i, lane by lane.
#[inline(always)]
pub(super) fn dequantize_gelu<S: Simd>(
    s: S,
    sums: &[[i32; 2 * PANEL]],
    scales: Scales<'_>,
    c: &mut [f32],
    c_stride: usize,
    largest: &mut [[f32; PANEL]],
) {
    let columns = scales.b.len();
    for (i, (sums, a)) in sums.iter().zip(scales.a).enumerate() {
        let (a, c) = (s.splat(*a), &mut c[i * c_stride..][..columns]);
        let mut max = s.load(&largest[i]);
        for (half, (sums, c)) in sums.as_chunks().0.iter().zip(c.chunks_mut(LANES)).enumerate() {
            let (b, bias) = columns_of(scales, half);
            let x = s.fma(s.load_i32(sums), s.mul(a, load(s, b)), load(s, bias));
            let y = gelu(s, x);
            // Lanes beyond the last column have no scale and no bias: they are 0.
            max = larger_magnitude(s, max, y);
            store(s, y, c);
        }
        s.store(max, &mut largest[i]);
    }
}

/// Scales and biases of one panel.
#[inline(always)]
fn columns_of<'a>(scales: Scales<'a>, half: usize) -> (&'a [f32], &'a [f32]) {
    let end = scales.b.len().min((half + 1) * LANES);
    (&scales.b[half * LANES..end], &scales.bias[half * LANES..end])
}

#[inline(always)]
fn load<S: Simd>(s: S, from: &[f32]) -> S::Floats {
    match from.try_into() {
        Ok(from) => s.load(from),
        Err(_) => s.load_partial(from, 0.0),
    }
}

#[inline(always)]
fn store<S: Simd>(s: S, x: S::Floats, to: &mut [f32]) {
    match to.try_into() {
        Ok(to) => s.store(x, to),
        Err(_) => s.store_partial(x, to),
    }
}

#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::Floats) -> S::Floats {
    // The constants stand first, so that NaN passes both.
    let held = s.min(s.splat(NORMAL_END), s.max(s.splat(-NORMAL_END), x));
    let middle = s.fma(s.mul(held, held), s.splat(2.0 / (NORMAL_END * NORMAL_END)), s.splat(-1.0));
    let p = polynomial(s, &NORMAL, middle);
    s.mul(x, s.fma(held, p, s.splat(0.5)))
}
