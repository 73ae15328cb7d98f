//! Dropout without state: whether an element is kept is a hash of (key, index).
//!
//! So the backward needs no saved mask, a step can be repeated or resumed bit for bit, and it does not
//! matter which thread treats which elements. The hash is three rounds of multiply and xor-shift over
//! the index's low half, with the multipliers of Wellons' `triple32` (nullprogram.com, "Prospecting for
//! hash functions"); the key and the index's high half enter before the first and the last round, so
//! masks of different keys are not rearrangements of each other.

use crate::Kernels;
use crate::random;
use crate::simd::{LANES, Simd};

/// Which random numbers a call of [`Kernels::dropout`] uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Names the stream: same key, same mask.
    pub key: u64,
    /// The index in the stream of the first element.
    pub first: u64,
    /// The fraction that is dropped, in [0, 1).
    pub rate: f32,
}

impl Kernels {
    /// Each `x[i]` becomes `x[i]`/(1 − rate) or, with probability `rate`, 0, as (key, first + i) decides. The
    /// same call on the gradient is the backward.
    ///
    /// # Panics
    /// If `rate` is not in [0, 1).
    #[cfg(feature = "train")]
    pub fn dropout(self, x: &mut [f32], dropout: Dropout) {
        assert!((0.0..1.0).contains(&dropout.rate), "dropout rate {}", dropout.rate);
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.dropout)(x, &dropout) }
    }
}

/// A stream of keep factors, each 0 or 1/(1 − rate).
#[derive(Clone, Copy)]
pub(super) struct KeepFactors {
    key: u64,
    /// The high half of the index that `seeds` were made for.
    high: u32,
    seeds: [u32; 2],
    /// Dropped where the hash, less its lowest bit, is below this.
    threshold: u32,
    factor: f32,
}

impl KeepFactors {
    #[inline(always)]
    pub(super) fn new(key: u64, rate: f32) -> KeepFactors {
        let threshold = (f64::from(rate) * f64::from(1u32 << 31)) as u32;
        KeepFactors { key, high: 0, seeds: seeds(key, 0), threshold, factor: 1.0 / (1.0 - rate) }
    }

    /// The factors of sixteen indices from `index` on.
    #[inline(always)]
    pub(super) fn at<S: Simd>(&mut self, s: S, index: u64) -> S::Floats {
        let (high, low) = ((index >> 32) as u32, index as u32);
        if high != self.high {
            (self.high, self.seeds) = (high, seeds(self.key, high));
        }
        let hash = if low > u32::MAX - LANES as u32 {
            s.load_bits(&hashes_across_halves(self.key, index))
        } else {
            let lanes = s.load_bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
            self.hash_lanes(s, s.add_bits(s.splat_bits(low), lanes))
        };
        let dropped = s.less_bits(s.shift_right::<1>(hash), s.splat_bits(self.threshold));
        s.select(dropped, s.zero(), s.splat(self.factor))
    }

    /// [`hash`] in every lane.
    #[inline(always)]
    fn hash_lanes<S: Simd>(&self, s: S, low: S::Bits) -> S::Bits {
        let mut x = s.xor(low, s.splat_bits(self.seeds[0]));
        x = s.mul_bits(s.xor(x, s.shift_right::<17>(x)), s.splat_bits(MULTIPLIERS[0]));
        x = s.mul_bits(s.xor(x, s.shift_right::<11>(x)), s.splat_bits(MULTIPLIERS[1]));
        x = s.add_bits(x, s.splat_bits(self.seeds[1]));
        s.mul_bits(s.xor(x, s.shift_right::<15>(x)), s.splat_bits(MULTIPLIERS[2]))
    }
}

const MULTIPLIERS: [u32; 3] = [0xed5a_d4bb, 0xac4c_1b51, 0x3184_8bab];

/// The hash of one index.
fn hash(seeds: [u32; 2], low: u32) -> u32 {
    let mut x = low ^ seeds[0];
    x = (x ^ (x >> 17)).wrapping_mul(MULTIPLIERS[0]);
    x = (x ^ (x >> 11)).wrapping_mul(MULTIPLIERS[1]);
    x = x.wrapping_add(seeds[1]);
    (x ^ (x >> 15)).wrapping_mul(MULTIPLIERS[2])
}

/// Sixteen hashes where the high half of the index may change on the way.
#[cold]
fn hashes_across_halves(key: u64, index: u64) -> [u32; LANES] {
    std::array::from_fn(|lane| {
        let index = index.wrapping_add(lane as u64);
        hash(seeds(key, (index >> 32) as u32), index as u32)
    })
}

/// Two words from the key and the high half of the index.
#[inline(always)]
fn seeds(key: u64, high: u32) -> [u32; 2] {
    let x = random::word(key, u64::from(high));
    [x as u32, (x >> 32) as u32]
}

#[inline(always)]
pub(super) fn dropout<S: Simd>(s: S, x: &mut [f32], dropout: &Dropout) {
    let mut factors = KeepFactors::new(dropout.key, dropout.rate);
    let mut index = dropout.first;
    let (x, rest) = x.as_chunks_mut::<LANES>();
    for x in x {
        s.store(s.mul(s.load(x), factors.at(s, index)), x);
        index = index.wrapping_add(LANES as u64);
    }
    if !rest.is_empty() {
        s.store_partial(s.mul(s.load_partial(rest, 0.0), factors.at(s, index)), rest);
    }
}
