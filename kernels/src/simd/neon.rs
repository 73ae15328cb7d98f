//! Sixteen lanes in four 128-bit registers.

use std::arch::aarch64::*;

use super::{LANES, Simd};
use crate::isa::neon;

/// Proof that the features of [`Isa::Neon`](crate::Isa::Neon) may be used.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

neon! {
    /// The proof, for functions that are themselves compiled for NEON.
    #[inline]
    pub(crate) fn token() -> Neon {
        Neon(())
    }

    /// (lane i + lane i+2), then +1.
    #[inline]
    fn sum_floats_4(a: float32x4_t) -> f32 {
        vpadds_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a)))
    }

    /// Sixteen bytes to words of 32 bits, with their signs.
    #[inline]
    fn widen(bytes: int8x16_t) -> [int32x4_t; 4] {
        let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
        [
            vmovl_s16(vget_low_s16(low)),
            vmovl_high_s16(low),
            vmovl_s16(vget_low_s16(high)),
            vmovl_high_s16(high),
        ]
    }
}

/// Methods whose whole body is an expression over intrinsics. `each` ones do the same to all four registers.
macro_rules! intrinsics {
    ($(fn $name:ident $(<const $by:ident: u32>)? ($($arg:ident: $type:ty),*) -> $out:ty { $body:expr })*) => {
        $(
            #[inline(always)]
            fn $name $(<const $by: u32>)? (self, $($arg: $type),*) -> $out {
                // SAFETY: a `Neon` exists only where these instructions may run; memory is reached
                // through references of exactly the width that is read or written.
                unsafe { $body }
            }
        )*
    };
}

macro_rules! each {
    ($($name:ident $(<const $by:ident: u32>)? ($($arg:ident),+): $type:ty => $out:ty { $body:expr })*) => {
        intrinsics! {
            $(fn $name $(<const $by: u32>)? ($($arg: [$type; 4]),+) -> [$out; 4] {
                [
                    { $(let $arg = $arg[0];)+ $body },
                    { $(let $arg = $arg[1];)+ $body },
                    { $(let $arg = $arg[2];)+ $body },
                    { $(let $arg = $arg[3];)+ $body },
                ]
            })*
        }
    };
}

impl Simd for Neon {
    const ONE_REGISTER: bool = false;

    type Floats = [float32x4_t; 4];
    type Bits = [uint32x4_t; 4];
    type Doubles = [float64x2_t; 8];
    type Mask = [uint32x4_t; 4];

