//! The source of all randomness: SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
//! Generators", 2014), as a hash of a key and as a stream of words. The same on every machine.

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A bijection on 64 bits that spreads every input bit over the output: the word after `value` in
/// SplitMix64's stream. Keys are made by mixing their parts in one after the other.
#[inline(always)]
pub fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Word `index` of the stream that starts at `seed`.
#[inline(always)]
pub fn word(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add(index.wrapping_mul(STEP)))
}

/// A stream of words from a seed.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The stream of `seed`; every seed is good.
    pub fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }

    /// Sixty-four random bits.
    pub fn next_word(&mut self) -> u64 {
        let word = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        word
    }

    /// A whole number in `0..limit` (Lemire's multiplication; its bias is below `limit / 2⁶⁴`); 0 for a limit of 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next_word()) * limit as u128) >> 64) as usize
    }

    /// Uniform in `[-1, 1)`, in steps of 2⁻²³.
    pub fn signed_unit(&mut self) -> f32 {
        (self.next_word() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::{SplitMix64, word};

    /// The first words of the reference implementation for the seed 1234567.
    #[test]
    fn the_published_stream() {
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        let mut stream = SplitMix64::new(1_234_567);
        for (index, expected) in (0..).zip(published) {
            assert_eq!(stream.next_word(), expected);
            assert_eq!(word(1_234_567, index), expected);
        }
    }
}
