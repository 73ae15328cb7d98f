//! Half precision, widened to f32. Exact: every f16 and bf16 value is an f32.

/// IEEE 754 binary16 → binary32, without a branch that data could mispredict.
///
/// The exponent and fraction are moved to their places in an f32, which leaves the exponent too small by
/// 127 - 15 = 112; multiplying by 2^112 mends that, and also normalises subnormal numbers.
#[inline]
pub fn f16_to_f32(bits: u16) -> f32 {
    const REBIAS: f32 = f32::from_bits((112 + 127) << 23);
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * REBIAS;
    // 65536 and above are exponents of all ones: infinity and NaN.
    let special = if magnitude >= 65536.0 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | u32::from(bits & 0x8000) << 16)
}

/// bfloat16 → f32: the upper half of the bits.
#[inline]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_that_of_the_half_crate() {
        let same =
            |ours: f32, theirs: f32| ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan();
        for bits in 0..=u16::MAX {
            assert!(same(f16_to_f32(bits), half::f16::from_bits(bits).to_f32()), "f16 {bits:#06x}");
            assert!(same(bf16_to_f32(bits), half::bf16::from_bits(bits).to_f32()), "bf16 {bits:#06x}");
        }
    }
}
