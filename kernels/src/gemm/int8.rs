//! The int8 products: exact sums on every row, and their way back to floats.
//!
//! Weights are signed, `|w| ≤ 127`; activations are signed too, but stored as `a = s + 128`, as the
//! instruction `vpdpbusd` wants its first operand unsigned. The sums start from `-128·Σw`, which takes the
//! 128 off again: `Σ(s + 128)·w − 128·Σw = Σ s·w`. An input that has been added stands in a sum as `s·w`, one that
//! has not as `−128·w`: neither is larger than 128·127, so no sum, finished or not, leaves 32 bits as long as
//! k ≤ 2¹⁷ = 131,072 (2³¹/(128·127) is a little more). Readers of weights refuse a larger k; here sums would wrap.

use super::{
    BlocksI8, Int8Kernels, Left, PANEL, Panels, QuantizedRows, RowsI8, ahead, depth_blocks, prefetch_two,
    with_lines,
};
use crate::Kernels;
use std::ops::Range;

/// Rows of `a` in one block: their sums for two panels, 12 KiB, stay near.
const ROWS: usize = 96;

/// Rows whose wide floats exist at one time: 576 KiB for 3,072 outputs, which stay in L2.
const WIDE_ROWS: usize = 48;

/// Bytes of weights `[n, k]` once packed.
pub fn packed_i8_len(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL) * k.div_ceil(4) * PANEL * 4
}

/// Packs weights `[n, k]` as `[⌈n/16⌉][⌈k/4⌉][16][4]`, padded with zeros: the layout of the file format.
/// `out` has [`packed_i8_len`] bytes.
pub fn pack_i8(weights: &[i8], n: usize, k: usize, out: &mut [i8]) {
    assert_eq!(weights.len(), n * k, "weights are not {n}×{k}");
    assert_eq!(out.len(), packed_i8_len(n, k), "the packed length of {n}×{k} weights");
    let words = k.div_ceil(4);
    out.fill(0);
    for (output, row) in (0..n).zip(weights.chunks_exact(k.max(1))) {
        let panel = &mut out[output / PANEL * words * PANEL * 4..][..words * PANEL * 4];
        for (word, group) in panel.chunks_exact_mut(PANEL * 4).zip(row.chunks(4)) {
            word[output % PANEL * 4..][..group.len()].copy_from_slice(group);
        }
    }
}

/// The sums of packed weights over k, per output: `sums` has n rounded up to a multiple of 16 elements.
pub fn packed_i8_sums(packed: &[i8], n: usize, k: usize, sums: &mut [i32]) {
    assert_eq!(packed.len(), packed_i8_len(n, k), "the packed length of {n}×{k} weights");
    assert_eq!(sums.len(), n.next_multiple_of(PANEL), "one sum per output of every panel");
    sums.fill(0);
    let panel = (k.div_ceil(4) * PANEL * 4).max(1);
    for (sums, panel) in sums.chunks_exact_mut(PANEL).zip(packed.chunks_exact(panel)) {
        for (index, group) in panel.chunks_exact(4).enumerate() {
            sums[index % PANEL] += group.iter().map(|&w| i32::from(w)).sum::<i32>();
        }
    }
}

/// Weights `[n, k]` as [`pack_i8`] lays them out, and their sums as [`packed_i8_sums`] gives them.
pub fn packed_i8_with_sums(weights: &[i8], n: usize, k: usize) -> (Vec<i8>, Vec<i32>) {
    let (mut packed, mut sums) = (vec![0; packed_i8_len(n, k)], vec![0; n.next_multiple_of(PANEL)]);
    pack_i8(weights, n, k, &mut packed);
    packed_i8_sums(&packed, n, k, &mut sums);
    (packed, sums)
}

/// Packed int8 weights, dense.
#[derive(Clone, Copy, Debug)]
pub struct PackedI8<'a> {
    rows: &'a [[i8; 4 * PANEL]],
    sums: &'a [i32],
    n: usize,
    k: usize,
}

impl<'a> PackedI8<'a> {
    /// Weights as [`pack_i8`] lays them out, and their sums as [`packed_i8_sums`] gives them.
    pub fn new(data: &'a [i8], n: usize, k: usize, sums: &'a [i32]) -> Self {
        assert_eq!(data.len(), packed_i8_len(n, k), "the packed length of {n}×{k} weights");
        assert_eq!(sums.len(), n.next_multiple_of(PANEL), "one sum per output of every panel");
        Self { rows: data.as_chunks().0, sums, n, k }
    }

    /// `[n, k]`: outputs, inputs.
    pub fn shape(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    fn words(&self) -> usize {
        self.k.div_ceil(4)
    }

    /// Every word of a panel.
    pub(super) fn panel(&self, index: usize) -> &'a [[i8; 4 * PANEL]] {
        &self.rows[index * self.words()..][..self.words()]
    }

