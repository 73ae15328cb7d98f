//! The register tile of attention, and the packing that feeds it.
//!
//! The right operand `[k, n]` lies in panels of sixteen columns, each `[k]` vectors. Per step of k a tile
//! loads one vector of each of its panels and broadcasts one value of each of its rows:
//!
//!   AVX-512   6 rows × 4 panels   24 of 32 registers accumulate, 10 loads for 24 FMAs
//!   AVX2      6 rows × 1 panel    12 of 16 registers accumulate,  8 loads for 12 FMAs
//!
//! Every output is one chain of FMAs in ascending k, however it is tiled.

use crate::simd::{LANES, Simd, load_up_to_16};
use std::cell::Cell;

/// Rows of a tile.
pub(super) const ROWS: usize = 6;

/// Sixteen values, as they lie in memory.
pub(super) type Vector = [f32; LANES];

/// Vectors that hold `n` values.
pub(super) fn vectors(n: usize) -> usize {
    n.div_ceil(LANES)
}

thread_local! {
    /// The memory of the last call, kept for the next: prediction allocates nothing.
    static MEMORY: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Working memory of one call, zeroed, aligned to cache lines.
pub(super) struct Scratch(Vec<f32>);

impl Drop for Scratch {
    fn drop(&mut self) {
        MEMORY.set(std::mem::take(&mut self.0));
    }
}

impl Scratch {
    pub(super) fn new(vectors: usize) -> Scratch {
        // One vector more than asked for, so that an aligned start can be chosen.
        let mut memory = MEMORY.take();
        memory.clear();
        memory.resize((vectors + 1) * LANES, 0.0);
        Scratch(memory)
    }

    pub(super) fn vectors(&mut self) -> &mut [Vector] {
        let start = self.0.as_ptr().align_offset(size_of::<Vector>()).min(LANES);
        self.0[start..].as_chunks_mut().0
    }
}

/// Takes `n` vectors off the front.
pub(super) fn take<'a>(from: &mut &'a mut [Vector], n: usize) -> &'a mut [Vector] {
    from.split_off_mut(..n).expect("the scratch was made large enough")
}

/// Rows of a matrix, `stride` apart; those of one head.
#[derive(Clone, Copy)]
pub(super) struct HeadRows<'a> {
    data: &'a [f32],
    stride: usize,
    rows: usize,
    width: usize,
}

impl<'a> HeadRows<'a> {
    pub(super) fn new(data: &'a [f32], stride: usize, rows: usize, head: usize, width: usize) -> Self {
        HeadRows { data: &data[head * width..], stride, rows, width }
    }

    pub(super) fn len(self) -> usize {
        self.rows
    }

    /// Values in a row.
    pub(super) fn width(self) -> usize {
        self.width
    }

    #[inline(always)]
    pub(super) fn row(self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..][..self.width]
    }

    /// Asks for the row a few rows behind row `i`: rows are too far apart for the CPU to see it coming.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(self, s: S, i: usize) {
        const AHEAD: usize = 6;
        let row = self.row(i).as_ptr().wrapping_add(AHEAD * self.stride);
        (0..self.width).step_by(LANES).for_each(|at| s.prefetch(row.wrapping_add(at)));
    }

    /// Sixteen columns from `first` on, or as many as there are.
    pub(super) fn columns(self, first: usize) -> Self {
        HeadRows { data: &self.data[first..], width: LANES.min(self.width - first), ..self }
    }

    /// `count` rows from `first` on.
    pub(super) fn part(self, first: usize, count: usize) -> Self {
        HeadRows { data: &self.data[first * self.stride..], rows: count, ..self }
    }

    /// The rows from `first` on; past the end, the last one again, whose results nobody reads.
    #[inline(always)]
    pub(super) fn tile(self, first: usize) -> Rows<'a> {
        let last = self.rows - 1;
        Rows(std::array::from_fn(|r| self.row(last.min(first + r))))
    }

    /// As a right operand with k = rows and n = width.
    #[inline(always)]
    pub(super) fn pack<S: Simd>(self, s: S, panels: &mut [Vector]) {
        for (v, panel) in panels.chunks_exact_mut(self.rows).enumerate() {
            for (i, to) in panel.iter_mut().enumerate() {
                let from = &self.row(i)[v * LANES..];
                s.store(load_up_to_16(s, from), to);
            }
        }
    }

    /// As a right operand with k = width and n = rows: the rows become lanes.
    #[inline(always)]
    pub(super) fn pack_transposed<S: Simd>(self, s: S, panels: &mut [Vector]) {
        for (v, panel) in panels.chunks_exact_mut(self.width).enumerate() {
            for (w, to) in panel.chunks_mut(LANES).enumerate() {
                let mut square = [s.zero(); LANES];
                for (row, i) in square.iter_mut().zip(v * LANES..self.rows) {
                    *row = load_up_to_16(s, &self.row(i)[w * LANES..]);
                }
                for (column, to) in s.transpose(square).into_iter().zip(to) {
                    s.store(column, to);
                }
            }
        }
    }
}

/// A left operand: six rows, walked along k.
pub(super) trait Left: Copy {
    /// Whether products are added to what is there, rather than written over it.
    const ACCUMULATES: bool;

