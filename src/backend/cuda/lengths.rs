//! Texts by length: what kernels of attention, which have a tile for each class of lengths, are told to work on.

use super::{Cuda, Memory};
use crate::{Batch, Result};
use std::ops::Range;

/// The longest texts of each class: those that a block holds as a whole.
pub const CLASSES: [usize; 3] = [32, 64, 128];

/// Rows of a text that a block takes where it cannot take all.
pub const TILE: usize = 64;

/// Texts from the longest to the shortest, in device memory.
pub struct Lengths {
    /// `int[texts + 2 · tiles]`: the texts, then pairs of a text of more than 64 tokens and the first of a tile of its rows.
    pub list: Memory,
    counts: Counts,
}

/// How many there are, which is all that launches depend on. Counts are rounded up, so that batches that are much alike are launched
/// in the same way: a class has room for shorter texts, and a tile that begins behind the end of its text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Counts {
    texts: usize,
    /// Texts of more tokens than each class has, and their tiles.
    longer: [[usize; 2]; 3],
}

/// A count of things of which there are `of`, rounded up by a quarter of those at most, and not at all where they are few.
fn rounded(count: usize, of: usize) -> usize {
    count.next_multiple_of((of / 8).next_power_of_two())
}

impl Counts {
    /// The list of [`Lengths`], and its counts.
    pub(super) fn of(batch: &Batch) -> (Vec<i32>, Counts) {
        let len = |text: usize| batch.text(text).len();
        let mut texts: Vec<usize> = (0..batch.texts()).collect();
        texts.sort_by_key(|&text| std::cmp::Reverse(len(text)));
        let mut list: Vec<i32> = texts.iter().map(|&text| text as i32).collect();
        let count = |class| rounded(texts.partition_point(|&text| len(text) > class), texts.len());
        let [short, middle, long] = CLASSES.map(|class| count(class).min(texts.len()));
        let mut tiles = [0; 2];
        for (range, tiles) in [0..long, long..middle].into_iter().zip(&mut tiles) {
            let of_text =
                |&text: &usize| (0..len(text)).step_by(TILE).map(move |row| [text as i32, row as i32]);
            let found: Vec<[i32; 2]> = texts[range].iter().flat_map(of_text).collect();
            *tiles = rounded(found.len(), found.len());
            let none = [texts.first().map_or(0, |&text| text as i32), i32::MAX];
            list.extend(found.iter().chain(std::iter::repeat(&none)).take(*tiles).flatten());
        }
        let (of_long, of_middle) = (tiles[0], tiles[0] + tiles[1]);
        let longer = [[short, of_middle], [middle, of_middle], [long, of_long]];
        (list, Counts { texts: texts.len(), longer })
    }
}

/// What one launch works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Texts of up to so many tokens, at these places of the list.
    Texts(usize, Range<usize>),
    /// Tiles, from this place of the list on.
    Tiles {
        /// Where the first one is.
        first: usize,
        /// How many.
        count: usize,
    },
}

impl Lengths {
    pub(super) fn of(cuda: &Cuda, batch: &Batch) -> Result<Lengths> {
        let (list, counts) = Counts::of(batch);
        Ok(Lengths { list: cuda.upload_all(&list)?, counts })
    }

    /// Launches that cover all texts: classes of up to `most` tokens (at least 64), the rest in tiles. A class of fewer than
    /// `least` texts joins the next one, if that has any: a launch less is worth more than tiles that fit.
    pub fn parts(&self, most: usize, least: usize) -> Vec<Part> {
        let fit = CLASSES.iter().filter(|&&class| class <= most).count();
        let Counts { texts, longer } = self.counts;
        let (mut parts, mut end) = (Vec::new(), texts);
        for (place, (&class, &[first, _])) in CLASSES.iter().zip(&longer).take(fit).enumerate() {
            let in_next = longer[..fit].get(place + 1).map_or(0, |[next, _]| first - next);
            if end - first < least && in_next > 0 {
                continue;
            }
            if first < end {
                parts.push(Part::Texts(class, first..end));
            }
            end = first;
        }
        let count = longer[fit - 1][1];
        if count > 0 {
            parts.push(Part::Tiles { first: texts, count });
        }
        parts
    }
}
