//! A vocabulary as one run of bytes: looked up where it lies, so that it can be mapped from a file.
//!
//! ```text
//! magic, version            8 bytes
//! eight numbers             flags, pieces, slots, longest piece in bytes, [UNK], [CLS], [SEP], specials
//! specials [specials]       ids of the tokens that are recognised in raw text, as [MASK]
//! offsets [pieces + 1]      where each piece begins in the text
//! table [slots]             hash table, open addressing: 12 bits of the hash, 20 bits of the id
//! text                      the pieces, end to end
//! ```
//!
//! Numbers are u32, little-endian, read byte-wise: the bytes need no alignment. The hash can be continued
//! byte by byte, so one pass over a word gives the hashes of all its prefixes, which is what
//! longest-match-first asks for. Nearly all probes fail, and the 12 bits let them fail without looking at
//! the text.

use super::Rules;

const MAGIC: [u8; 8] = *b"WPIECE\0\x01";
const NUMBERS: usize = 8;
/// An empty slot; no id has all 20 bits set.
const EMPTY: u32 = u32::MAX;
const ID_BITS: u32 = 20;
const ID_MASK: u32 = (1 << ID_BITS) - 1;

/// Most pieces that a vocabulary can have: the largest id stands for an empty slot.
pub(super) const MAX_PIECES: usize = ID_MASK as usize;

/// What is said of a token that is recognised in raw text everywhere and nowhere.
const EMPTY_SPECIAL: &str = "a special token is empty";

/// What is said of more than [`MAX_PIECES`].
pub(super) fn too_many(pieces: usize) -> String {
    format!("{pieces} pieces; at most {MAX_PIECES} can be packed")
}

/// The mark of a piece that continues a word.
pub(crate) const CONTINUATION: &str = "##";

/// FNV-1a with 64 bits: one multiplication a byte, and continuable.
#[derive(Clone, Copy)]
pub(super) struct Hash(u64);

impl Hash {
    pub(super) const START: Hash = Hash(0xcbf2_9ce4_8422_2325);

