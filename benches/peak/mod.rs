//! What one core can do at most: the best of many runs of a loop over registers alone. The benches of products and
//! `benches/peers` measure against it.

use limbeck_kernels::Isa;
use std::time::Instant;

/// Gop/s of f32 products; none is known for the portable row, whose units the compiler chooses.
pub fn f32(isa: Isa) -> Option<f64> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Some(best(24 * 16 * 2, x86::f32_avx512)),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni | Isa::Avx2 => Some(best(12 * 8 * 2, x86::f32_avx2)),
        _ => None,
    }
}

/// Gop/s of bf16 products, which a CPU without instructions for them computes in f32.
pub fn bf16(isa: Isa) -> Option<f64> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Some(best(24 * 32 * 2, x86::bf16_avx512)),
        _ => f32(isa),
    }
}

/// Gop/s of int8 products; on AVX2, of its exact multiply-add alone, without what prepares its operands.
pub fn int8(isa: Isa) -> Option<f64> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Some(best(24 * 64 * 2, x86::i8_avx512)),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => Some(best(12 * 32 * 2, x86::i8_avx_vnni)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(best(12 * 16 * 2, x86::i8_avx2)),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
fn best(operations_per_step: usize, probe: unsafe fn(usize)) -> f64 {
    const STEPS: usize = 20_000;
    let time = |_| {
        let start = Instant::now();
        // SAFETY: asked for only by a row that `Kernels::available` found, which has these instructions.
        unsafe { probe(STEPS) };
        start.elapsed().as_secs_f64()
    };
    let seconds = (0..200).map(time).fold(f64::INFINITY, f64::min);
    (STEPS * operations_per_step) as f64 / seconds / 1e9
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// A loop over as many independent sums as a tile holds.
    macro_rules! probe {
        ($name:ident, $features:literal, $sums:literal, $zero:expr, |$sum:ident, $x:ident| $step:expr) => {
            #[target_feature(enable = $features)]
            pub fn $name(steps: usize) {
                let mut sums = [$zero; $sums];
                let $x = black_box($zero);
                for _ in 0..steps {
                    for sum in &mut sums {
                        let $sum = *sum;
                        *sum = $step;
                    }
                }
                black_box(sums);
            }
        };
    }

    probe!(f32_avx512, "avx512f", 24, _mm512_setzero_ps(), |sum, x| _mm512_fmadd_ps(x, x, sum));
    probe!(bf16_avx512, "avx512f,avx512bf16", 24, _mm512_setzero_ps(), |sum, x| {
        // SAFETY: both are 512 bits without invalid values.
        let x = unsafe { std::mem::transmute::<__m512, __m512bh>(x) };
        _mm512_dpbf16_ps(sum, x, x)
    });
    probe!(i8_avx512, "avx512f,avx512vnni", 24, _mm512_setzero_si512(), |sum, x| {
        _mm512_dpbusd_epi32(sum, x, x)
    });
    probe!(f32_avx2, "avx2,fma", 12, _mm256_setzero_ps(), |sum, x| _mm256_fmadd_ps(x, x, sum));
    probe!(i8_avx_vnni, "avx2,avxvnni", 12, _mm256_setzero_si256(), |sum, x| {
        _mm256_dpbusd_avx_epi32(sum, x, x)
    });
    probe!(i8_avx2, "avx2", 12, _mm256_setzero_si256(), |sum, x| {
        // The sum takes part, or the compiler would multiply once and for all.
        _mm256_add_epi32(sum, _mm256_madd_epi16(sum, x))
    });
}
