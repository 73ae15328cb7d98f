//! Block-sparse int8 weights: the panels of [`PackedI8`](super::PackedI8), without the words that are zero.
//!
//! A block is sixteen outputs by four inputs: one word of a panel, 64 bytes, what one instruction multiplies. What is
//! left out costs neither time nor space; what is kept costs what it costs in a dense product, and one byte that
//! says where it stands. k is cut as dense products cut it (`depth_blocks`), so that the place of a word within its
//! part fits that byte, and a row of `a` is the same lines to both.
//!
//! ```text
//! starts: [panels · parts + 1]     blocks starts[i] .. starts[i + 1] belong to panel i / parts, part i % parts
//! words:  [blocks]                 which word of its part a block is, ascending
//! blocks: [blocks][16][4]
//! ```

use super::{Int8Kernels, Left, PANEL, depth_blocks, packed_i8_len};

/// A block's shape: outputs, inputs.
pub const BLOCK_SHAPE: [usize; 2] = [PANEL, 4];

/// Blocks are read one after the other, list after list and panel after panel: how many ahead of each one the tiles prefetch.
/// 4 KiB, which a tile of 24 rows takes longer for than memory does to answer.
#[cfg(target_arch = "x86_64")]
pub(super) const BLOCKS_AHEAD: usize = 64;

/// The parts that k is cut into, and so how many lists of blocks a panel has.
pub fn blocks_i8_parts(k: usize) -> usize {
    depth_blocks(k.div_ceil(4)).len()
}

/// What [`pack_blocks_i8`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedBlocks {
    /// `[blocks, 16, 4]`
    pub blocks: Vec<i8>,
    /// `[blocks]`
    pub words: Vec<u8>,
    /// `[panels · parts + 1]`
    pub starts: Vec<i32>,
}

/// Leaves the zero words of dense panels out. `packed`: as [`pack_i8`](super::pack_i8) lays out weights `[n, k]`.
pub fn pack_blocks_i8(packed: &[i8], n: usize, k: usize) -> PackedBlocks {
    assert_eq!(packed.len(), packed_i8_len(n, k), "the packed length of {n}×{k} weights");
    let mut out = PackedBlocks { blocks: Vec::new(), words: Vec::new(), starts: vec![0] };
    let all = k.div_ceil(4);
    for panel in 0..n.div_ceil(PANEL) {
        for part in depth_blocks(all) {
            for (place, word) in part.enumerate() {
                let block = &packed[(panel * all + word) * 4 * PANEL..][..4 * PANEL];
                if block.iter().any(|w| *w != 0) {
                    out.blocks.extend_from_slice(block);
                    out.words.push(place as u8);
                }
            }
            out.starts.push(out.words.len() as i32);
        }
    }
    out
}

/// What is wrong with the lists of blocks of weights with `k` inputs, if anything is: they must follow each other, cover all
/// blocks, and name the words of their part in ascending order.
pub fn blocks_problem(words: &[u8], starts: &[i32], k: usize) -> Option<String> {
    let ends = (starts.first(), starts.last().map(|&end| usize::try_from(end)));
    if ends != (Some(&0), Some(Ok(words.len()))) {
        return Some(format!("its lists do not cover its {} blocks", words.len()));
    }
    let parts: Vec<usize> = depth_blocks(k.div_ceil(4)).map(|part| part.len()).collect();
    for (list, ends) in starts.windows(2).enumerate() {
        let range = usize::try_from(ends[0]).ok().zip(usize::try_from(ends[1]).ok());
        let Some(words) = range.and_then(|(start, end)| words.get(start..end)) else {
            return Some(format!("list {list} of its blocks is from {} to {}", ends[0], ends[1]));
        };
        let depth = parts[list % parts.len()];
        let ascending = words.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || words.last().is_some_and(|&last| usize::from(last) >= depth) {
            return Some(format!("list {list} of its blocks names no {depth} words in order"));
        }
    }
    None
}

/// The first word of a part of k, to which the words of its lists are added.
pub fn blocks_i8_part(k: usize, part: usize) -> usize {
    depth_blocks(k.div_ceil(4)).nth(part).map_or(0, |part| part.start)
}

/// Block-sparse weights: the right operand of an int8 product.
#[derive(Clone, Copy, Debug)]
pub struct BlocksI8<'a> {
    blocks: &'a [[i8; 4 * PANEL]],
    words: &'a [u8],
    starts: &'a [i32],
    pub(super) sums: &'a [i32],
    pub(super) n: usize,
    pub(super) k: usize,
}

impl<'a> BlocksI8<'a> {
    /// Weights `[n, k]` as [`pack_blocks_i8`] lays them out, and their sums as
    /// [`packed_i8_sums`](super::packed_i8_sums) gives them. A product with weights that [`blocks_problem`] finds
    /// wrong is wrong too, but reads nothing else.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn new(
        blocks: &'a [i8],
        words: &'a [u8],
        starts: &'a [i32],
        sums: &'a [i32],
        [n, k]: [usize; 2],
    ) -> Self {
        assert_eq!(blocks.len(), words.len() * 4 * PANEL, "64 bytes a block");
        assert_eq!(
            starts.len(),
            n.div_ceil(PANEL) * blocks_i8_parts(k) + 1,
            "one list for each part of each panel"
        );
        assert_eq!(sums.len(), n.next_multiple_of(PANEL), "one sum per output of every panel");
        Self { blocks: blocks.as_chunks().0, words, starts, sums, n, k }
    }

    /// The blocks of a list, and their words; none if the lists are damaged.
    pub(super) fn list(&self, list: usize) -> (&'a [u8], &'a [[i8; 4 * PANEL]]) {
        let range = self.starts[list] as usize..self.starts[list + 1] as usize;
        let lists = self.words.get(range.clone()).zip(self.blocks.get(range));
        lists.unwrap_or_default()
    }

    /// As [`Int8Kernels::multiply`].
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn multiply(
        &self,
        kernels: &Int8Kernels,
        a: Left<'_>,
        panel: usize,
        start: &[i32; 2 * PANEL],
        sums: &mut [[i32; 2 * PANEL]],
    ) {
        let parts = blocks_i8_parts(self.k);
        let starts = start.as_chunks().0;
        for (half, panel) in (panel..self.n.div_ceil(PANEL)).take(2).enumerate() {
            let sums = &mut sums.as_flattened_mut()[half * PANEL..];
            for part in 0..parts {
                let (words, blocks) = self.list(panel * parts + part);
                let start = (part == 0).then_some(&starts[half]);
                // SAFETY: the caller's promise.
                unsafe { (kernels.blocks)(a.of_part(part), words, blocks, start, sums, 2 * PANEL) }
            }
        }
    }
}
