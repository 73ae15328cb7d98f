//! Walking slices sixteen lanes at a time, the rest in one partial vector.
//!
//! The step is a type rather than a closure: a closure would be compiled without the instruction set.

use crate::simd::{LANES, Simd};

/// y = f(x), lane by lane.
pub(super) trait Unary<S: Simd>: Copy {
    fn apply(self, s: S, x: S::Floats) -> S::Floats;
}

/// z = f(x, y), lane by lane.
pub(super) trait Binary<S: Simd>: Copy {
    fn apply(self, s: S, x: S::Floats, y: S::Floats) -> S::Floats;
}

/// `y[i] = f(x[i])`.
#[inline(always)]
pub(super) fn unary<S: Simd>(s: S, f: impl Unary<S>, x: &[f32], y: &mut [f32]) {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks_mut::<LANES>();
    for (x, y) in x.iter().zip(y) {
        s.store(f.apply(s, s.load(x)), y);
    }
    if !x_rest.is_empty() {
        s.store_partial(f.apply(s, s.load_partial(x_rest, 0.0)), y_rest);
    }
}

/// `x[i] = f(x[i])`.
#[inline(always)]
pub(super) fn unary_in_place<S: Simd>(s: S, f: impl Unary<S>, x: &mut [f32]) {
    let (x, rest) = x.as_chunks_mut::<LANES>();
    for x in x {
        s.store(f.apply(s, s.load(x)), x);
    }
    if !rest.is_empty() {
        s.store_partial(f.apply(s, s.load_partial(rest, 0.0)), rest);
    }
}

/// `z[i] = f(x[i], y[i])`.
#[inline(always)]
pub(super) fn binary<S: Simd>(s: S, f: impl Binary<S>, x: &[f32], y: &[f32], z: &mut [f32]) {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    let (z, z_rest) = z.as_chunks_mut::<LANES>();
    for ((x, y), z) in x.iter().zip(y).zip(z) {
        s.store(f.apply(s, s.load(x), s.load(y)), z);
    }
    if !x_rest.is_empty() {
        let (x, y) = (s.load_partial(x_rest, 0.0), s.load_partial(y_rest, 0.0));
        s.store_partial(f.apply(s, x, y), z_rest);
    }
}

/// `y[i] = f(x[i], y[i])`.
#[inline(always)]
pub(super) fn binary_in_place<S: Simd>(s: S, f: impl Binary<S>, x: &[f32], y: &mut [f32]) {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks_mut::<LANES>();
    for (x, y) in x.iter().zip(y) {
        s.store(f.apply(s, s.load(x), s.load(y)), y);
    }
    if !x_rest.is_empty() {
        let (x, y) = (s.load_partial(x_rest, 0.0), s.load_partial(y_rest, 0.0));
        s.store_partial(f.apply(s, x, y), y_rest);
    }
}