    /// Rows `words` of panel `index` and of the next, if there is one.
    fn panels_at(&self, index: usize, words: Range<usize>) -> Panels<'a, [i8; 4 * PANEL]> {
        let panel = |index: usize| &self.rows[index * self.words()..][words.clone()];
        let second = ((index + 1) * PANEL < self.n).then(|| panel(index + 1));
        Panels { first: panel(index), second, ahead: ahead(&words, self.words()) }
    }
}

/// The right operand of an int8 product.
#[derive(Clone, Copy, Debug)]
pub enum WeightsI8<'a> {
    /// Every word of every panel.
    Dense(PackedI8<'a>),
    /// The words that are not zero.
    Blocks(BlocksI8<'a>),
}

impl<'a> From<PackedI8<'a>> for WeightsI8<'a> {
    fn from(weights: PackedI8<'a>) -> Self {
        WeightsI8::Dense(weights)
    }
}

impl<'a> From<BlocksI8<'a>> for WeightsI8<'a> {
    fn from(weights: BlocksI8<'a>) -> Self {
        WeightsI8::Blocks(weights)
    }
}

impl WeightsI8<'_> {
    /// `[n, k]`: outputs, inputs.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            WeightsI8::Dense(weights) => [weights.n, weights.k],
            WeightsI8::Blocks(weights) => [weights.n, weights.k],
        }
    }

    pub(super) fn sums(&self) -> &[i32] {
        match self {
            WeightsI8::Dense(weights) => weights.sums,
            WeightsI8::Blocks(weights) => weights.sums,
        }
    }
}

/// A linear layer in int8: output `j` is `Σ_p x[p]·w[j][p]·scale[j] + bias[j]`.
#[derive(Clone, Copy, Debug)]
pub struct LayerI8<'a> {
    /// `[n, k]`
    pub weights: WeightsI8<'a>,
    /// `[n]`
    pub scale: &'a [f32],
    /// `[n]`
    pub bias: &'a [f32],
}

/// The factors of a block of sums, and what is added to them.
#[derive(Clone, Copy)]
pub(crate) struct Scales<'a> {
    /// One per row.
    pub(crate) a: &'a [f32],
    /// One per column.
    pub(crate) b: &'a [f32],
    /// One per column.
    pub(crate) bias: &'a [f32],
}

