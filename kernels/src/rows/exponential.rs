//! e^x, the one function that softmax, attention, GELU and tanh all stand on.
//!
//! Cody and Waite's reduction: x = n·ln 2 + r with |r| ≤ ½ ln 2, so e^x = 2ⁿ·e^r; e^r is 1 + r + r²·q(r)
//! with q of degree 4, near-minimax (Chebyshev interpolation at 40 digits, error 0.13 ulp). Measured over
//! all of [−104, 89]: within 1.1 ulp (the tests assert 2). Overflow gives infinity, underflow
//! passes through the denormals to exactly 0 below −104, NaN stays NaN.

use super::map::{Unary, unary};
use crate::Kernels;
use crate::simd::{ROUNDER, Simd};

impl Kernels {
    /// `y[i] = e^x[i]`, within 2 ulp.
    ///
    /// # Panics
    /// If the lengths differ.
    #[cfg(feature = "train")]
    pub fn exp(self, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.exp)(x, y) }
    }
}

/// Above it e^x is infinite, below −104 it is 0, in `f32`.
const OVERFLOW: f32 = 89.0;
const UNDERFLOW: f32 = -104.0;
/// ln 2 in two parts; the first has so few bits that n·LN_2_HIGH is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// (e^r − 1 − r) / r², highest power first.
const Q: [f32; 5] = [0.001_392_625_1, 0.008_363_233, 0.041_666_554, 0.166_665_77, 0.5];

/// e^x in every lane.
#[inline(always)]
pub(super) fn exp_lanes<S: Simd>(s: S, x: S::Floats) -> S::Floats {
    // The constants stand first, so that NaN passes both.
    let x = s.min(s.splat(OVERFLOW), s.max(s.splat(UNDERFLOW), x));
    let rounder = s.splat(ROUNDER);
    let n_and_rounder = s.fma(x, s.splat(std::f32::consts::LOG2_E), rounder);
    let minus_n = s.sub(rounder, n_and_rounder);
    let r = s.fma(minus_n, s.splat(LN_2_HIGH), x);
    let r = s.fma(minus_n, s.splat(LN_2_LOW), r);
    let q = polynomial(s, &Q, r);
    let power = s.add(s.fma(s.mul(r, r), q, r), s.splat(1.0));
    s.scale_by_power(power, n_and_rounder)
}

/// 254·2^f for |f| ≤ ½, highest power first: minimax, to 2.6e-6 of it.
const BYTE: [f32; 5] = [2.430_806, 14.203_136, 61.022_85, 176.052_95, 253.999_82];
/// 254·2^x rounds to 0 from here on.
const BYTE_END: f32 = -16.0;

/// round(254·2^x) + [`ROUNDER`] for x ≤ 0, NaN for NaN: 2^x as good as a byte can hold, within 1e-3 of the integer's step.
#[inline(always)]
pub(super) fn round_254_exp2<S: Simd>(s: S, x: S::Floats) -> S::Floats {
    let rounder = s.splat(ROUNDER);
    let x = s.max(s.splat(BYTE_END), x);
    let n_and_rounder = s.add(x, rounder);
    let fraction = s.sub(x, s.sub(n_and_rounder, rounder));
    let power = s.floats(s.shift_left::<23>(s.add_bits(s.bits(n_and_rounder), s.splat_bits(127))));
    s.fma(polynomial(s, &BYTE, fraction), power, rounder)
}

/// Horner's rule, highest power first.
#[inline(always)]
pub(super) fn polynomial<S: Simd, const N: usize>(s: S, coefficients: &[f32; N], x: S::Floats) -> S::Floats {
    let mut y = s.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        y = s.fma(y, x, s.splat(c));
    }
    y
}

#[derive(Clone, Copy)]
struct Exp;

impl<S: Simd> Unary<S> for Exp {
    #[inline(always)]
    fn apply(self, s: S, x: S::Floats) -> S::Floats {
        exp_lanes(s, x)
    }
}

#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    unary(s, Exp, x, y);
}
