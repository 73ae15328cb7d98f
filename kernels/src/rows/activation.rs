//! GELU, ReLU and tanh, forward and backward.
//!
//! GELU is the exact one of BERT, x·Φ(x) with Φ the normal distribution function (Hendrycks and Gimpel,
//! arXiv 1606.08415), not its tanh approximation. With a = |x|, the tail Φ(−a) = e^(−a²/2)·M(a), where
//! M is smooth and slowly falling (half the scaled complementary error function); M(a) = t·P(t) with
//! t = 1/(1 + a/4) and P of degree 8, to 4e-9. Then
//!
//!   gelu(x)  = max(x, 0) − a·Φ(−a)
//!   gelu'(x) = Φ(x) + x·φ(x),   φ(x) = e^(−x²/2) / √(2π)
//!
//! so nothing cancels, the sign is kept, and |gelu(x)| ≤ |x|. Absolute error below 2e-7·max(1, |x|).
//!
//! tanh is an odd polynomial up to 0.6 and 1 − 2/(e^(2a) + 1) beyond; within 3 ulp.

use super::exponential::{exp_lanes, polynomial};
use super::map::{Binary, Unary, binary, unary};
use crate::Kernels;
use crate::simd::Simd;

impl Kernels {
    /// `y[i] = gelu(x[i])`, exact-erf GELU; absolute error below 2e-7·max(1, |x|). NaN stays NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gelu_forward(self, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.gelu_forward)(x, y) }
    }

    /// `dx[i] = dy[i]·gelu'(x[i])`, where `x` is the input of the forward.
    ///
    /// # Panics
    /// If the lengths differ.
    #[cfg(feature = "train")]
    pub fn gelu_backward(self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        assert!(x.len() == dy.len() && x.len() == dx.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.gelu_backward)(x, dy, dx) }
    }

    /// `y[i] = max(x[i], 0)`; NaN stays NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn relu_forward(self, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.relu_forward)(x, y) }
    }

    /// `dx[i] = y[i] > 0 ? dy[i] : 0`, where `y` is the output of the forward.
    ///
    /// # Panics
    /// If the lengths differ.
    #[cfg(feature = "train")]
    pub fn relu_backward(self, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        assert!(y.len() == dy.len() && y.len() == dx.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.relu_backward)(y, dy, dx) }
    }

    /// `y[i] = tanh(x[i])`, within 3 ulp. NaN stays NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn tanh_forward(self, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.tanh_forward)(x, y) }
    }

    /// `dx[i] = dy[i]·(1 − y[i]²)`, where `y` is the output of the forward.
    ///
    /// # Panics
    /// If the lengths differ.
    #[cfg(feature = "train")]
    pub fn tanh_backward(self, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        assert!(y.len() == dy.len() && y.len() == dx.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.tanh_backward)(y, dy, dx) }
    }
}

/// P of the module's formula, highest power first.
const TAIL: [f32; 9] = [
    0.034_589_35,
    -0.198_071_17,
    0.395_037_75,
    -0.326_491_9,
    0.291_610_74,
    -0.008_803_681,
    0.115_546_21,
    0.096_660_89,
    0.099_921_79,
];
/// e^(−a²/2) is 0 in `f32` from here on; the clamp keeps infinity from giving ∞·0.
const TAIL_END: f32 = 15.0;
/// 1/√(2π).
const DENSITY_AT_0: f32 = 0.398_942_3;

/// (min(|x|, 15), e^(−x²/2), Φ(−|x|)).
#[inline(always)]
fn normal_tail<S: Simd>(s: S, x: S::Floats) -> (S::Floats, S::Floats, S::Floats) {
    let a = s.min(s.splat(TAIL_END), s.abs(x));
    let power = exp_lanes(s, s.mul(s.mul(a, a), s.splat(-0.5)));
    let one = s.splat(1.0);
    let t = s.div(one, s.fma(a, s.splat(0.25), one));
    (a, power, s.mul(power, s.mul(t, polynomial(s, &TAIL, t))))
}

