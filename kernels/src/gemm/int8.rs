//! The int8 products: exact sums on every row, and their way back to floats.
//!
//! Weights are signed, `|w| ≤ 127`; activations are signed too, but stored as `a = s + 128`, as the
//! instruction `vpdpbusd` wants its first operand unsigned. The sums start from `-128·Σw`, which takes the
//! 128 off again: `Σ(s + 128)·w − 128·Σw = Σ s·w`. An input that has been added stands in a sum as `s·w`, one that
//! has not as `−128·w`: neither is larger than 128·127, so no sum, finished or not, leaves 32 bits as long as
//! k ≤ 2¹⁷ = 131,072 (2³¹/(128·127) is a little more). Readers of weights refuse a larger k; here sums would wrap.

use super::{Int8Kernels, Line, PANEL, Panels, depth_blocks, with_block};
use crate::Kernels;
use std::ops::Range;

/// Rows of `a` in one block: their sums for two panels, 12 KiB, stay near.
const ROWS: usize = 96;

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

/// Packed int8 weights: the right operand of an int8 product.
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

    /// Rows `words` of panel `index` and of the next, if there is one.
    fn panels_at(&self, index: usize, words: Range<usize>) -> Panels<'a, [i8; 4 * PANEL]> {
        let panel = |index: usize| &self.rows[index * self.words()..][words.clone()];
        (panel(index), ((index + 1) * PANEL < self.n).then(|| panel(index + 1)))
    }

    /// What the sums of panel `index` and the next start from, to take `offset` off each byte of `a`.
    pub(crate) fn start(&self, index: usize, offset: i32) -> [i32; 2 * PANEL] {
        let mut start = [0; 2 * PANEL];
        start.iter_mut().zip(&self.sums[index * PANEL..]).for_each(|(start, sum)| *start = -offset * sum);
        start
    }
}

/// The factors of a block of sums, and what is added to them.
#[derive(Clone, Copy)]
pub(crate) struct Scales<'a> {
    /// One per row.
    a: &'a [f32],
    /// One per column.
    b: &'a [f32],
    /// One per column.
    bias: &'a [f32],
}

impl Kernels {
    /// `c[i][j] = Σ_p (a[i][p] − 128)·w[j][p]`, exactly. The rows of `a: [m, k]` begin `a_stride` bytes
    /// apart, and k is rounded up to a multiple of 4, with any bytes. Any `a` is right, and `|w| ≤ 127`.
    pub fn gemm_i8(
        self,
        a: &[u8],
        a_stride: usize,
        m: usize,
        b: PackedI8<'_>,
        c: &mut [i32],
        c_stride: usize,
    ) {
        check(c.len(), c_stride, m, b.n);
        self.sums(a, a_stride, m, b, |rows, columns, sums| {
            for (row, sums) in rows.zip(sums) {
                c[row * c_stride..][columns.clone()].copy_from_slice(&sums[..columns.len()]);
            }
        });
    }

    /// [`gemm_i8`](Self::gemm_i8) back in floats: `c = fma(sum, a_scale[i]·b_scale[j], bias[j])`, the same
    /// bits on every row. `a_scale: [m]`, `b_scale: [n]`, `bias: [n]`.
    #[allow(clippy::too_many_arguments)] // Two scaled operands, a bias and a result have that many parts.
    pub fn gemm_i8_f32(
        self,
        a: &[u8],
        a_stride: usize,
        m: usize,
        a_scale: &[f32],
        b: PackedI8<'_>,
        b_scale: &[f32],
        bias: &[f32],
        c: &mut [f32],
        c_stride: usize,
    ) {
        check(c.len(), c_stride, m, b.n);
        assert!(
            a_scale.len() == m && b_scale.len() == b.n && bias.len() == b.n,
            "one scale per row and output"
        );
        self.sums(a, a_stride, m, b, |rows, columns, sums| {
            let c = &mut c[rows.start * c_stride + columns.start..];
            let scales = Scales { a: &a_scale[rows], b: &b_scale[columns.clone()], bias: &bias[columns] };
            // SAFETY: `self` exists only for a table whose instructions this CPU reports.
            unsafe { (self.0.gemm.i8.dequantize)(sums, scales, c, c_stride) }
        });
    }

