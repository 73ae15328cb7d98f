//! Words as ids: their hashes.

use crate::files;
use crate::tokenizer::{Encode, Pair, words};
use limbeck_kernels::random::mix;

/// A tokenizer without a vocabulary: each word's id is 32 bits of its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words;

/// What of this changes the ids of a text; caches of ids are found by it.
const DESCRIPTION: &str = "limbeck's lower-cased words, FNV-1a mixed by SplitMix64, upper 32 bits; version 1";

impl Encode for Words {
    /// The ids of a text's words, at most `max_tokens`; nothing stands before or behind them.
    fn encode(&self, text: &str, max_tokens: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        words(text, |word| {
            if ids.len() < max_tokens {
                ids.push(id(word));
            }
        });
        ids
    }

    /// The words of both sentences, one after the other.
    fn encode_pair(&self, first: &str, second: &str, max_tokens: usize) -> Pair {
        let mut ids = self.encode(first, max_tokens);
        let first = ids.len();
        ids.extend(self.encode(second, max_tokens - first));
        Pair { ids, first }
    }

    fn vocab(&self) -> usize {
        usize::try_from(1_u64 << 32).unwrap_or(usize::MAX)
    }

    fn content_hash(&self) -> String {
        files::sha256(DESCRIPTION.as_bytes())
    }
}

/// FNV-1a (Fowler, Noll and Vo), mixed: its own upper bits hardly depend on the last letters.
fn id(word: &str) -> u32 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    (mix(word.bytes().fold(0xcbf2_9ce4_8422_2325, step)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_have_the_same_ids() {
        let ids = Words.encode("The cat, the CAT", 256);
        assert_eq!((ids.len(), ids[0], ids[1]), (5, ids[3], ids[4]));
        assert!(ids[0] != ids[1] && ids[1] != ids[2]);
        assert_eq!(Words.encode("The cat, the CAT", 2), ids[..2]);
        assert!(Words.encode(" ", 256).is_empty());
    }
}
