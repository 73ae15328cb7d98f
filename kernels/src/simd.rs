//! Sixteen virtual lanes: what every row kernel is written in.
//!
//! One vector is one AVX-512 register, two AVX2 registers, four NEON registers, or an array. All sixteen-lane steps are
//! IEEE operations or sequences of them, the same on every instruction set; sums across lanes go
//! through one fixed tree. So a kernel written over [`Simd`] gives the same bits everywhere.
//!
//! A value of an implementing type is the proof that its instructions may be used: the only
//! constructors, `avx512::token`, `avx2::token` and `neon::token`, are themselves compiled for their
//! set and can be called without `unsafe` only by functions that are too.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;

/// Lanes of a virtual vector.
pub(crate) const LANES: usize = 16;

/// Adding and subtracting this rounds |x| < 2²² to the nearest integer, ties to even, and leaves that
/// integer in the low bits of the sum.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// Sixteen lanes of one instruction set. `lane i` below is element `i` of the slice that was loaded.
pub(crate) trait Simd: Copy {
    /// Whether sixteen lanes are one register, so that a register tile can hold more of them.
    const ONE_REGISTER: bool;

    /// Sixteen `f32`.
    type Floats: Copy;
    /// Sixteen `u32`.
    type Bits: Copy;
    /// Sixteen `f64`.
    type Doubles: Copy;
    /// Sixteen booleans.
    type Mask: Copy;

    fn splat(self, x: f32) -> Self::Floats;
    fn load(self, from: &[f32; LANES]) -> Self::Floats;
    fn store(self, x: Self::Floats, to: &mut [f32; LANES]);
    /// The first lanes from a slice of at most sixteen, the others `fill`.
    fn load_partial(self, from: &[f32], fill: f32) -> Self::Floats;
    /// The first lanes into a slice of at most sixteen.
    fn store_partial(self, x: Self::Floats, to: &mut [f32]);

    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// a·b + c, rounded once.
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    fn sqrt(self, a: Self::Floats) -> Self::Floats;
    /// a > b ? a : b, so `b` where either is NaN.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// a < b ? a : b, so `b` where either is NaN.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// a < b, false for NaN.
    fn less(self, a: Self::Floats, b: Self::Floats) -> Self::Mask;
    /// `mask ? yes : no`.
    fn select(self, mask: Self::Mask, yes: Self::Floats, no: Self::Floats) -> Self::Floats;
    /// Lanes (a0, b0, a1, b1, …) of the lower and of the upper halves.
    fn interleave(self, a: Self::Floats, b: Self::Floats) -> (Self::Floats, Self::Floats);
    /// (lane i + lane i+8), then +4, +2, +1.
    fn sum(self, a: Self::Floats) -> f32;

    fn bits(self, a: Self::Floats) -> Self::Bits;
    fn floats(self, a: Self::Bits) -> Self::Floats;
    fn splat_bits(self, x: u32) -> Self::Bits;
    fn load_bits(self, from: &[u32; LANES]) -> Self::Bits;
    fn add_bits(self, a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn sub_bits(self, a: Self::Bits, b: Self::Bits) -> Self::Bits;
    /// The low 32 bits of the product.
    fn mul_bits(self, a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn and(self, a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn xor(self, a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn shift_left<const BY: u32>(self, a: Self::Bits) -> Self::Bits;
    fn shift_right<const BY: u32>(self, a: Self::Bits) -> Self::Bits;
    /// a < b as signed integers.
    fn less_bits(self, a: Self::Bits, b: Self::Bits) -> Self::Mask;

    /// Sixteen signed bytes as floats.
    fn load_i8(self, from: &[i8; LANES]) -> Self::Floats;
    /// Sixteen integers as floats, rounded.
    fn load_i32(self, from: &[i32; LANES]) -> Self::Floats;
    /// Sixteen words, each of four bytes, the lowest first.
    fn store_words(self, x: Self::Bits, to: &mut [i8; 4 * LANES]);
    /// The lowest byte of each lane.
    fn store_low_bytes(self, x: Self::Bits, to: &mut [u8; LANES]);

    fn zero_doubles(self) -> Self::Doubles;
    /// sum + x², in double precision, where x² is exact.
    fn add_squares(self, sum: Self::Doubles, x: Self::Floats) -> Self::Doubles;
    /// Like [`Simd::sum`].
    fn sum_doubles(self, a: Self::Doubles) -> f64;

    /// Sixteen words, each of four bytes, the lowest first.
    #[inline(always)]
    fn load_words(self, from: &[u8; 4 * LANES]) -> Self::Bits {
        let mut words = [0; LANES];
        for (word, bytes) in words.iter_mut().zip(from.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        self.load_bits(&words)
    }
    /// Asks for a line of cache that will be read soon, if there is an instruction for it. Any address is right.
    #[inline(always)]
    fn prefetch(self, _: *const f32) {}

    /// Four values four times: lane i is value i mod 4.
    #[inline(always)]
    fn load_four(self, from: &[f32; 4]) -> Self::Floats {
        let [a, b, c, d] = *from;
        self.load(&[a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d])
    }

    /// `out[i][j] = rows[j][i]`: four rounds of interleaving rows eight apart.
    #[inline(always)]
    fn transpose(self, mut rows: [Self::Floats; LANES]) -> [Self::Floats; LANES] {
        for _ in 0..4 {
            let mut next = rows;
            for i in 0..LANES / 2 {
                (next[2 * i], next[2 * i + 1]) = self.interleave(rows[i], rows[i + LANES / 2]);
            }
            rows = next;
        }
        rows
    }

    #[inline(always)]
    fn zero(self) -> Self::Floats {
        self.splat(0.0)
    }

    #[inline(always)]
    fn abs(self, a: Self::Floats) -> Self::Floats {
        self.floats(self.and(self.bits(a), self.splat_bits(0x7fff_ffff)))
    }

    /// The largest lane; what NaN lanes give is not defined.
    #[inline(always)]
    fn maximum(self, a: Self::Floats) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(a, &mut lanes);
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] = if lanes[i + half] > lanes[i] { lanes[i + half] } else { lanes[i] };
            }
        }
        lanes[0]
    }

    /// x·2ⁿ for x in [½, 2] and integers −150 ≤ n ≤ 128, given n + [`ROUNDER`]; overflows to infinity
    /// and rounds once into the denormals. Two factors, since 2ⁿ alone may not be representable.
    #[inline(always)]
    fn scale_by_power(self, x: Self::Floats, n_and_rounder: Self::Floats) -> Self::Floats {
        // The rounder's own bits are shifted out below: only the integer's low bits remain.
        let n = self.bits(n_and_rounder);
        let half = self.shift_right::<1>(n);
        let rest = self.sub_bits(n, half);
        let bias = self.splat_bits(127);
        let first = self.floats(self.shift_left::<23>(self.add_bits(half, bias)));
        let second = self.floats(self.shift_left::<23>(self.add_bits(rest, bias)));
        self.mul(self.mul(x, first), second)
    }
}

/// The first sixteen values, or all and zeros.
#[inline(always)]
pub(crate) fn load_up_to_16<S: Simd>(s: S, from: &[f32]) -> S::Floats {
    match from.first_chunk() {
        Some(from) => s.load(from),
        None => s.load_partial(from, 0.0),
    }
}