/// max(x, 0), NaN for NaN.
#[inline(always)]
fn relu<S: Simd>(s: S, x: S::Floats) -> S::Floats {
    s.max(s.zero(), x)
}

#[derive(Clone, Copy)]
struct Gelu;

impl<S: Simd> Unary<S> for Gelu {
    #[inline(always)]
    fn apply(self, s: S, x: S::Floats) -> S::Floats {
        let (a, _, tail) = normal_tail(s, x);
        s.sub(relu(s, x), s.mul(a, tail))
    }
}

#[derive(Clone, Copy)]
struct GeluBackward;

impl<S: Simd> Binary<S> for GeluBackward {
    #[inline(always)]
    fn apply(self, s: S, x: S::Floats, dy: S::Floats) -> S::Floats {
        let (a, power, tail) = normal_tail(s, x);
        // For x ≥ 0: 1 − (Φ(−a) − a·φ(a)); for x < 0: Φ(−a) − a·φ(a).
        let density = s.mul(power, s.splat(DENSITY_AT_0));
        let negative = s.sub(tail, s.mul(a, density));
        let slope = s.select(s.less(x, s.zero()), negative, s.sub(s.splat(1.0), negative));
        s.mul(dy, slope)
    }
}

#[derive(Clone, Copy)]
struct Relu;

impl<S: Simd> Unary<S> for Relu {
    #[inline(always)]
    fn apply(self, s: S, x: S::Floats) -> S::Floats {
        relu(s, x)
    }
}

#[derive(Clone, Copy)]
struct ReluBackward;

impl<S: Simd> Binary<S> for ReluBackward {
    #[inline(always)]
    fn apply(self, s: S, y: S::Floats, dy: S::Floats) -> S::Floats {
        s.select(s.less(s.zero(), y), dy, s.zero())
    }
}

/// (tanh(a)/a − 1)/a² in a², highest power first; near-minimax up to a = 0.6, error 3e-8.
const TANH: [f32; 5] = [-0.006_269_119_7, 0.021_110_96, -0.053_873_95, 0.133_329_15, -0.333_333_3];
const TANH_POLYNOMIAL_END: f32 = 0.6;

#[derive(Clone, Copy)]
struct Tanh;

impl<S: Simd> Unary<S> for Tanh {
    #[inline(always)]
    fn apply(self, s: S, x: S::Floats) -> S::Floats {
        let (zero, one, two) = (s.zero(), s.splat(1.0), s.splat(2.0));
        let a = s.abs(x);
        let square = s.mul(x, x);
        let near = s.fma(s.mul(x, square), polynomial(s, &TANH, square), x);
        let far = s.sub(one, s.div(two, s.add(exp_lanes(s, s.mul(a, two)), one)));
        let far = s.select(s.less(x, zero), s.sub(zero, far), far);
        s.select(s.less(a, s.splat(TANH_POLYNOMIAL_END)), near, far)
    }
}

#[derive(Clone, Copy)]
struct TanhBackward;

impl<S: Simd> Binary<S> for TanhBackward {
    #[inline(always)]
    fn apply(self, s: S, y: S::Floats, dy: S::Floats) -> S::Floats {
        s.mul(dy, s.mul(s.sub(s.splat(1.0), y), s.add(s.splat(1.0), y)))
    }
}

#[inline(always)]
pub(super) fn gelu_forward<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    unary(s, Gelu, x, y);
}

#[inline(always)]
pub(super) fn gelu_backward<S: Simd>(s: S, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    binary(s, GeluBackward, x, dy, dx);
}

#[inline(always)]
pub(super) fn relu_forward<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    unary(s, Relu, x, y);
}

#[inline(always)]
pub(super) fn relu_backward<S: Simd>(s: S, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    binary(s, ReluBackward, y, dy, dx);
}

#[inline(always)]
pub(super) fn tanh_forward<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    unary(s, Tanh, x, y);
}

#[inline(always)]
pub(super) fn tanh_backward<S: Simd>(s: S, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    binary(s, TanhBackward, y, dy, dx);
}