impl Kernels {
    /// `c[i][j] = Σ_p (a[i][p] − 128)·w[j][p]`, exactly. Any bytes in `rows` are right (its scales are not looked
    /// at but for their number), and `|w| ≤ 127`.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn gemm_i8<'w>(
        self,
        rows: RowsI8<'_>,
        weights: impl Into<WeightsI8<'w>>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        let weights = weights.into();
        check(c.len(), c_stride, rows.scale.len(), weights.shape()[0]);
        self.sums(rows, weights, [&[]; 2], |rows, columns, sums| {
            for (row, sums) in rows.zip(sums) {
                c[row * c_stride..][columns.clone()].copy_from_slice(&sums[..columns.len()]);
            }
        });
    }

    /// [`gemm_i8`](Self::gemm_i8) back in floats: `c = fma(sum, rows.scale[i]·layer.scale[j], bias[j])`, the same
    /// bits on every row of the table.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn gemm_i8_f32(self, rows: RowsI8<'_>, layer: LayerI8<'_>, c: &mut [f32], c_stride: usize) {
        layer.check();
        check(c.len(), c_stride, rows.scale.len(), layer.bias.len());
        self.sums(rows, layer.weights, [layer.scale, layer.bias], |range, columns, sums| {
            let c = &mut c[range.start * c_stride + columns.start..];
            let scales = layer.scales(&rows.scale[range], columns);
            // SAFETY: `self` exists only for a table whose instructions this CPU reports.
            unsafe { (self.0.rows.dequantize)(sums, scales, c, c_stride) }
        });
    }

    /// [`gemm_i8_f32`](Self::gemm_i8_f32), then GELU to within 2e-5 (beyond ±200, to within 1e-7·|x|), then
    /// [`quantize_rows`](Self::quantize_rows) into `out`, which is reset to these rows: the wide half of a feed-forward
    /// layer. Its floats exist for a few rows at a time, in `scratch`, and the same bits come out on every row of the table.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn gemm_i8_gelu(
        self,
        rows: RowsI8<'_>,
        layer: LayerI8<'_>,
        scratch: &mut Vec<f32>,
        out: &mut QuantizedRows,
    ) {
        layer.check();
        let (m, n) = (rows.scale.len(), layer.bias.len());
        out.reset(m, n);
        if n == 0 {
            return (0..m).for_each(|row| *out.scale_mut(row) = 1.0);
        }
        let blocks = m.div_ceil(WIDE_ROWS);
        for block in 0..blocks {
            let range = block * m / blocks..(block + 1) * m / blocks;
            let len = range.len() * n;
            if scratch.len() < len {
                scratch.resize(len, 0.0);
            }
            let mut largest = [[0.0; PANEL]; WIDE_ROWS];
            let part = rows.range(range.clone());
            self.sums(part, layer.weights, [layer.scale, layer.bias], |inner, columns, sums| {
                let c = &mut scratch[inner.start * n + columns.start..len];
                let scales = layer.scales(&part.scale[inner.clone()], columns);
                // SAFETY: `self` exists only for a table whose instructions this CPU reports.
                unsafe { (self.0.rows.dequantize_gelu)(sums, scales, c, n, &mut largest[inner]) }
            });
            for ((row, place), largest) in scratch[..len].chunks(n.max(1)).zip(range).zip(&largest) {
                // SAFETY: as above.
                let scale = unsafe { (self.0.rows.quantize_row_by)(row, largest, out.row_mut(place)) };
                *out.scale_mut(place) = scale;
            }
        }
    }

    /// Hands over the sums, block by block: the rows and the columns, and two panels for each row. What `take` reads `beside` them
    /// for each output is fetched while they are made.
    fn sums(
        self,
        a: RowsI8<'_>,
        b: WeightsI8<'_>,
        beside: [&[f32]; 2],
        mut take: impl FnMut(Range<usize>, Range<usize>, &[[i32; 2 * PANEL]]),
    ) {
        let ([n, k], m) = (b.shape(), a.scale.len());
        assert_eq!(a.k, k, "the columns of a and the inputs of b differ");
        let kernels = &self.0.gemm.i8;
        let mut sums = [[0; 2 * PANEL]; ROWS];
        with_lines(|memory| {
            for first in (0..m).step_by(ROWS) {
                let rows = first..m.min(first + ROWS);
                let sums = &mut sums[..rows.len()];
                // SAFETY: `self` exists only for a table whose instructions this CPU reports.
                let left = unsafe { kernels.widened(a.range(rows.clone()).left, k.div_ceil(4), memory) };
                for panel in (0..n.div_ceil(PANEL)).step_by(2) {
                    let start = start(b.sums(), panel, kernels.offset);
                    prefetch_two(b.sums(), panel + 2);
                    beside.into_iter().for_each(|values| prefetch_two(values, panel));
                    // SAFETY: as above.
                    unsafe { kernels.multiply(left, b, panel, start, sums) };
                    take(rows.clone(), panel * PANEL..n.min((panel + 2) * PANEL), sums);
                }
            }
        });
    }
}

impl<'a> LayerI8<'a> {
    pub(crate) fn check(&self) {
        let [n, _] = self.weights.shape();
        assert!(self.scale.len() == n && self.bias.len() == n, "one scale and one bias per output");
    }

    fn scales(&self, rows: &'a [f32], columns: Range<usize>) -> Scales<'a> {
        Scales { a: rows, b: &self.scale[columns.clone()], bias: &self.bias[columns] }
    }
}

/// What the sums of panel `index` and the next start from, to take `offset` off each byte of `a`.
pub(crate) fn start(sums: &[i32], index: usize, offset: i32) -> [i32; 2 * PANEL] {
    let mut start = [0; 2 * PANEL];
    start.iter_mut().zip(&sums[index * PANEL..]).for_each(|(start, sum)| *start = -offset * sum);
    start
}

impl Int8Kernels {
    /// `sums[i] = start + Σ a[i]·b` for panel `panel` of `b` and the next one. `a`: as [`Int8Kernels::widened`] gives
    /// them.
    ///
    /// # Safety
    /// The instructions of this row of the table must be there.
    pub(crate) unsafe fn multiply(
        &self,
        a: Left<'_>,
        b: WeightsI8<'_>,
        panel: usize,
        start: [i32; 2 * PANEL],
        sums: &mut [[i32; 2 * PANEL]],
    ) {
        match b {
            WeightsI8::Dense(b) => {
                let mut start = Some(&start);
                for (part, words) in depth_blocks(b.words()).enumerate() {
                    let (b, sums) = (b.panels_at(panel, words), sums.as_flattened_mut());
                    // SAFETY: the caller's promise.
                    unsafe { (self.strip)(a.of_part(part), b, start.take(), sums, 2 * PANEL) }
                }
            }
            // SAFETY: the caller's promise.
            WeightsI8::Blocks(b) => unsafe { b.multiply(self, a, panel, &start, sums) },
        }
    }
}

fn check(len: usize, stride: usize, m: usize, n: usize) {
    let fits = m == 0 || n == 0 || (stride >= n && len >= (m - 1) * stride + n);
    assert!(fits, "c is smaller than {m}×{n}");
}
