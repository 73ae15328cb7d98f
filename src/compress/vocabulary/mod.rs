//! A smaller vocabulary: which word pieces a task can do without.
//!
//! ```text
//! training texts, as ids ──Words──► each word's pieces, and how often it occurs ──choose──► ids that stay
//!                     the same texts, as both vocabularies read them ──Effect──► what that does to them
//! ```
//!
//! What stays for certain are the special tokens, and every character of the training texts, alone and as `##c`: with
//! them any word of those characters can be spelled. The rest of the room goes to the pieces that the training texts
//! use most. A word whose piece goes is spelled with what is left, longest piece first, as WordPiece does it, and so
//! its count goes on to its new pieces: `##ization` may be worth keeping though no word used it while all of them were
//! pieces of their own. Pieces that no training text uses in the end go, however much room there is.
//!
//! A character that no training text has goes: the word that it stands in is `[UNK]`. That a task's later texts have
//! such words is measured ([`Effect`]), not guessed.

mod effect;

pub use effect::{Effect, Reading};

use crate::tokenizer::{CONTINUATION, WordPiece};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Rounds of [`choose`] in which a piece that nothing used may come into use.
const OPEN_ROUNDS: usize = 24;

/// The words of texts, each as its pieces' ids, and how often each occurs.
#[derive(Clone, Debug, Default)]
pub struct Words(HashMap<Vec<u32>, u64>);

impl Words {
    /// Counts the words of a text: its ids with `[CLS]` and `[SEP]`, as `reading` reads them.
    pub fn add(&mut self, text: &[u32], reading: &Reading) {
        for word in reading.words(text) {
            match self.0.get_mut(word) {
                Some(count) => *count += 1,
                None => _ = self.0.insert(word.to_vec(), 1),
            }
        }
    }
}

/// The room is not enough: so many pieces are needed for special tokens and characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// The least that a vocabulary for these words can have.
    pub least: usize,
}

/// The ids of the pieces that stay, ascending: at most `most` of them, and fewer where the words use fewer.
///
/// # Errors
/// [`TooFew`] if special tokens and characters alone are more.
pub fn choose<B: AsRef<[u8]>>(
    vocabulary: &WordPiece<B>,
    words: &Words,
    most: usize,
) -> Result<Vec<u32>, TooFew> {
    let pieces = Pieces::of(vocabulary);
    let kept = pieces.indispensable(vocabulary, words);
    if kept.len() > most {
        return Err(TooFew { least: kept.len() });
    }
    let mut spelled = Spelled::new(&pieces, words);
    let mut there = vec![true; pieces.texts.len()];
    for round in 0.. {
        let used =
            (0..there.len() as u32).filter(|id| spelled.counts[*id as usize] > 0 && !kept.contains(id));
        let mut used: Vec<u32> = used.collect();
        let room = most - kept.len();
        if used.len() <= room {
            let mut stay: Vec<u32> = kept.into_iter().chain(used).collect();
            stay.sort_unstable();
            return Ok(stay);
        }
        // Half of what is too much, so that counts that went on to other pieces are seen before the rest is chosen.
        let goes = (used.len() - room).div_ceil(2);
        used.sort_unstable_by_key(|&id| (spelled.counts[id as usize], Reverse(id)));
        used[..goes].iter().for_each(|&id| there[id as usize] = false);
        if round == OPEN_ROUNDS {
            // From here on every round leaves fewer pieces in use.
            let unused =
                (0..there.len()).filter(|&id| spelled.counts[id] == 0 && !kept.contains(&(id as u32)));
            unused.for_each(|id| there[id] = false);
        }
        spelled.without(&pieces, &there);
    }
    unreachable!("each round takes a piece away that never comes back")
}

/// All pieces by id, and the ids by piece.
struct Pieces<'a> {
    texts: Vec<&'a str>,
    ids: HashMap<&'a str, u32>,
    /// Bytes of the longest.
    longest: usize,
}