    /// sums[r][v] += Σₚ left[r][p]·panels[v][p]
    fn multiply<S: Simd, const N: usize>(
        self,
        s: S,
        panels: [&[Vector]; N],
        sums: [[S::Floats; N]; ROWS],
    ) -> [[S::Floats; N]; ROWS];
}

/// Six rows, each contiguous along k.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a>(pub(super) [&'a [f32]; ROWS]);

impl Left for Rows<'_> {
    const ACCUMULATES: bool = false;

    #[inline(always)]
    fn multiply<S: Simd, const N: usize>(
        self,
        s: S,
        panels: [&[Vector]; N],
        mut sums: [[S::Floats; N]; ROWS],
    ) -> [[S::Floats; N]; ROWS] {
        let k = panels[0].len();
        let (mut panels, mut rows) = (panels, self.0);
        // Lengths that the compiler can see, so that the loop below has no checks.
        for panel in &mut panels {
            *panel = &panel[..k];
        }
        for row in &mut rows {
            *row = &row[..k];
        }
        for p in 0..k {
            let mut right = [s.zero(); N];
            for (right, panel) in right.iter_mut().zip(&panels) {
                *right = s.load(&panel[p]);
            }
            for (sums, row) in sums.iter_mut().zip(&rows) {
                let left = s.splat(row[p]);
                for (sum, &right) in sums.iter_mut().zip(&right) {
                    *sum = s.fma(left, right, *sum);
                }
            }
        }
        sums
    }
}

/// Six neighbouring columns of a block of rows, so contiguous across the tile: a transposed operand.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) block: &'a [Vector],
    /// Vectors from one row to the next.
    pub(super) stride: usize,
    /// The first column.
    pub(super) first: usize,
}

impl Left for Columns<'_> {
    const ACCUMULATES: bool = true;

    #[inline(always)]
    fn multiply<S: Simd, const N: usize>(
        self,
        s: S,
        panels: [&[Vector]; N],
        mut sums: [[S::Floats; N]; ROWS],
    ) -> [[S::Floats; N]; ROWS] {
        let k = panels[0].len();
        let mut panels = panels;
        for panel in &mut panels {
            *panel = &panel[..k];
        }
        for (p, row) in self.block.chunks_exact(self.stride).take(k).enumerate() {
            let column = row.as_flattened()[self.first..].first_chunk::<ROWS>().expect("padded to tiles");
            let mut right = [s.zero(); N];
            for (right, panel) in right.iter_mut().zip(&panels) {
                *right = s.load(&panel[p]);
            }
            for (sums, &left) in sums.iter_mut().zip(column) {
                let left = s.splat(left);
                for (sum, &right) in sums.iter_mut().zip(&right) {
                    *sum = s.fma(left, right, *sum);
                }
            }
        }
        sums
    }
}

/// Six rows of a product: row r of `out` starts at `out[r·stride]` and takes one vector for each panel.
#[inline(always)]
pub(super) fn product<S: Simd>(
    s: S,
    left: impl Left,
    panels: &[Vector],
    k: usize,
    out: &mut [Vector],
    stride: usize,
) {
    let n = panels.len() / k;
    let mut v = 0;
    if S::ONE_REGISTER {
        while n - v >= 4 {
            tile::<S, _, 4>(s, left, &panels[v * k..], k, &mut out[v..], stride);
            v += 4;
        }
        match n - v {
            3 => tile::<S, _, 3>(s, left, &panels[v * k..], k, &mut out[v..], stride),
            2 => tile::<S, _, 2>(s, left, &panels[v * k..], k, &mut out[v..], stride),
            1 => tile::<S, _, 1>(s, left, &panels[v * k..], k, &mut out[v..], stride),
            _ => {}
        }
    } else {
        while v < n {
            tile::<S, _, 1>(s, left, &panels[v * k..], k, &mut out[v..], stride);
            v += 1;
        }
    }
}

#[inline(always)]
fn tile<S: Simd, L: Left, const N: usize>(
    s: S,
    left: L,
    panels: &[Vector],
    k: usize,
    out: &mut [Vector],
    stride: usize,
) {
    let mut start = [[s.zero(); N]; ROWS];
    if L::ACCUMULATES {
        for (r, start) in start.iter_mut().enumerate() {
            for (sum, from) in start.iter_mut().zip(&out[r * stride..]) {
                *sum = s.load(from);
            }
        }
    }
    let panels = std::array::from_fn(|v| &panels[v * k..][..k]);
    let sums = left.multiply(s, panels, start);
    for (r, sums) in sums.into_iter().enumerate() {
        for (sum, to) in sums.into_iter().zip(&mut out[r * stride..]) {
            s.store(sum, to);
        }
    }
}

/// Sixteen lanes at a time into a slice of any length.
#[inline(always)]
pub(super) fn write<S: Simd>(s: S, from: &[Vector], factor: f32, to: &mut [f32]) {
    let factor = s.splat(factor);
    let (whole, rest) = to.as_chunks_mut::<LANES>();
    for (from, to) in from.iter().zip(whole.iter_mut()) {
        s.store(s.mul(s.load(from), factor), to);
    }
    if !rest.is_empty() {
        s.store_partial(s.mul(s.load(&from[whole.len()]), factor), rest);
    }
}