    pub(super) fn then(self, bytes: &[u8]) -> Hash {
        Hash(bytes.iter().fold(self.0, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// Where to begin in a table of `slots`, and the 12 bits that are kept there. A last mixing step,
    /// because FNV spreads its last byte upwards only.
    fn place(self, slots: usize) -> (usize, u32) {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = ((mixed >> 32) * slots as u64) >> 32;
        (slot as usize, (mixed as u32 & 0xfff) << ID_BITS)
    }
}

/// A packed vocabulary over bytes that someone else may own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vocabulary<B> {
    bytes: B,
    pub rules: Rules,
    pub unknown: u32,
    pub cls: u32,
    pub sep: u32,
    /// Bytes of the longest piece.
    pub longest: usize,
    pieces: usize,
    slots: usize,
    specials: usize,
}

impl<B: AsRef<[u8]>> Vocabulary<B> {
    /// Checks every number in `bytes`, so that no lookup can leave them.
    pub fn from_bytes(bytes: B) -> Result<Vocabulary<B>, String> {
        let Some(rest) = bytes.as_ref().strip_prefix(&MAGIC) else {
            return Err("not a packed vocabulary of this version".to_owned());
        };
        let words = rest.as_chunks::<4>().0;
        let Some((numbers, words)) = words.split_first_chunk::<NUMBERS>() else {
            return Err("the vocabulary is cut short".to_owned());
        };
        let [flags, pieces, slots, longest, unknown, cls, sep, specials] = numbers.map(u32::from_le_bytes);
        let [pieces, slots, longest, specials] =
            [pieces, slots, longest, specials].map(|count| count as usize);
        let sum = specials.checked_add(pieces).and_then(|sum| sum.checked_add(slots)?.checked_add(1));
        if sum.is_none_or(|sum| sum > words.len()) {
            return Err("the vocabulary is cut short".to_owned());
        }
        let rules = Rules::from_flags(flags).ok_or("the vocabulary's flags are unknown")?;
        let vocabulary = Vocabulary { bytes, rules, unknown, cls, sep, longest, pieces, slots, specials };
        vocabulary.check()?;
        Ok(vocabulary)
    }

    fn check(&self) -> Result<(), String> {
        let text =
            std::str::from_utf8(self.text()).map_err(|error| format!("a piece is not UTF-8: {error}"))?;
        let slots = || (0..self.slots).map(|slot| self.number(self.table() + slot));
        let in_table = slots().filter(|&slot| slot != EMPTY).map(|slot| slot & ID_MASK);
        let mut ids = self.specials().chain([self.unknown, self.cls, self.sep]).chain(in_table);
        if !ids.all(|id| (id as usize) < self.pieces) || !slots().any(|slot| slot == EMPTY) {
            return Err("an id is not in the vocabulary".to_owned());
        }
        let mut places = (0..=self.pieces).map(|id| self.offset(id));
        let whole = self.offset(0) == 0 && self.offset(self.pieces) == text.len();
        if !whole || !places.clone().is_sorted() || !places.all(|place| text.is_char_boundary(place)) {
            return Err("the pieces' places are damaged".to_owned());
        }
        // One without a letter would be found again and again where it was found.
        if self.specials().any(|id| self.piece(id).is_empty()) {
            return Err(EMPTY_SPECIAL.to_owned());
        }
        Ok(())
    }

    /// The number at a place, counted in numbers behind the magic.
    fn number(&self, place: usize) -> u32 {
        let place = MAGIC.len() + 4 * place;
        let bytes = self.bytes.as_ref()[place..]
            .first_chunk()
            .expect("`from_bytes` compared the counts with the length");
        u32::from_le_bytes(*bytes)
    }

    fn offset(&self, id: usize) -> usize {
        self.number(NUMBERS + self.specials + id) as usize
    }

    fn table(&self) -> usize {
        NUMBERS + self.specials + self.pieces + 1
    }

    fn text(&self) -> &[u8] {
        &self.bytes.as_ref()[MAGIC.len() + 4 * (self.table() + self.slots)..]
    }

    /// The whole packed vocabulary.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// The text of a piece, with its `##`.
    ///
    /// # Panics
    /// If `id` is not below [`Vocabulary::pieces`].
    pub fn piece(&self, id: u32) -> &[u8] {
        &self.text()[self.offset(id as usize)..self.offset(id as usize + 1)]
    }

    pub fn specials(&self) -> impl Iterator<Item = u32> {
        (0..self.specials).map(|index| self.number(NUMBERS + index))
    }

    /// The piece `prefix + part`, whose hash is given.
    pub fn find(&self, hash: Hash, prefix: &str, part: &str) -> Option<u32> {
        let (mut slot, mark) = hash.place(self.slots);
        loop {
            // `check` saw an empty slot: the search ends.
            let entry = self.number(self.table() + slot);
            if entry == EMPTY {
                return None;
            }
            let id = entry & ID_MASK;
            let equal = || self.piece(id).strip_prefix(prefix.as_bytes()) == Some(part.as_bytes());
            if entry & !ID_MASK == mark && equal() {
                return Some(id);
            }
            slot = if slot + 1 == self.slots { 0 } else { slot + 1 };
        }
    }
}

/// Packs a vocabulary: `pieces` by id, `specials` the ids of those that are recognised in raw text.
pub(super) fn pack(pieces: &[&str], specials: &[u32], rules: Rules) -> Result<Vec<u8>, String> {
    if pieces.len() > MAX_PIECES {
        return Err(too_many(pieces.len()));
    }
    let id = |piece: &str| {
        let place = pieces.iter().rposition(|&known| known == piece);
        place.map(|id| id as u32).ok_or_else(|| format!("the vocabulary has no {piece}"))
    };
    let (unknown, cls, sep) = (id("[UNK]")?, id("[CLS]")?, id("[SEP]")?);
    if specials.iter().any(|&id| pieces[id as usize].is_empty()) {
        return Err(EMPTY_SPECIAL.to_owned());
    }
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    if length > u32::MAX as usize {
        return Err("the vocabulary is larger than 4 GiB".to_owned());
    }
    // Two slots in three are taken: short probes, 6 bytes a piece.
    let mut table = vec![EMPTY; pieces.len() * 3 / 2 + 2];
    for (id, piece) in pieces.iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
        let (mut slot, mark) = Hash::START.then(piece.as_bytes()).place(table.len());
        // Of equal pieces the last one counts, as it does in the reference.
        while table[slot] != EMPTY && pieces[(table[slot] & ID_MASK) as usize] != *piece {
            slot = (slot + 1) % table.len();
        }
        table[slot] = mark | id as u32;
    }
    let longest = pieces.iter().map(|piece| piece.len()).max().unwrap_or(0);
    let counts = [pieces.len(), table.len(), longest].map(|count| count as u32);
    let mut numbers = vec![rules.to_flags()];
    numbers.extend(counts);
    numbers.extend([unknown, cls, sep, specials.len() as u32]);
    numbers.extend(specials);
    let mut place = 0;
    numbers.push(0);
    numbers.extend(pieces.iter().map(|piece| {
        place += piece.len() as u32;
        place
    }));
    numbers.extend(table);
    let mut bytes = MAGIC.to_vec();
    bytes.reserve(numbers.len() * 4 + length);
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes.extend(pieces.iter().flat_map(|piece| piece.bytes()));
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It would be found everywhere, and reading would never get beyond it.
    #[test]
    fn a_special_token_without_a_letter_is_refused() {
        let pieces = ["[UNK]", "[CLS]", "[SEP]", "ez", ""];
        let rules = Rules::bert(true);
        assert_eq!(pack(&pieces, &[3, 4], rules).unwrap_err(), EMPTY_SPECIAL);
        let mut bytes = pack(&pieces, &[3, 0], rules).unwrap();
        Vocabulary::from_bytes(&bytes[..]).unwrap();
        let second = MAGIC.len() + 4 * (NUMBERS + 1);
        bytes[second..second + 4].copy_from_slice(&4_u32.to_le_bytes());
        assert_eq!(Vocabulary::from_bytes(&bytes[..]).unwrap_err(), EMPTY_SPECIAL);
    }
}
