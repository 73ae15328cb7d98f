//! What a smaller vocabulary does to texts.

use crate::tokenizer::WordPiece;
use serde::{Deserialize, Serialize};

/// How the ids of a vocabulary make words.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Whether a piece continues a word, by id.
    continues: Vec<bool>,
    unknown: u32,
}

impl Reading {
    /// That of a vocabulary.
    pub fn of<B: AsRef<[u8]>>(vocabulary: &WordPiece<B>) -> Reading {
        let continues = |id| vocabulary.piece(id).is_some_and(|piece| piece.starts_with(super::CONTINUATION));
        let continues = (0..vocabulary.vocab() as u32).map(continues).collect();
        Reading { continues, unknown: vocabulary.unknown() }
    }

    /// The words of a text, without the `[CLS]` and `[SEP]` that it begins and ends with.
    pub fn words<'a>(&'a self, text: &'a [u32]) -> impl Iterator<Item = &'a [u32]> {
        let inside = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
        inside.chunk_by(|_, &next| self.continues[next as usize])
    }
}

/// What becomes of texts that are read with another vocabulary. Each pair is before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Texts.
    pub texts: u64,
    /// Tokens, `[CLS]` and `[SEP]` counted.
    pub tokens: [u64; 2],
    /// Words; fewer where longer texts are cut at the same number of tokens.
    pub words: [u64; 2],
    /// Words that are `[UNK]`.
    pub unknown: [u64; 2],
    /// Texts with such a word.
    pub texts_with_unknown: [u64; 2],
    /// Texts that fill the number of tokens at which they are cut.
    pub full_texts: [u64; 2],
    /// Words that both read whole, and those of them that are spelled with other pieces.
    pub compared: u64,
    /// See `compared`.
    pub respelled: u64,
}

impl Effect {
    /// Adds one text, cut to `max_tokens`, as both vocabularies read it. `kept` are the ids of the first that the second
    /// has, in the order of its own.
    pub fn add(&mut self, texts: [&[u32]; 2], readings: [&Reading; 2], kept: &[u32], max_tokens: usize) {
        self.texts += 1;
        for (i, (text, reading)) in texts.into_iter().zip(readings).enumerate() {
            let unknown = reading.words(text).filter(|word| *word == [reading.unknown]).count() as u64;
            self.tokens[i] += text.len() as u64;
            self.words[i] += reading.words(text).count() as u64;
            self.unknown[i] += unknown;
            self.texts_with_unknown[i] += u64::from(unknown > 0);
            self.full_texts[i] += u64::from(text.len() >= max_tokens);
        }
        // The last word of a text that was cut may be a part of one.
        let whole = |i: usize| {
            let words = readings[i].words(texts[i]).count();
            if texts[i].len() >= max_tokens { words.saturating_sub(1) } else { words }
        };
        let both = readings[0].words(texts[0]).zip(readings[1].words(texts[1]));
        for (before, after) in both.take(whole(0).min(whole(1))) {
            self.compared += 1;
            let same = before.iter().copied().eq(after.iter().map(|&id| kept[id as usize]));
            self.respelled += u64::from(!same);
        }
    }

    /// Of the tokens before, how many more there are after: 0.018 for texts that become 1.8 % longer.
    pub fn longer(&self) -> f64 {
        self.tokens[1] as f64 / self.tokens[0].max(1) as f64 - 1.0
    }
}
