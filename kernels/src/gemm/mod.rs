//! Matrix products: `c = a·b` in f32, in bf16 and in int8, every size, on every row of the table.
//!
//! The right operand `b` is packed before: into *panels* of sixteen columns, whose rows are 64 bytes of
//! sixteen *words*. A word holds what one lane multiplies in one step: one f32, two bf16 or four int8,
//! neighbours along k. So the three products have one shape, and differ in the step alone:
//!
//! ```text
//!            panel 0   panel 1
//!   word 0  [16 words][16 words]      one tile (AVX-512) = 12 rows × 2 panels = 24 registers of sums;
//!   word 1  [16 words][16 words]      each word of b is loaded once per tile, each word of a is
//!     ⋮      b, in L1 across rows      broadcast, and 24 multiply-adds follow 14 loads
//! a row ─►  [ c     ] [ c     ]
//! ```
//!
//! Loops, outside in: blocks of rows of `a`, in words, `KC` to a line, so that any tile addresses its rows by
//! constants and no two of them fight for one cache set: floats are copied so, bytes ([`QuantizedRows`]) lie so; pairs of
//! panels; blocks of `KC` words along k, whose 128 bytes a step stay in L1; tiles of rows. `c` is
//! seeded with the bias (or kept, to accumulate) and every tile adds to it. A sum that waits in `c`
//! between two blocks is the same f32 as one that waits in a register: the result does not depend on
//! the blocking, which is why f32 products are equal bit for bit on every row.

mod blocks;
mod float;
mod int8;
mod pack;
mod packed;
mod parts;
mod quantized;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx_vnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_dotprod;
pub(crate) mod scalar;

pub use blocks::{
    BLOCK_SHAPE, BlocksI8, PackedBlocks, blocks_i8_part, blocks_i8_parts, blocks_problem, pack_blocks_i8,
};
pub use float::Epilogue;
pub use int8::{LayerI8, PackedI8, WeightsI8, pack_i8, packed_i8_len, packed_i8_sums, packed_i8_with_sums};
pub(crate) use int8::{Scales, start};
pub use packed::{Matrix, PackedMatrix, PanelsMut, Precision};
pub(crate) use quantized::{Left, RowMut};
pub use quantized::{QuantizedRows, RowsI8};

use std::cell::RefCell;
use std::ops::Range;

/// Columns of a panel: the words of 64 bytes.
pub(crate) const PANEL: usize = 16;

/// Words of k in one block, at most: two panels of 192 of them are 24 KiB, which leaves the smallest L1 we
/// meet 8 KiB for `a` and `c`, and k = 384 or 768 are whole blocks in every precision.
pub(crate) const KC: usize = 192;

/// Lines of a packed block of `a`: 648 KiB, of the 1 MiB of L2 of the CPUs that we tune for.
const BLOCK_LINES: usize = 864;

/// One row of `a` in one block of k.
pub(crate) type Line = [u32; KC];

/// `c[i][j] = start[j] + Σ_p a[i][p]·b[p][j]` for two neighbouring panels of `b`, equally deep, or for one,
/// of which `c` holds every column. Without a start, `c` goes on from what it holds.
pub(crate) type Strip<B, C> =
    unsafe fn(a: &[Line], b: Panels<'_, B>, start: Start<'_, C>, c: &mut [C], c_stride: usize);

/// What the columns of two panels start from.
pub(crate) type Start<'a, C> = Option<&'a [C; 2 * PANEL]>;

/// One panel, or two neighbours, for one block of k.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a, B> {
    pub(crate) first: &'a [B],
    pub(crate) second: Option<&'a [B]>,
    /// How many words ahead of each word the next product of this kind finds its own: what to prefetch.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "Arm's tiles leave prefetching to the CPU")
    )]
    pub(crate) ahead: usize,
}

impl<'a, B> Panels<'a, B> {
    /// Those that there are.
    #[inline(always)]
    pub(crate) fn each(self) -> impl Iterator<Item = &'a [B]> {
        [Some(self.first), self.second].into_iter().flatten()
    }
}

/// [`Panels::ahead`]: behind `words` of `all` comes the next part of the same panels, or the next two.
fn ahead(words: &Range<usize>, all: usize) -> usize {
    if words.end < all { words.len() } else { 2 * all - words.start }
}

