//! Sixteen lanes in plain Rust: the row of every CPU.
//!
//! Operations are calls. Inlined, a chain of them is sixteen chains of single floats side by side, which no compiler
//! gathers into vectors again: a fifth of an inference binary.

use super::{LANES, Simd};

/// Needs nothing, so anyone may make one.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn zip<T: Copy, U: Copy + Default>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> U) -> [U; LANES] {
    let mut out = [U::default(); LANES];
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = f(a, b);
    }
    out
}

impl Simd for Scalar {
    const ONE_REGISTER: bool = false;

    type Floats = [f32; LANES];
    type Bits = [u32; LANES];
    type Doubles = [f64; LANES];
    type Mask = [bool; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> [f32; LANES] {
        *from
    }
    #[inline(always)]
    fn store(self, x: [f32; LANES], to: &mut [f32; LANES]) {
        *to = x;
    }
    #[inline(never)]
    fn transpose(self, rows: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
        std::array::from_fn(|i| rows.map(|row| row[i]))
    }
    #[inline(never)]
    fn load_partial(self, from: &[f32], fill: f32) -> [f32; LANES] {
        let mut out = [fill; LANES];
        out[..from.len()].copy_from_slice(from);
        out
    }
    #[inline(never)]
    fn store_partial(self, x: [f32; LANES], to: &mut [f32]) {
        to.copy_from_slice(&x[..to.len()]);
    }

    #[inline(never)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(never)]
    fn sub(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(never)]
    fn mul(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(never)]
    fn div(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a / b)
    }
    #[inline(never)]
    fn fma(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(never)]
    fn sqrt(self, a: [f32; LANES]) -> [f32; LANES] {
        a.map(f32::sqrt)
    }
    #[inline(never)]
    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(never)]
    fn min(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(never)]
    fn less(self, a: [f32; LANES], b: [f32; LANES]) -> [bool; LANES] {
        zip(a, b, |a, b| a < b)
    }
    #[inline(never)]
    fn select(self, mask: [bool; LANES], yes: [f32; LANES], no: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| if mask[i] { yes[i] } else { no[i] })
    }
    #[inline(never)]
    fn interleave(self, a: [f32; LANES], b: [f32; LANES]) -> ([f32; LANES], [f32; LANES]) {
        let pick = |i: usize| if i.is_multiple_of(2) { a[i / 2] } else { b[i / 2] };
        (std::array::from_fn(pick), std::array::from_fn(|i| pick(i + LANES)))
    }
    #[inline(never)]
    fn sum(self, mut a: [f32; LANES]) -> f32 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                a[i] += a[i + half];
            }
        }
        a[0]
    }

    #[inline(always)]
    fn bits(self, a: [f32; LANES]) -> [u32; LANES] {
        a.map(f32::to_bits)
    }
    #[inline(always)]
    fn floats(self, a: [u32; LANES]) -> [f32; LANES] {
        a.map(f32::from_bits)
    }
    #[inline(always)]
    fn splat_bits(self, x: u32) -> [u32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    fn load_bits(self, from: &[u32; LANES]) -> [u32; LANES] {
        *from
    }
    #[inline(never)]
    fn add_bits(self, a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        zip(a, b, u32::wrapping_add)
    }
    #[inline(never)]
    fn sub_bits(self, a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        zip(a, b, u32::wrapping_sub)
    }
    #[inline(never)]
    fn mul_bits(self, a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        zip(a, b, u32::wrapping_mul)
    }
    #[inline(never)]
    fn and(self, a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        zip(a, b, |a, b| a & b)
    }
    #[inline(never)]
    fn xor(self, a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        zip(a, b, |a, b| a ^ b)
    }
    #[inline(never)]
    fn shift_left<const BY: u32>(self, a: [u32; LANES]) -> [u32; LANES] {
        a.map(|a| a << BY)
    }
    #[inline(never)]
    fn shift_right<const BY: u32>(self, a: [u32; LANES]) -> [u32; LANES] {
        a.map(|a| a >> BY)
    }
    #[inline(never)]
    fn less_bits(self, a: [u32; LANES], b: [u32; LANES]) -> [bool; LANES] {
        zip(a, b, |a, b| a.cast_signed() < b.cast_signed())
    }

    #[inline(never)]
    fn load_i8(self, from: &[i8; LANES]) -> [f32; LANES] {
        from.map(f32::from)
    }
    #[inline(never)]
    fn load_i32(self, from: &[i32; LANES]) -> [f32; LANES] {
        from.map(|x| x as f32)
    }
    #[inline(never)]
    fn store_words(self, x: [u32; LANES], to: &mut [i8; 4 * LANES]) {
        for (to, x) in to.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            *to = x.to_le_bytes().map(u8::cast_signed);
        }
    }
    #[inline(never)]
    fn store_low_bytes(self, x: [u32; LANES], to: &mut [u8; LANES]) {
        *to = x.map(|x| x as u8);
    }

    #[inline(always)]
    fn zero_doubles(self) -> [f64; LANES] {
        [0.0; LANES]
    }
    #[inline(never)]
    fn add_squares(self, sum: [f64; LANES], x: [f32; LANES]) -> [f64; LANES] {
        std::array::from_fn(|i| f64::from(x[i]) * f64::from(x[i]) + sum[i])
    }
    #[inline(never)]
    fn sum_doubles(self, mut a: [f64; LANES]) -> f64 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                a[i] += a[i + half];
            }
        }
        a[0]
    }
}
