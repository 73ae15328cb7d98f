//! BERT's WordPiece tokenizer over a packed vocabulary, for builds without the tokenizers crate.
//!
//! ```text
//! text ─specials─► segments ─clean, space ideographs, decompose, strip, lower─► characters
//!      ─spaces, punctuation─► words ─longest piece first─► ids
//! ```
//!
//! Characters flow through one at a time: no copy of the text is made, and reading stops when the ids are
//! full. Ids are equal to the reference's on every text (`tests/tokens`).

use super::unicode::{is_chinese, is_mark, is_punctuation, is_removed, is_undecomposed, is_unordered};
use super::vocabulary::{self, CONTINUATION, Hash, Vocabulary};
use super::{Encode, Pair, Rules};
use crate::files;
use unicode_normalization::char::{canonical_combining_class, decompose_canonical};

/// A longer word is unknown as a whole.
const MAX_WORD_CHARS: usize = 100;

/// The tokens that are recognised in raw text, as the reference does when it reads a `vocab.txt`.
pub(super) const SPECIALS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// BERT's tokenizer over a packed vocabulary.
///
/// The bytes can be borrowed (a part of a mapped file), shared or owned; nothing of the vocabulary is copied.
#[derive(Clone, Copy, Debug)]
pub struct WordPiece<B> {
    vocabulary: Vocabulary<B>,
}

impl WordPiece<Vec<u8>> {
    /// Packs a vocabulary, given by id as in `vocab.txt`, into the bytes that [`WordPiece::from_bytes`]
    /// reads.
    ///
    /// # Errors
    /// A sentence, if `[UNK]`, `[CLS]` or `[SEP]` is missing or there are a million pieces.
    pub fn pack(pieces: &[impl AsRef<str>], rules: Rules) -> Result<Vec<u8>, String> {
        let pieces: Vec<&str> = pieces.iter().map(AsRef::as_ref).collect();
        let id = |special: &str| pieces.iter().rposition(|&piece| piece == special).map(|id| id as u32);
        let specials: Vec<u32> = SPECIALS.into_iter().filter_map(id).collect();
        vocabulary::pack(&pieces, &specials, rules)
    }
}

impl<B: AsRef<[u8]>> WordPiece<B> {
    /// A tokenizer over packed bytes, all of which are checked.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them.
    pub fn from_bytes(bytes: B) -> Result<WordPiece<B>, String> {
        Ok(WordPiece { vocabulary: Vocabulary::from_bytes(bytes)? })
    }

    /// Number of pieces.
    pub fn vocab(&self) -> usize {
        self.vocabulary.pieces()
    }

    /// What is done to a text before it is cut into pieces.
    pub fn rules(&self) -> Rules {
        self.vocabulary.rules
    }

    /// The text of a piece, `##` included; `None` if there is no such id.
    pub fn piece(&self, id: u32) -> Option<&str> {
        let piece = ((id as usize) < self.vocab()).then(|| self.vocabulary.piece(id))?;
        std::str::from_utf8(piece).ok()
    }

    /// The id of `[UNK]`.
    pub fn unknown(&self) -> u32 {
        self.vocabulary.unknown
    }

    /// The ids of the tokens that are recognised in raw text, and of `[UNK]`, `[CLS]` and `[SEP]`; some may come twice.
    pub fn specials(&self) -> impl Iterator<Item = u32> {
        let Vocabulary { unknown, cls, sep, .. } = self.vocabulary;
        self.vocabulary.specials().chain([unknown, cls, sep])
    }