/// Fetches what `values` has for the columns of panel `index` and of the next: a hint, which may be beyond their end.
#[inline(always)]
fn prefetch_two<T>(values: &[T], index: usize) {
    for panel in [index, index + 1] {
        let at = values.as_ptr().wrapping_add(panel * PANEL);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 has the instruction, and it reads nothing that the program sees.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

/// As a [`Strip`] of one panel, of which `b` holds some words: `b[i]` is word `words[i]`, which is below [`KC`].
pub(crate) type BlockStrip = unsafe fn(
    a: &[Line],
    words: &[u8],
    b: &[[i8; 4 * PANEL]],
    start: Option<&[i32; PANEL]>,
    c: &mut [i32],
    c_stride: usize,
);

/// How one precision of floats is packed and multiplied.
#[derive(Debug)]
pub(crate) struct FloatKernels {
    /// Fills one line per row of `a` from the words in the range.
    pub(crate) pack_a: unsafe fn(a: Matrix<'_>, words: Range<usize>, lines: &mut [Line]),
    /// Fills panels from the columns of `b` that they stand for.
    pub(crate) pack_b: unsafe fn(b: Matrix<'_>, into: &mut PanelsMut<'_>),
    /// Multiplies.
    pub(crate) strip: Strip<[u32; PANEL], f32>,
}

/// Fills two lines for each line of `a`.
pub(crate) type Widen = unsafe fn(a: &[Line], wide: &mut [Line]);

/// How int8 is multiplied.
#[derive(Debug)]
pub(crate) struct Int8Kernels {
    /// The zero point of bytes of `a` as the strips multiply them: 128 if they read the stored bytes as unsigned, which sums that
    /// start from −128·Σw make up for; 0 if they make them signed first.
    pub(crate) offset: i32,
    /// If there is one, the strips read what it makes of the lines of `a`: two for each.
    pub(crate) widen: Option<Widen>,
    /// Multiplies.
    pub(crate) strip: Strip<[i8; 4 * PANEL], i32>,
    /// Multiplies by what is left of a panel.
    pub(crate) blocks: BlockStrip,
}

/// The matrix products of one instruction set.
#[derive(Debug)]
pub(crate) struct GemmKernels {
    pub(crate) f32: FloatKernels,
    #[cfg(feature = "train")]
    pub(crate) bf16: FloatKernels,
    pub(crate) i8: Int8Kernels,
}

/// A line of cache, so that blocks start on one.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Aligned(Line);

/// Memory for lines, kept from call to call: fresh memory would cost page faults in each.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<Aligned>);

impl Lines {
    /// Lends `count` lines; once lent, they keep what is written until more are asked for.
    pub(crate) fn lend(&mut self, count: usize) -> &mut [Line] {
        if self.0.len() < count {
            self.0.resize(count, Aligned([0; KC]));
        }
        &mut self.get_mut()[..count]
    }

    /// All lines that were ever lent.
    pub(crate) fn get(&self) -> &[Line] {
        // SAFETY: `Aligned` is exactly one `Line` (768 bytes, a multiple of its alignment).
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len()) }
    }

    /// As [`Lines::get`], to write.
    pub(crate) fn get_mut(&mut self) -> &mut [Line] {
        // SAFETY: as in `get`; the borrow goes on in the result.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len()) }
    }
}

thread_local! {
    /// The packed block of `a`.
    static BLOCK: RefCell<Lines> = const { RefCell::new(Lines(Vec::new())) };
}

/// Lends this thread's scratch memory.
fn with_lines<R>(body: impl FnOnce(&mut Lines) -> R) -> R {
    BLOCK.with_borrow_mut(body)
}

/// Blocks of at most `KC` that cut `0..words` into equal parts.
///
/// One block, an empty one, if there are no words: it is what gives `c` its start.
pub(crate) fn depth_blocks(words: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    let blocks = words.div_ceil(KC).max(1);
    (0..blocks).map(move |index| match blocks {
        // To divide takes longer than a short row does.
        1 => 0..words,
        _ => index * words / blocks..(index + 1) * words / blocks,
    })
}

/// Cuts `rows` rows into equal tiles of at most `tile`, calling `each` with the first row and their number.
#[inline(always)]
pub(crate) fn tiles(rows: usize, tile: usize, mut each: impl FnMut(usize, usize)) {
    let mut first = 0;
    while first < rows {
        let left = rows - first;
        let size = left.div_ceil(left.div_ceil(tile));
        each(first, size);
        first += size;
    }
}
