//! What is asked of a tokenizer, whoever made it.

use super::Pair;

/// A function from text to token ids.
pub trait Encode: Sync {
    /// The ids of a text: `[CLS]`, at most `max_tokens - 2` pieces, `[SEP]`. `max_tokens` is at least 2.
    fn encode(&self, text: &str, max_tokens: usize) -> Vec<u32>;

    /// The ids of two sentences: `[CLS]`, pieces of the first, `[SEP]`, pieces of the second, `[SEP]`, as transformers has
    /// them; pieces of the longer one are cut first (`longest_first`). `max_tokens` is at least 3.
    fn encode_pair(&self, first: &str, second: &str, max_tokens: usize) -> Pair;

    /// One more than the largest id.
    fn vocab(&self) -> usize;

    /// SHA-256, in hexadecimal, of everything that decides the ids. Two tokenizers with the same hash are the same
    /// function; the same function may have two hashes.
    fn content_hash(&self) -> String;

    /// [`Encode::encode`] of many texts, on all threads.
    fn encode_batch(&self, texts: &[&str], max_tokens: usize) -> Vec<Vec<u32>> {
        #[cfg(feature = "train")]
        {
            use rayon::prelude::*;
            texts.par_iter().with_min_len(16).map(|text| self.encode(text, max_tokens)).collect()
        }
        #[cfg(not(feature = "train"))]
        texts.iter().map(|text| self.encode(text, max_tokens)).collect()
    }

    /// [`Encode::encode_pair`] of many pairs, on all threads.
    fn encode_pairs(&self, pairs: &[[&str; 2]], max_tokens: usize) -> Vec<Pair> {
        let encode = |[first, second]: &[&str; 2]| self.encode_pair(first, second, max_tokens);
        #[cfg(feature = "train")]
        {
            use rayon::prelude::*;
            pairs.par_iter().with_min_len(16).map(encode).collect()
        }
        #[cfg(not(feature = "train"))]
        pairs.iter().map(encode).collect()
    }
}