    each! {
        add(a, b): float32x4_t => float32x4_t { vaddq_f32(a, b) }
        sub(a, b): float32x4_t => float32x4_t { vsubq_f32(a, b) }
        mul(a, b): float32x4_t => float32x4_t { vmulq_f32(a, b) }
        div(a, b): float32x4_t => float32x4_t { vdivq_f32(a, b) }
        fma(a, b, c): float32x4_t => float32x4_t { vfmaq_f32(c, a, b) }
        sqrt(a): float32x4_t => float32x4_t { vsqrtq_f32(a) }
        // `fmax` and `fmin` would give NaN where either is, and order the zeros.
        max(a, b): float32x4_t => float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
        min(a, b): float32x4_t => float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
        less(a, b): float32x4_t => uint32x4_t { vcltq_f32(a, b) }

        bits(a): float32x4_t => uint32x4_t { vreinterpretq_u32_f32(a) }
        floats(a): uint32x4_t => float32x4_t { vreinterpretq_f32_u32(a) }
        add_bits(a, b): uint32x4_t => uint32x4_t { vaddq_u32(a, b) }
        sub_bits(a, b): uint32x4_t => uint32x4_t { vsubq_u32(a, b) }
        mul_bits(a, b): uint32x4_t => uint32x4_t { vmulq_u32(a, b) }
        and(a, b): uint32x4_t => uint32x4_t { vandq_u32(a, b) }
        xor(a, b): uint32x4_t => uint32x4_t { veorq_u32(a, b) }
        // Shifts by a count in a register: the immediate forms take an `i32` constant, not a `u32` one.
        shift_left<const BY: u32>(a): uint32x4_t => uint32x4_t { vshlq_u32(a, vdupq_n_s32(BY.cast_signed())) }
        shift_right<const BY: u32>(a): uint32x4_t => uint32x4_t { vshlq_u32(a, vdupq_n_s32(-BY.cast_signed())) }
        less_bits(a, b): uint32x4_t => uint32x4_t {
            vcltq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b))
        }
    }

    intrinsics! {
        fn splat(x: f32) -> [float32x4_t; 4] { [vdupq_n_f32(x); 4] }
        fn load(from: &[f32; LANES]) -> [float32x4_t; 4] {
            [
                vld1q_f32(from.as_ptr()),
                vld1q_f32(from[4..].as_ptr()),
                vld1q_f32(from[8..].as_ptr()),
                vld1q_f32(from[12..].as_ptr()),
            ]
        }
        fn store(x: [float32x4_t; 4], to: &mut [f32; LANES]) -> () {
            for (x, to) in x.into_iter().zip(to.as_chunks_mut::<4>().0) {
                vst1q_f32(to.as_mut_ptr(), x);
            }
        }
        fn select(mask: [uint32x4_t; 4], yes: [float32x4_t; 4], no: [float32x4_t; 4]) -> [float32x4_t; 4] {
            [
                vbslq_f32(mask[0], yes[0], no[0]),
                vbslq_f32(mask[1], yes[1], no[1]),
                vbslq_f32(mask[2], yes[2], no[2]),
                vbslq_f32(mask[3], yes[3], no[3]),
            ]
        }
        fn interleave(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> ([float32x4_t; 4], [float32x4_t; 4]) {
            (
                [vzip1q_f32(a[0], b[0]), vzip2q_f32(a[0], b[0]), vzip1q_f32(a[1], b[1]), vzip2q_f32(a[1], b[1])],
                [vzip1q_f32(a[2], b[2]), vzip2q_f32(a[2], b[2]), vzip1q_f32(a[3], b[3]), vzip2q_f32(a[3], b[3])],
            )
        }
        fn sum(a: [float32x4_t; 4]) -> f32 {
            sum_floats_4(vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3])))
        }

        fn splat_bits(x: u32) -> [uint32x4_t; 4] { [vdupq_n_u32(x); 4] }
        fn load_bits(from: &[u32; LANES]) -> [uint32x4_t; 4] {
            [
                vld1q_u32(from.as_ptr()),
                vld1q_u32(from[4..].as_ptr()),
                vld1q_u32(from[8..].as_ptr()),
                vld1q_u32(from[12..].as_ptr()),
            ]
        }

        fn load_i8(from: &[i8; LANES]) -> [float32x4_t; 4] {
            {
                let words = widen(vld1q_s8(from.as_ptr()));
                [
                    vcvtq_f32_s32(words[0]),
                    vcvtq_f32_s32(words[1]),
                    vcvtq_f32_s32(words[2]),
                    vcvtq_f32_s32(words[3]),
                ]
            }
        }
        fn load_i32(from: &[i32; LANES]) -> [float32x4_t; 4] {
            [
                vcvtq_f32_s32(vld1q_s32(from.as_ptr())),
                vcvtq_f32_s32(vld1q_s32(from[4..].as_ptr())),
                vcvtq_f32_s32(vld1q_s32(from[8..].as_ptr())),
                vcvtq_f32_s32(vld1q_s32(from[12..].as_ptr())),
            ]
        }
        fn store_words(x: [uint32x4_t; 4], to: &mut [i8; 4 * LANES]) -> () {
            for (x, to) in x.into_iter().zip(to.as_chunks_mut::<16>().0) {
                vst1q_s8(to.as_mut_ptr(), vreinterpretq_s8_u32(x));
            }
        }
        fn store_low_bytes(x: [uint32x4_t; 4], to: &mut [u8; LANES]) -> () {
            {
                let low = vcombine_u16(vmovn_u32(x[0]), vmovn_u32(x[1]));
                let high = vcombine_u16(vmovn_u32(x[2]), vmovn_u32(x[3]));
                vst1q_u8(to.as_mut_ptr(), vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
            }
        }

        fn zero_doubles() -> [float64x2_t; 8] { [vdupq_n_f64(0.0); 8] }
        fn add_squares(sum: [float64x2_t; 8], x: [float32x4_t; 4]) -> [float64x2_t; 8] {
            {
                let mut sum = sum;
                for (sum, x) in sum.as_chunks_mut::<2>().0.iter_mut().zip(x) {
                    let (low, high) = (vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x));
                    *sum = [vfmaq_f64(sum[0], low, low), vfmaq_f64(sum[1], high, high)];
                }
                sum
            }
        }
        fn sum_doubles(a: [float64x2_t; 8]) -> f64 {
            {
                let four = [vaddq_f64(a[0], a[4]), vaddq_f64(a[1], a[5]), vaddq_f64(a[2], a[6]), vaddq_f64(a[3], a[7])];
                vpaddd_f64(vaddq_f64(vaddq_f64(four[0], four[2]), vaddq_f64(four[1], four[3])))
            }
        }

        fn maximum(a: [float32x4_t; 4]) -> f32 {
            vmaxvq_f32(vmaxq_f32(vmaxq_f32(a[0], a[1]), vmaxq_f32(a[2], a[3])))
        }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32], fill: f32) -> [float32x4_t; 4] {
        let mut lanes = [fill; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    #[inline(always)]
    fn store_partial(self, x: [float32x4_t; 4], to: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }
}
