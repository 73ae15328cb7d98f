//! The operands of a product: a borrowed matrix in either orientation, and the packed right operand.

use super::{PANEL, Panels, ahead};
use std::ops::Range;

/// A borrowed f32 matrix, row by row in memory or the transpose of one that is.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// From a row to the next in memory, or from a column to the next if transposed.
    pub(super) stride: usize,
    pub(super) transposed: bool,
}

impl<'a> Matrix<'a> {
    /// A `[rows, cols]` matrix whose rows follow each other.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::with_stride(data, rows, cols, cols)
    }

    /// A `[rows, cols]` matrix whose rows begin `row_stride` elements apart.
    pub fn with_stride(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(row_stride >= cols, "rows of {cols} elements overlap at a stride of {row_stride}");
        let len = rows.checked_sub(1).map_or(0, |last| last * row_stride + cols);
        assert!(data.len() >= len, "a {rows}×{cols} matrix needs {len} elements, not {}", data.len());
        Self { data, rows, cols, stride: row_stride, transposed: false }
    }

    /// The transpose, without moving anything.
    pub fn transpose(self) -> Self {
        Self { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// The rows in `range`.
    pub fn rows(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let step = if self.transposed { 1 } else { self.stride };
        let data = self.data.get(range.start * step..).unwrap_or_default();
        Self { data, rows: range.len(), ..self }
    }

    /// The columns in `range`.
    pub fn cols(self, range: Range<usize>) -> Self {
        self.transpose().rows(range).transpose()
    }

    /// `[rows, cols]`.
    pub fn shape(self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Line `index` of memory: a row, or a column if transposed.
    #[inline(always)]
    pub(super) fn line(&self, index: usize) -> &'a [f32] {
        let len = if self.transposed { self.rows } else { self.cols };
        &self.data[index * self.stride..][..len]
    }
}

/// What the elements of a [`PackedMatrix`] are, and so what a product multiplies. Sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits: equal bit for bit on every row.
    F32,
    /// The upper 16 bits of an f32, rounded to nearest even; both operands are rounded.
    #[cfg(feature = "train")]
    Bf16,
}

impl Precision {
    /// Words along k that hold `k` elements.
    pub(super) fn words(self, k: usize) -> usize {
        match self {
            Precision::F32 => k,
            #[cfg(feature = "train")]
            Precision::Bf16 => k.div_ceil(2),
        }
    }
}

/// Sixteen words, one per column of a panel, on one line of cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct PanelRow([u32; PANEL]);

/// The right operand `b: [k, n]` of a product, in panels `[⌈n/16⌉][words of k][16]`, padded with zeros.
///
/// The layout is the same on every row of the table. Memory is kept by [`resize`](Self::resize), so
/// that one value can be packed again at every step of a training.
#[derive(Debug)]
pub struct PackedMatrix {
    rows: Vec<PanelRow>,
    precision: Precision,
    k: usize,
    n: usize,
}

impl PackedMatrix {
    /// A matrix of zeros.
    pub fn new(precision: Precision, k: usize, n: usize) -> Self {
        let mut packed = Self { rows: Vec::new(), precision, k: 0, n: 0 };
        packed.resize(k, n);
        packed
    }

    /// Takes another shape, in the same memory if it is large enough. What it holds then is unspecified
    /// until every panel is packed.
    pub fn resize(&mut self, k: usize, n: usize) {
        (self.k, self.n) = (k, n);
        self.rows.resize(self.panels() * self.words(), PanelRow([0; PANEL]));
    }

    /// Takes another precision and shape, as [`resize`](Self::resize).
    pub fn reset(&mut self, precision: Precision, k: usize, n: usize) {
        self.precision = precision;
        self.resize(k, n);
    }

    /// `[k, n]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.k, self.n]
    }

    /// What the elements are.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The number of panels: ⌈n/16⌉.
    pub fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// How many blocks of four rows of k in a panel are zero, the last of a panel with fewer rows counted: what
    /// would be one register of packed int8 weights.
    pub fn zero_blocks(&self) -> usize {
        // Without the signs: -0 is zero.
        let (magnitude, words) = match self.precision {
            Precision::F32 => (0x7fff_ffff, 4),
            #[cfg(feature = "train")]
            Precision::Bf16 => (0x7fff_7fff, 2),
        };
        let panels = self.rows.chunks(self.words().max(1));
        let zero = |rows: &&[PanelRow]| rows.iter().flat_map(|row| row.0).all(|word| word & magnitude == 0);
        panels.flat_map(|panel| panel.chunks(words)).filter(zero).count()
    }

    /// Every panel at once, to be packed by one thread.
    pub fn panels_mut(&mut self) -> PanelsMut<'_> {
        let (precision, k, n) = (self.precision, self.k, self.n);
        PanelsMut { rows: words_mut(&mut self.rows), first: 0, precision, k, n }
    }

    /// Groups of `panels_each` panels (the last may be smaller), for threads to pack.
    pub fn split_mut(&mut self, panels_each: usize) -> impl Iterator<Item = PanelsMut<'_>> {
        let (precision, k, n) = (self.precision, self.k, self.n);
        // With k = 0 there is no memory to split, and nothing to pack.
        let group = (panels_each * self.words()).max(1);
        words_mut(&mut self.rows).chunks_mut(group).enumerate().map(move |(index, rows)| PanelsMut {
            rows,
            first: index * panels_each,
            precision,
            k,
            n,
        })
    }

    /// Rows `words` of panel `index` and of the next, if there is one.
    pub(super) fn panels_at(&self, index: usize, words: Range<usize>) -> Panels<'_, [u32; PANEL]> {
        let second = (index + 1 < self.panels()).then(|| self.panel(index + 1, words.clone()));
        let ahead = ahead(&words, self.words());
        Panels { first: self.panel(index, words), second, ahead }
    }

    fn panel(&self, index: usize, words: Range<usize>) -> &[[u32; PANEL]] {
        let rows = &self.rows[index * self.words()..][words];
        // SAFETY: `PanelRow` is exactly one `[u32; 16]`: 64 bytes at an alignment of 64.
        unsafe { std::slice::from_raw_parts(rows.as_ptr().cast(), rows.len()) }
    }

    pub(super) fn words(&self) -> usize {
        self.precision.words(self.k)
    }
}

fn words_mut(rows: &mut [PanelRow]) -> &mut [[u32; PANEL]] {
    // SAFETY: as in `panel`; the borrow goes on in the result.
    unsafe { std::slice::from_raw_parts_mut(rows.as_mut_ptr().cast(), rows.len()) }
}

/// Some panels of a [`PackedMatrix`], to be packed by [`Kernels::pack`](crate::Kernels::pack).
#[derive(Debug)]
pub struct PanelsMut<'a> {
    pub(super) rows: &'a mut [[u32; PANEL]],
    pub(super) first: usize,
    pub(super) precision: Precision,
    pub(super) k: usize,
    pub(super) n: usize,
}
