//! A ragged batch: texts of any lengths, end to end, without padding.
//!
//! A text is one sentence, or a pair of them as BERT reads it: `[CLS] first [SEP] second [SEP]`. Where the second begins is
//! a number beside the ids, for a text may hold the characters `[SEP]` itself.

use std::ops::Range;

/// One text as token ids: a sentence, or two of them end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Token ids: `[tokens]`.
    pub ids: &'a [u32],
    /// Tokens of the first sentence, `[CLS]` and `[SEP]` included; all, where there is no other.
    pub first: usize,
}

impl<'a> From<&'a [u32]> for Text<'a> {
    /// A sentence alone.
    fn from(ids: &'a [u32]) -> Text<'a> {
        Text { ids, first: ids.len() }
    }
}

impl<'a> From<&'a Vec<u32>> for Text<'a> {
    /// A sentence alone.
    fn from(ids: &'a Vec<u32>) -> Text<'a> {
        ids.as_slice().into()
    }
}

/// Several texts as token ids, end to end. `offsets[i]..offsets[i + 1]` are the tokens of text `i`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids: `[tokens]`.
    pub ids: Vec<u32>,
    /// Token types: `[tokens]`, or empty where they are 0 in first sentences and 1 in second ones.
    pub token_types: Vec<u8>,
    /// Where each text begins, and where the last one ends: `[texts + 1]`.
    pub offsets: Vec<usize>,
    /// How many tokens of each text are its first sentence's: `[texts]`.
    pub first_lens: Vec<usize>,
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
    pub fn from_texts<'a, T: Into<Text<'a>>>(texts: impl IntoIterator<Item = T>) -> Batch {
        let mut batch = Batch::new();
        batch.refill(texts);
        batch
    }

    /// Becomes a batch of these texts, numbered from 0, in the same memory.
    pub fn refill<'a, T: Into<Text<'a>>>(&mut self, texts: impl IntoIterator<Item = T>) {
        self.clear();
        texts.into_iter().zip(0..).for_each(|(text, sample)| self.push(text, sample));
    }

    /// Forgets the texts and keeps the memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.token_types.clear();
        self.first_lens.clear();
        self.samples.clear();
        self.offsets.clear();
        self.offsets.push(0);
    }

    /// Appends one text: a [`Text`], or the ids of a sentence. A text has at least one token (`[CLS]`).
    pub fn push<'a>(&mut self, text: impl Into<Text<'a>>, sample: u64) {
        let Text { ids, first } = text.into();
        self.ids.extend_from_slice(ids);
        self.offsets.push(self.ids.len());
        self.first_lens.push(first);
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

    /// The type of the token at a place of a text.
    pub fn token_type(&self, text: usize, place: usize) -> u8 {
        let given = self.token_types.get(self.offsets[text] + place);
        given.copied().unwrap_or(u8::from(place >= self.first_lens[text]))
    }

    /// The same tokens, each sentence a text by itself: what attends to what where sentences are kept apart. A second
    /// sentence has dropout of its own.
    #[cfg(feature = "train")]
    pub(crate) fn split_sentences(&self) -> Batch {
        let mut split =
            Batch { ids: self.ids.clone(), token_types: self.token_types.clone(), ..Batch::new() };
        for text in 0..self.texts() {
            let (tokens, sample) = (self.text(text), self.samples[text]);
            let second = tokens.start + self.first_lens[text];
            let sentences = [(tokens.start..second, sample), (second..tokens.end, !sample)];
            for (tokens, sample) in sentences.into_iter().filter(|(tokens, _)| !tokens.is_empty()) {
                split.offsets.push(tokens.end);
                split.first_lens.push(tokens.len());
                split.samples.push(sample);
            }
        }
        split
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