    /// Hands over the sums, block by block: the rows and the columns, and two panels for each row.
    fn sums(
        self,
        a: &[u8],
        a_stride: usize,
        m: usize,
        b: PackedI8<'_>,
        mut take: impl FnMut(Range<usize>, Range<usize>, &[[i32; 2 * PANEL]]),
    ) {
        let words = b.words();
        if m == 0 || b.n == 0 {
            return;
        }
        let fits = a_stride >= 4 * words && a.len() >= (m - 1) * a_stride + 4 * words;
        assert!(fits, "a is smaller than {m}×{}", b.k);
        let kernels = &self.0.gemm.i8;
        let mut sums = [[0; 2 * PANEL]; ROWS];
        let blocks = depth_blocks(words).len();
        with_block(ROWS.min(m) * blocks, |lines| {
            for first in (0..m).step_by(ROWS) {
                let rows = first..m.min(first + ROWS);
                let lines = &mut lines[..rows.len() * blocks];
                copy_a(&a[first * a_stride..], a_stride, words, rows.len(), lines);
                let sums = &mut sums[..rows.len()];
                for panel in (0..b.n.div_ceil(PANEL)).step_by(2) {
                    // SAFETY: `self` exists only for a table whose instructions this CPU reports.
                    unsafe { kernels.multiply(lines, b, panel, b.start(panel, kernels.offset), sums) };
                    take(rows.clone(), panel * PANEL..b.n.min((panel + 2) * PANEL), sums);
                }
            }
        });
    }
}

impl Int8Kernels {
    /// `sums[i] = start + Σ lines[i]·b` for panel `panel` of `b` and the next one. `lines`: as [`copy_a`] fills them.
    ///
    /// # Safety
    /// The instructions of this row of the table must be there.
    pub(crate) unsafe fn multiply(
        &self,
        lines: &[Line],
        b: PackedI8<'_>,
        panel: usize,
        start: [i32; 2 * PANEL],
        sums: &mut [[i32; 2 * PANEL]],
    ) {
        let mut start = Some(&start);
        for (words, lines) in depth_blocks(b.words()).zip(lines.chunks_exact(sums.len())) {
            // SAFETY: the caller's promise.
            unsafe {
                (self.strip)(
                    lines,
                    b.panels_at(panel, words),
                    start.take(),
                    sums.as_flattened_mut(),
                    2 * PANEL,
                );
            }
        }
    }
}

/// Copies rows of activations into lines, one block of k after the other.
pub(crate) fn copy_a(a: &[u8], a_stride: usize, words: usize, rows: usize, lines: &mut [Line]) {
    for (words, lines) in depth_blocks(words).zip(lines.chunks_exact_mut(rows)) {
        for (line, row) in lines.iter_mut().zip(a.chunks(a_stride.max(1))) {
            let bytes = row[4 * words.start..4 * words.end].as_chunks::<4>().0;
            line.iter_mut().zip(bytes).for_each(|(word, bytes)| *word = u32::from_le_bytes(*bytes));
        }
    }
}

fn check(len: usize, stride: usize, m: usize, n: usize) {
    let fits = m == 0 || n == 0 || (stride >= n && len >= (m - 1) * stride + n);
    assert!(fits, "c is smaller than {m}×{n}");
}

/// The way back to floats: written once, vectorised in each row of the table.
#[inline(always)]
pub(super) fn dequantize(sums: &[[i32; 2 * PANEL]], scales: Scales<'_>, c: &mut [f32], c_stride: usize) {
    let Scales { a, b, bias } = scales;
    if let (Ok(b), Ok(bias)) = (<&[f32; 2 * PANEL]>::try_from(b), <&[f32; 2 * PANEL]>::try_from(bias)) {
        // Two whole panels, of which the compiler knows the length.
        for ((i, sums), a) in sums.iter().enumerate().zip(a) {
            let c: &mut [f32; 2 * PANEL] = c[i * c_stride..].first_chunk_mut().expect("two whole panels");
            for j in 0..2 * PANEL {
                c[j] = (sums[j] as f32).mul_add(a * b[j], bias[j]);
            }
        }
    } else {
        for ((i, sums), a) in sums.iter().enumerate().zip(a) {
            for ((c, sum), (b, bias)) in c[i * c_stride..].iter_mut().zip(sums).zip(b.iter().zip(bias)) {
                *c = (*sum as f32).mul_add(a * b, *bias);
            }
        }
    }
}