    /// The ids of a text: `[CLS]`, at most `max_tokens - 2` pieces, `[SEP]`. `max_tokens` is at least 2.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        self.encode_into(text, max_tokens, &mut ids);
        ids
    }

    /// As [`WordPiece::encode`], appended to `ids`.
    pub fn encode_into(&self, text: &str, max_tokens: usize, ids: &mut Vec<u32>) {
        ids.push(self.vocabulary.cls);
        self.pieces_into(text, max_tokens.saturating_sub(2), ids);
        ids.push(self.vocabulary.sep);
    }

    /// The ids of two sentences: [`Encode::encode_pair`].
    pub fn encode_pair(&self, first: &str, second: &str, max_tokens: usize) -> Pair {
        // Which is the longer is known when both are read.
        let pieces = [first, second].map(|text| {
            let mut ids = Vec::new();
            self.pieces_into(text, usize::MAX, &mut ids);
            ids
        });
        let Vocabulary { cls, sep, .. } = self.vocabulary;
        Pair::new([cls, sep], pieces.each_ref().map(Vec::as_slice), max_tokens)
    }

    /// At most `most` pieces of a text.
    fn pieces_into(&self, text: &str, most: usize, ids: &mut Vec<u32>) {
        let full = ids.len().saturating_add(most);
        let mut pieces = Pieces { vocabulary: &self.vocabulary, word: String::new(), chars: 0, ids, full };
        let mut rest = text;
        while let Some((place, special)) = self.first_special(rest) {
            normalize(&rest[..place], &mut pieces);
            pieces.end_word();
            pieces.ids.push(special);
            rest = &rest[place + self.vocabulary.piece(special).len()..];
            if pieces.is_full() {
                rest = "";
            }
        }
        normalize(rest, &mut pieces);
        pieces.end_word();
        ids.truncate(full);
    }

    /// The leftmost special token in a text, the longest where several begin.
    fn first_special(&self, text: &str) -> Option<(usize, u32)> {
        let specials = || self.vocabulary.specials().map(|id| (id, self.vocabulary.piece(id)));
        let mut firsts = [false; 256];
        specials()
            .filter_map(|(_, special)| special.first())
            .for_each(|&byte| firsts[usize::from(byte)] = true);
        let candidates = text.bytes().enumerate().filter(|&(_, byte)| firsts[usize::from(byte)]);
        candidates.map(|(place, _)| place).find_map(|place| {
            let here = specials().filter(|(_, special)| text.as_bytes()[place..].starts_with(special));
            here.max_by_key(|(_, special)| special.len()).map(|(id, _)| (place, id))
        })
    }
}

impl<B: AsRef<[u8]> + Sync> Encode for WordPiece<B> {
    fn encode(&self, text: &str, max_tokens: usize) -> Vec<u32> {
        self.encode(text, max_tokens)
    }

    fn encode_pair(&self, first: &str, second: &str, max_tokens: usize) -> Pair {
        self.encode_pair(first, second, max_tokens)
    }

    fn vocab(&self) -> usize {
        self.vocab()
    }

    fn content_hash(&self) -> String {
        files::sha256(self.vocabulary.bytes())
    }
}

/// Sends a text's characters to `pieces`, cleaned, spaced, decomposed, stripped and lowered as the rules say.
fn normalize<B: AsRef<[u8]>>(text: &str, pieces: &mut Pieces<'_, B>) {
    let rules = pieces.vocabulary.rules;
    // Marks between two starters wait here to be put in canonical order; nearly always empty.
    let mut marks: Vec<(u8, char)> = Vec::new();
    for c in text.chars() {
        if pieces.is_full() {
            return;
        }
        if rules.clean_text && is_removed(c) {
            // As if it had never stood there: it parts no marks.
        } else if c.is_ascii() {
            flush(&mut marks, pieces);
            match c {
                '\t' | '\n' | '\r' | ' ' => pieces.end_word(),
                _ if rules.lower_case => pieces.push(c.to_ascii_lowercase()),
                _ => pieces.push(c),
            }
        } else if rules.space_ideographs && is_chinese(c) {
            flush(&mut marks, pieces);
            pieces.end_word();
            decompose(c, &mut marks, pieces);
            flush(&mut marks, pieces);
            pieces.end_word();
        } else {
            decompose(c, &mut marks, pieces);
        }
    }
    flush(&mut marks, pieces);
}

