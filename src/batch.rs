//! A ragged batch: texts of any lengths, end to end, without padding.

use std::ops::Range;

/// Several texts as token ids, end to end. `offsets[i]..offsets[i + 1]` are the tokens of text `i`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids: `[tokens]`.
    pub ids: Vec<u32>,
    /// Token types: `[tokens]`, or empty where every type is 0.
    pub token_types: Vec<u8>,
    /// Where each text begins, and where the last one ends: `[texts + 1]`.
    pub offsets: Vec<usize>,
    /// A number for each text that is its own in the whole data set: it keys the text's dropout, so that a
    /// text meets the same dropout in whichever batch, thread or process it lands.
    pub samples: Vec<u64>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch { offsets: vec![0], ..Batch::default() }
    }

    /// A batch of these texts, numbered from 0.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> Batch {
        let mut batch = Batch::new();
        batch.refill(texts);
        batch
    }

    /// Becomes a batch of these texts, numbered from 0, in the same memory.
    pub fn refill<'a>(&mut self, texts: impl IntoIterator<Item = &'a [u32]>) {
        self.clear();
        texts.into_iter().zip(0..).for_each(|(text, sample)| self.push(text, sample));
    }

    /// Forgets the texts and keeps the memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.token_types.clear();
        self.samples.clear();
        self.offsets.clear();
        self.offsets.push(0);
    }

    /// Appends one text. A text has at least one token (`[CLS]`).
    pub fn push(&mut self, ids: &[u32], sample: u64) {
        self.ids.extend_from_slice(ids);
        self.offsets.push(self.ids.len());
        self.samples.push(sample);
    }

    /// Texts.
    pub fn texts(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Tokens of all texts.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The tokens of text `i`.
    pub fn text(&self, i: usize) -> Range<usize> {
        self.offsets[i]..self.offsets[i + 1]
    }

    /// The rows that belong to each text in an activation of `rows` rows: all of its tokens, or one row a
    /// text once the first tokens have been taken.
    pub fn rows_of(&self, text: usize, rows: usize) -> Range<usize> {
        if rows == self.tokens() {
            self.text(text)
        } else {
            assert_eq!(rows, self.texts(), "activations have a row for each token or one for each text");
            text..text + 1
        }
    }
}
