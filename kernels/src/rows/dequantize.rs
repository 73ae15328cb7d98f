//! From the sums of an int8 product to floats, and through GELU, while the sums are in the first-level cache.
//!
//! GELU here ends in a byte, a step of which is 1/127 of a row's largest value, so it is a cheaper one than that of
//! training: x·(½ + c·P(2·c²/4.6² − 1)) with c = x held within ±4.6, where Φ is ½ ± c·P to f32's last bit. P is our own, of
//! degree 9, fitted to x·Φ(x) by reweighted least squares on the interval. Error below 1.2e-5, and beyond ±150 below 8e-8·|x|.

use super::exponential::polynomial;
use super::quantize::larger_magnitude;
use crate::gemm::{PANEL, Scales};
use crate::simd::{LANES, Simd, load_up_to_16};

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
    let columns = Columns::load(s, scales);
    for (i, (sums, a)) in sums.iter().zip(scales.a).enumerate() {
        let floats = columns.floats(s, sums, *a);
        columns.store(s, floats, &mut c[i * c_stride..]);
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
    let columns = Columns::load(s, scales);
    for (i, ((sums, a), largest)) in sums.iter().zip(scales.a).zip(largest).enumerate() {
        let [x0, x1] = columns.floats(s, sums, *a);
        let y = [gelu(s, x0), gelu(s, x1)];
        // Lanes beyond the last column have no scale and no bias: they are 0.
        let max = larger_magnitude(s, s.load(largest), y[0]);
        s.store(larger_magnitude(s, max, y[1]), largest);
        columns.store(s, y, &mut c[i * c_stride..]);
    }
}

/// What all rows of two panels share: scales and biases, zeros beyond the last column.
#[derive(Clone, Copy)]
struct Columns<S: Simd> {
    count: usize,
    scale: [S::Floats; 2],
    bias: [S::Floats; 2],
}

impl<S: Simd> Columns<S> {
    #[inline(always)]
    fn load(s: S, scales: Scales<'_>) -> Self {
        let count = scales.b.len();
        let (b0, b1) = scales.b.split_at(count.min(LANES));
        let (bias0, bias1) = scales.bias.split_at(count.min(LANES));
        let scale = [load_up_to_16(s, b0), load_up_to_16(s, b1)];
        Self { count, scale, bias: [load_up_to_16(s, bias0), load_up_to_16(s, bias1)] }
    }

    /// A row of sums, whose factor is `a`.
    #[inline(always)]
    fn floats(&self, s: S, sums: &[i32; 2 * PANEL], a: f32) -> [S::Floats; 2] {
        let (sums, a) = (sums.as_chunks().0, s.splat(a));
        [
            s.fma(s.load_i32(&sums[0]), s.mul(a, self.scale[0]), self.bias[0]),
            s.fma(s.load_i32(&sums[1]), s.mul(a, self.scale[1]), self.bias[1]),
        ]
    }

    /// As many of a row as there are columns.
    #[inline(always)]
    fn store(&self, s: S, row: [S::Floats; 2], to: &mut [f32]) {
        match to[..self.count].as_chunks_mut().0 {
            [first, second] => {
                s.store(row[0], first);
                s.store(row[1], second);
            }
            _ => {
                let (first, second) = to[..self.count].split_at_mut(self.count.min(LANES));
                s.store_partial(row[0], first);
                s.store_partial(row[1], second);
            }
        }
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
