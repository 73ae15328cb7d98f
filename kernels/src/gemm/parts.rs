//! Packed int8 weights word by word, dense or not, for whoever reads them otherwise than as a product.

use super::{PANEL, WeightsI8, depth_blocks};

/// Some words of a panel.
pub(crate) struct Part<'a> {
    first: usize,
    /// Which of its words there are; all, where it is dense.
    places: Option<&'a [u8]>,
    /// `[words][16 outputs][4 inputs]`
    pub(crate) words: &'a [[i8; 4 * PANEL]],
}

impl Part<'_> {
    /// Where along k, in words, `words[index]` stands.
    #[inline(always)]
    pub(crate) fn place(&self, index: usize) -> usize {
        self.first + self.places.map_or(index, |places| places[index].into())
    }
}

impl<'a> WeightsI8<'a> {
    /// Whether the sums are those of the weights, and no weight is -128. Products with others differ from one instruction set to
    /// the next: NEON adds two products in 16 bits, which 2 · 128 · 128 does not fit into.
    pub fn is_sound(&self) -> bool {
        self.sums().chunks_exact(PANEL).enumerate().all(|(panel, sums)| {
            let mut left: [i32; PANEL] = sums.try_into().expect("a chunk of that many");
            for word in self.parts(panel).flat_map(|part| part.words) {
                if word.contains(&i8::MIN) {
                    return false;
                }
                for (left, weights) in left.iter_mut().zip(word.as_chunks::<4>().0) {
                    *left = weights.iter().fold(*left, |left, w| left.wrapping_sub(i32::from(*w)));
                }
            }
            left == [0; PANEL]
        })
    }

    /// The words of a panel that may be other than zero, ascending along k.
    pub(crate) fn parts(&self, panel: usize) -> impl Iterator<Item = Part<'a>> {
        let weights = *self;
        let words = weights.shape()[1].div_ceil(4);
        let parts = match weights {
            WeightsI8::Dense(_) => 1,
            WeightsI8::Blocks(_) => depth_blocks(words).len(),
        };
        depth_blocks(words).take(parts).enumerate().map(move |(part, range)| match weights {
            WeightsI8::Dense(weights) => Part { first: 0, places: None, words: weights.panel(panel) },
            WeightsI8::Blocks(weights) => {
                let (places, words) = weights.list(panel * parts + part);
                Part { first: range.start, places: Some(places), words }
            }
        })
    }
}
