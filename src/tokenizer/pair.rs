//! Two sentences as one text.

use crate::Text;

/// The ids of two sentences, `[CLS] first [SEP] second [SEP]`, or of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Token ids.
    pub ids: Vec<u32>,
    /// How many of them are the first sentence's, `[CLS]` and `[SEP]` included.
    pub first: usize,
}

impl From<Vec<u32>> for Pair {
    /// A sentence alone.
    fn from(ids: Vec<u32>) -> Pair {
        Pair { first: ids.len(), ids }
    }
}

impl Pair {
    /// As a text of a batch.
    pub fn text(&self) -> Text<'_> {
        Text { ids: &self.ids, first: self.first }
    }

    /// Puts the pieces of two sentences between the special tokens, cut to `max_tokens` in all.
    pub(super) fn new([cls, sep]: [u32; 2], [first, second]: [&[u32]; 2], max_tokens: usize) -> Pair {
        let [one, two] = longest_first([first.len(), second.len()], max_tokens.saturating_sub(3));
        let mut ids = Vec::with_capacity(one + two + 3);
        ids.push(cls);
        ids.extend_from_slice(&first[..one]);
        ids.push(sep);
        let first = ids.len();
        ids.extend_from_slice(&second[..two]);
        ids.push(sep);
        Pair { ids, first }
    }
}

/// How many pieces of two sentences stay where there is room for `most`, as the tokenizers crate has it
/// (`longest_first`): the longer is cut to what the shorter leaves; if both are longer than half, each gets a half, and
/// the longer, or the second of equally long ones, the odd piece.
fn longest_first([first, second]: [usize; 2], most: usize) -> [usize; 2] {
    if first + second <= most {
        return [first, second];
    }
    let (shorter, longer) = (first.min(second), first.max(second));
    let (shorter, longer) = match shorter <= most / 2 {
        true => (shorter, longer.min(most - shorter)),
        false => (most / 2, most - most / 2),
    };
    if first > second { [longer, shorter] } else { [shorter, longer] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_sentence_is_cut_first() {
        for (lengths, most, expected) in [
            ([3, 4], 7, [3, 4]),
            ([3, 9], 7, [3, 4]),
            ([9, 3], 7, [4, 3]),
            ([9, 2], 7, [5, 2]),
            ([9, 8], 7, [4, 3]),
            ([8, 9], 7, [3, 4]),
            ([8, 8], 7, [3, 4]),
            ([8, 8], 8, [4, 4]),
            ([0, 9], 7, [0, 7]),
            ([5, 0], 0, [0, 0]),
            ([1, 1], 1, [0, 1]),
        ] {
            assert_eq!(longest_first(lengths, most), expected, "{lengths:?} in {most}");
        }
    }
}