impl<'a> Pieces<'a> {
    fn of<B: AsRef<[u8]>>(vocabulary: &'a WordPiece<B>) -> Pieces<'a> {
        let texts: Vec<&str> =
            (0..vocabulary.vocab() as u32).map(|id| vocabulary.piece(id).unwrap_or_default()).collect();
        // Of equal pieces the last one counts, as in the tokenizer.
        let ids = texts.iter().copied().zip(0..).filter(|(piece, _)| !piece.is_empty()).collect();
        let longest = texts.iter().map(|piece| piece.len()).max().unwrap_or(0);
        Pieces { texts, ids, longest }
    }

    /// The special tokens, and both forms of the words' characters, as far as the vocabulary has them.
    fn indispensable<B: AsRef<[u8]>>(&self, vocabulary: &WordPiece<B>, words: &Words) -> HashSet<u32> {
        let mut kept: HashSet<u32> = vocabulary.specials().collect();
        let used: HashSet<u32> = words.0.keys().flatten().copied().filter(|id| !kept.contains(id)).collect();
        let text = |id: &u32| self.texts[*id as usize];
        let characters: BTreeSet<char> = used.iter().flat_map(|id| strip(text(id)).chars()).collect();
        for c in characters {
            let inside = (!vocabulary.rules().sets_apart(c)).then(|| format!("{CONTINUATION}{c}"));
            let forms = [Some(c.to_string()), inside];
            kept.extend(forms.into_iter().flatten().filter_map(|form| self.ids.get(form.as_str())));
        }
        kept
    }

    /// Spells a word with those pieces that are `there`, longest first from the left; `None` if that gets stuck.
    fn spell(&self, word: &str, there: &[bool]) -> Option<Vec<u32>> {
        let (mut spelled, mut start) = (Vec::new(), 0);
        let mut piece = String::new();
        while start < word.len() {
            let prefix = if start == 0 { "" } else { CONTINUATION };
            let longest = word.len().min(start + self.longest);
            let ends = (start + 1..=longest).rev().filter(|&end| word.is_char_boundary(end));
            let (end, id) = ends.into_iter().find_map(|end| {
                piece.clear();
                piece.push_str(prefix);
                piece.push_str(&word[start..end]);
                let id = *self.ids.get(piece.as_str())?;
                there[id as usize].then_some((end, id))
            })?;
            spelled.push(id);
            start = end;
        }
        Some(spelled)
    }
}

/// A piece's characters.
fn strip(piece: &str) -> &str {
    piece.strip_prefix(CONTINUATION).unwrap_or(piece)
}

/// Words as they are spelled with what is left, and what that uses.
struct Spelled {
    words: Vec<(Vec<u32>, u64)>,
    counts: Vec<u64>,
}

impl Spelled {
    fn new(pieces: &Pieces<'_>, words: &Words) -> Spelled {
        let mut counts = vec![0; pieces.texts.len()];
        let words: Vec<(Vec<u32>, u64)> =
            words.0.iter().map(|(word, &count)| (word.clone(), count)).collect();
        words.iter().for_each(|(word, count)| word.iter().for_each(|&id| counts[id as usize] += count));
        Spelled { words, counts }
    }

    /// Spells the words again that have a piece which is not there any more. One that cannot be spelled is gone.
    fn without(&mut self, pieces: &Pieces<'_>, there: &[bool]) {
        for (word, count) in &mut self.words {
            if word.iter().all(|&id| there[id as usize]) {
                continue;
            }
            let text: String = word.iter().map(|&id| strip(pieces.texts[id as usize])).collect();
            word.iter().for_each(|&id| self.counts[id as usize] -= *count);
            *word = pieces.spell(&text, there).unwrap_or_default();
            word.iter().for_each(|&id| self.counts[id as usize] += *count);
        }
    }
}

#[cfg(test)]
mod tests;