/// Canonical decomposition of one character, without its marks, if accents are stripped.
fn decompose<B: AsRef<[u8]>>(c: char, marks: &mut Vec<(u8, char)>, pieces: &mut Pieces<'_, B>) {
    if !pieces.vocabulary.rules.strip_accents {
        return lower(c, pieces);
    }
    let mut each = |part: char| {
        let class = if is_unordered(part) { 0 } else { canonical_combining_class(part) };
        if class == 0 {
            flush(marks, pieces);
        }
        match (is_mark(part), class) {
            (true, _) => {}
            (false, 0) => lower(part, pieces),
            (false, _) => marks.push((class, part)),
        }
    };
    if is_undecomposed(c) { each(c) } else { decompose_canonical(c, each) }
}

fn flush<B: AsRef<[u8]>>(marks: &mut Vec<(u8, char)>, pieces: &mut Pieces<'_, B>) {
    if !marks.is_empty() {
        marks.sort_by_key(|&(class, _)| class);
        marks.drain(..).for_each(|(_, mark)| lower(mark, pieces));
    }
}

fn lower<B: AsRef<[u8]>>(c: char, pieces: &mut Pieces<'_, B>) {
    if pieces.vocabulary.rules.lower_case {
        c.to_lowercase().for_each(|c| pieces.push(c));
    } else {
        pieces.push(c);
    }
}

/// Gathers characters into words and words into ids.
struct Pieces<'a, B> {
    vocabulary: &'a Vocabulary<B>,
    word: String,
    /// Characters of the word, also those beyond the longest that is kept.
    chars: usize,
    ids: &'a mut Vec<u32>,
    full: usize,
}

impl<B: AsRef<[u8]>> Pieces<'_, B> {
    fn is_full(&self) -> bool {
        self.ids.len() >= self.full
    }

    fn push(&mut self, c: char) {
        if c.is_whitespace() {
            self.end_word();
        } else if is_punctuation(c) {
            self.end_word();
            self.add(c);
            self.end_word();
        } else {
            self.add(c);
        }
    }

    fn add(&mut self, c: char) {
        if self.chars < MAX_WORD_CHARS {
            self.word.push(c);
        }
        self.chars += 1;
    }

    fn end_word(&mut self) {
        if self.chars == 0 {
            return;
        }
        let before = self.ids.len();
        if self.chars > MAX_WORD_CHARS || !self.cut() {
            self.ids.truncate(before);
            self.ids.push(self.vocabulary.unknown);
        }
        self.word.clear();
        self.chars = 0;
    }

    /// Longest piece first, from the left; false if somewhere no piece fits.
    fn cut(&mut self) -> bool {
        let mut rest = self.word.as_str();
        let mut prefix = "";
        while !rest.is_empty() {
            let Some((length, id)) = longest_piece(self.vocabulary, prefix, rest) else { return false };
            self.ids.push(id);
            rest = &rest[length..];
            prefix = CONTINUATION;
        }
        true
    }
}

/// The longest beginning of `word` that, after `prefix`, is a piece: its length in bytes and its id.
fn longest_piece<B: AsRef<[u8]>>(
    vocabulary: &Vocabulary<B>,
    prefix: &str,
    word: &str,
) -> Option<(usize, u32)> {
    let mut ends = [(0, Hash::START); MAX_WORD_CHARS];
    let mut count = 0;
    let (mut end, mut hash) = (0, Hash::START.then(prefix.as_bytes()));
    for c in word.chars() {
        let next = end + c.len_utf8();
        if prefix.len() + next > vocabulary.longest {
            break;
        }
        hash = hash.then(&word.as_bytes()[end..next]);
        end = next;
        ends[count] = (end, hash);
        count += 1;
    }
    ends[..count]
        .iter()
        .rev()
        .find_map(|&(end, hash)| Some((end, vocabulary.find(hash, prefix, &word[..end])?)))
}
