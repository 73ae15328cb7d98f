//! Activations in int8, in the order in which products read them: the left operand.

use super::{Int8Kernels, KC, Line, Lines, blocks_i8_parts, depth_blocks};
use std::ops::Range;

/// Rows of activations in bytes, biased by 128, each with its scale.
///
/// k is cut into parts as products cut it, and the part of a row is one line of at most 768 bytes: lines begin where
/// cache lines do, and no product copies them.
#[derive(Debug, Default)]
pub struct QuantizedRows {
    /// `[parts, rows]`
    lines: Lines,
    scale: Vec<f32>,
    rows: usize,
    k: usize,
}

impl QuantizedRows {
    /// Makes room for `rows` rows of `k` values. Memory grows and stays; what it holds is unspecified.
    pub fn reset(&mut self, rows: usize, k: usize) {
        (self.rows, self.k) = (rows, k);
        self.lines.lend(rows * blocks_i8_parts(k));
        if self.scale.len() < rows {
            self.scale.resize(rows, 0.0);
        }
    }

    /// Rows of `k` bytes each, with their scales. Any bytes are right in a product.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn from_bytes(bytes: &[u8], k: usize, scale: &[f32]) -> QuantizedRows {
        assert_eq!(bytes.len(), k * scale.len(), "k bytes for each scale");
        let mut rows = QuantizedRows::default();
        rows.reset(scale.len(), k);
        rows.scale[..scale.len()].copy_from_slice(scale);
        for (row, bytes) in bytes.chunks(k.max(1)).enumerate() {
            rows.row_mut(row).copy(bytes);
        }
        rows
    }

    /// The scale of each row.
    pub fn scale(&self) -> &[f32] {
        &self.scale[..self.rows]
    }

    /// The bytes of a row.
    pub fn bytes(&self, row: usize) -> Vec<u8> {
        let parts = depth_blocks(self.k.div_ceil(4)).zip(self.lines.get().chunks(self.rows));
        let words = parts.flat_map(|(words, lines)| lines[row][..words.len()].iter().copied());
        words.flat_map(u32::to_le_bytes).take(self.k).collect()
    }

    /// What a row's bytes stand for: `[k]`.
    pub fn values(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.k, "a value for each byte");
        let scale = self.scale[row];
        let parts = depth_blocks(self.k.div_ceil(4)).zip(self.lines.get().chunks(self.rows));
        let words = parts.flat_map(|(words, lines)| &lines[row][..words.len()]);
        for (out, word) in out.chunks_mut(4).zip(words) {
            for (out, byte) in out.iter_mut().zip(word.to_le_bytes()) {
                *out = (f32::from(byte) - 128.0) * scale;
            }
        }
    }

    /// Makes a row equal to one of `from`, which has the same k.
    pub fn copy_row(&mut self, row: usize, from: &QuantizedRows, from_row: usize) {
        assert!(self.k == from.k && row < self.rows && from_row < from.rows, "rows that there are");
        self.scale[row] = from.scale[from_row];
        for part in 0..blocks_i8_parts(self.k) {
            let line = from.lines.get()[part * from.rows + from_row];
            self.lines.get_mut()[part * self.rows + row] = line;
        }
    }

    /// Some neighbouring rows, to read.
    pub fn rows(&self, range: Range<usize>) -> RowsI8<'_> {
        let scale = &self.scale()[range.clone()];
        let lines = self.lines.get().get(range.start..).unwrap_or_default();
        RowsI8 { left: Left { lines, stride: self.rows, rows: range.len(), width: 1 }, scale, k: self.k }
    }

    /// A row, to write, and its scale.
    pub(crate) fn row_mut(&mut self, row: usize) -> RowMut<'_> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        RowMut { lines: &mut self.lines.get_mut()[row..], stride: self.rows, k: self.k }
    }

    pub(crate) fn scale_mut(&mut self, row: usize) -> &mut f32 {
        &mut self.scale[row]
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }
}

/// Some rows of [`QuantizedRows`].
#[derive(Clone, Copy, Debug)]
pub struct RowsI8<'a> {
    pub(super) left: Left<'a>,
    /// One for each row.
    pub(super) scale: &'a [f32],
    pub(super) k: usize,
}

impl<'a> RowsI8<'a> {
    /// Some of these rows.
    pub(super) fn range(self, range: Range<usize>) -> RowsI8<'a> {
        RowsI8 { left: self.left.range(range.clone()), scale: &self.scale[range], ..self }
    }
}

/// The lines of some rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left<'a> {
    /// From the first row's first line on.
    pub(crate) lines: &'a [Line],
    /// Lines from one part of k to the next.
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    /// Lines that are one row's in a part.
    pub(crate) width: usize,
}

impl<'a> Left<'a> {
    /// The lines of one part of k.
    pub(crate) fn of_part(&self, part: usize) -> &'a [Line] {
        &self.lines[part * self.stride..][..self.rows * self.width]
    }

    fn range(self, range: Range<usize>) -> Left<'a> {
        let lines = self.lines.get(range.start * self.width..).unwrap_or_default();
        Left { lines, rows: range.len(), ..self }
    }
}

impl Int8Kernels {
    /// Lines as the strips want them, of rows that are `words` words long; in `memory`, if those are others.
    ///
    /// # Safety
    /// The instructions of this row of the table must be there.
    pub(crate) unsafe fn widened<'a>(&self, left: Left<'a>, words: usize, memory: &'a mut Lines) -> Left<'a> {
        let Some(widen) = self.widen else { return left };
        let (parts, stride) = (depth_blocks(words).len(), 2 * left.rows);
        let lines = memory.lend(parts * stride);
        for part in 0..parts {
            // SAFETY: the caller's promise.
            unsafe { widen(left.of_part(part), &mut lines[part * stride..][..stride]) }
        }
        Left { lines, stride, width: 2, ..left }
    }
}

/// One row, to write.
pub(crate) struct RowMut<'a> {
    /// From its first line on.
    pub(crate) lines: &'a mut [Line],
    /// Lines from one part of k to the next.
    pub(crate) stride: usize,
    pub(crate) k: usize,
}

impl RowMut<'_> {
    /// Which values stand in each line, and its bytes: at the end of the row up to three more than values, which weights of
    /// zero meet.
    pub(crate) fn parts(&mut self) -> impl Iterator<Item = (Range<usize>, &mut [u8])> {
        let (k, stride) = (self.k, self.stride.max(1));
        depth_blocks(k.div_ceil(4)).scan(&mut *self.lines, move |lines, words| {
            let (line, rest) = std::mem::take(lines).split_first_mut()?;
            *lines = rest.get_mut(stride - 1..).unwrap_or_default();
            Some((4 * words.start..k.min(4 * words.end), &mut bytes_mut(line)[..4 * words.len()]))
        })
    }

    /// All of its bytes, and what else there is in its line, if it is one line.
    pub(crate) fn line(&mut self) -> Option<&mut [u8; 4 * KC]> {
        (self.k <= 4 * KC).then(|| bytes_mut(&mut self.lines[0]))
    }

    /// Fills it.
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        for (values, out) in self.parts() {
            out[..values.len()].copy_from_slice(&bytes[values]);
        }
    }
}

/// The bytes of a line in the order of memory, which is that of k.
fn bytes_mut(line: &mut Line) -> &mut [u8; 4 * KC] {
    const { assert!(cfg!(target_endian = "little"), "words of the file format are little-endian") };
    // SAFETY: a word is four bytes of any value.
    unsafe { &mut *std::ptr::from_mut(line).cast() }
}
