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
    texts: usize,
    /// Texts of more tokens than each class has, and their tiles.
    longer: [[usize; 2]; 3],
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
        let len = |text: usize| batch.text(text).len();
        let mut texts: Vec<usize> = (0..batch.texts()).collect();
        texts.sort_by_key(|&text| std::cmp::Reverse(len(text)));
        let mut list: Vec<i32> = texts.iter().map(|&text| text as i32).collect();
        let longer = CLASSES.map(|class| texts.partition_point(|&text| len(text) > class));
        let tiles = |texts: &[usize]| texts.iter().map(|&text| len(text).div_ceil(TILE)).sum();
        for &text in &texts[..longer[1]] {
            list.extend((0..len(text)).step_by(TILE).flat_map(|row| [text as i32, row as i32]));
        }
        let longer = longer.map(|count| [count, tiles(&texts[..count])]);
        Ok(Lengths { list: cuda.upload_all(&list)?, texts: texts.len(), longer })
    }

    /// Launches that cover all texts: classes of up to `most` tokens (at least 64), the rest in tiles. A class of fewer than
    /// `least` texts joins the next one, if that has any: a launch less is worth more than tiles that fit.
    pub fn parts(&self, most: usize, least: usize) -> Vec<Part> {
        let fit = CLASSES.iter().filter(|&&class| class <= most).count();
        let (mut parts, mut end) = (Vec::new(), self.texts);
        for (place, (&class, &[first, _])) in CLASSES.iter().zip(&self.longer).take(fit).enumerate() {
            let in_next = self.longer[..fit].get(place + 1).map_or(0, |[next, _]| first - next);
            if end - first < least && in_next > 0 {
                continue;
            }
            if first < end {
                parts.push(Part::Texts(class, first..end));
            }
            end = first;
        }
        let count = self.longer[fit - 1][1];
        if count > 0 {
            parts.push(Part::Tiles { first: self.texts, count });
        }
        parts
    }
}
