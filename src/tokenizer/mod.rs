//! From text to token ids.
//!
//! ```text
//! Tokenizer   a Hugging Face directory's tokenizer, over the tokenizers crate (feature `train`)
//! WordPiece   BERT's tokenizer over a vocabulary packed into bytes: what a .limbeck file carries
//! ```
//!
//! Both are [`Encode`]: they give `[CLS]`, the pieces, `[SEP]`, and of two sentences a [`Pair`], cut to a number of tokens,
//! never padded: batches are ragged.
//! `Tokenizer` says which function a directory describes, and runs `WordPiece` for it where that is plain
//! BERT, which all models of this family are; the two agree on every text, and ours takes an eighth of the
//! time.

mod encode;
#[cfg(feature = "train")]
mod hub;
mod pair;
mod unicode;
mod vocabulary;
mod wordpiece;
#[cfg(feature = "train")]
mod words;

pub use encode::Encode;
#[cfg(feature = "train")]
pub use hub::Tokenizer;
pub use pair::Pair;
#[cfg(feature = "train")]
pub(crate) use vocabulary::CONTINUATION;
pub use wordpiece::WordPiece;
#[cfg(feature = "train")]
pub use words::words;

/// What BERT's tokenizer does to a text before it looks for pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Remove control characters, and make all white space a space.
    pub clean_text: bool,
    /// Set ideographs apart by spaces.
    pub space_ideographs: bool,
    /// Decompose, and remove nonspacing marks.
    pub strip_accents: bool,
    /// Lower the case.
    pub lower_case: bool,
}

impl Rules {
    /// BERT's rules; accents are stripped where the case is lowered.
    pub fn bert(lower_case: bool) -> Rules {
        Rules { clean_text: true, space_ideographs: true, strip_accents: lower_case, lower_case }
    }

    /// Whether a character is a word of its own wherever it stands, so that it never continues one.
    pub fn sets_apart(self, c: char) -> bool {
        unicode::is_punctuation(c) || (self.space_ideographs && unicode::is_chinese(c))
    }

    fn to_flags(self) -> u32 {
        let bits = [self.clean_text, self.space_ideographs, self.strip_accents, self.lower_case];
        bits.into_iter().rev().fold(0, |flags, bit| flags << 1 | u32::from(bit))
    }

    /// `None` if there are flags of a later version.
    fn from_flags(flags: u32) -> Option<Rules> {
        let bit = |place: u32| flags >> place & 1 == 1;
        let rules =
            Rules { clean_text: bit(0), space_ideographs: bit(1), strip_accents: bit(2), lower_case: bit(3) };
        (flags < 16).then_some(rules)
    }
}
