//! The int8 products: exact sums on every row, and their way back to floats.
//!
//! Weights are signed, `|w| ≤ 127`; activations are signed too, `|s| ≤ 127`, but stored as `a = s + 128`,
//! as the instruction `vpdpbusd` wants its first operand unsigned. The sums start from `-128·Σw`, which
//! takes the 128 off again: `Σ(s + 128)·w − 128·Σw = Σ s·w`, exact in 32 bits up to k = 2^31/127² ≈ 133,000.

use super::{KC, Line, PANEL, depth_blocks, with_block};
use crate::Kernels;

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

    fn panel(&self, index: usize, words: std::ops::Range<usize>) -> &'a [[i8; 4 * PANEL]] {
        if index * PANEL >= self.n { &[] } else { &self.rows[index * self.words()..][words] }
    }
}

impl Kernels {
    /// `c[i][j] = Σ_p (a[i][p] − 128)·w[j][p]`, exactly. The rows of `a: [m, k]` begin `a_stride` bytes
    /// apart, and k is rounded up to a multiple of 4 with bytes of 128. `|a − 128| ≤ 127` and `|w| ≤ 127`.
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
        self.sums(a, a_stride, m, b, |row, column, sums| {
            c[row * c_stride + column..][..sums.len()].copy_from_slice(sums);
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
        let dequantize = self.0.gemm.dequantize;
        self.sums(a, a_stride, m, b, |row, column, sums| {
            let columns = column..column + sums.len();
            let c = &mut c[row * c_stride..][columns.clone()];
            // SAFETY: `self` exists only for a table whose instructions this CPU reports.
            unsafe { dequantize(sums, a_scale[row], &b_scale[columns.clone()], &bias[columns], c) }
        });
    }

    /// Hands over the sums: for a row and a first column, those of up to two panels.
    fn sums(
        self,
        a: &[u8],
        a_stride: usize,
        m: usize,
        b: PackedI8<'_>,
        mut take: impl FnMut(usize, usize, &[i32]),
    ) {
        let words = b.words();
        if m == 0 || b.n == 0 {
            return;
        }
        assert!(
            a_stride >= 4 * words && a.len() >= (m - 1) * a_stride + 4 * words,
            "a is smaller than {m}×{}",
            b.k
        );
        let mut sums = [[0; 2 * PANEL]; ROWS];
        let blocks = depth_blocks(words).count();
        with_block(ROWS.min(m) * blocks, |lines| {
            for first in (0..m).step_by(ROWS) {
                let rows = ROWS.min(m - first);
                let lines = &mut lines[..rows * blocks];
                copy_a(&a[first * a_stride..], a_stride, words, rows, lines);
                for panel in (0..b.n.div_ceil(PANEL)).step_by(2) {
                    let columns = panel * PANEL..b.n.min((panel + 2) * PANEL);
                    for row in &mut sums[..rows] {
                        let sums = &b.sums[columns.start..(columns.start + 2 * PANEL).min(b.sums.len())];
                        row.iter_mut().zip(sums).for_each(|(start, sum)| *start = -128 * sum);
                    }
                    for (words, lines) in depth_blocks(words).zip(lines.chunks_exact(rows)) {
                        let panels = [b.panel(panel, words.clone()), b.panel(panel + 1, words)];
                        // SAFETY: `self` exists only for a table whose instructions this CPU reports.
                        unsafe { (self.0.gemm.i8)(lines, panels, sums.as_flattened_mut(), 2 * PANEL) }
                    }
                    for (row, sums) in sums[..rows].iter().enumerate() {
                        take(first + row, columns.start, &sums[..columns.len()]);
                    }
                }
            }
        });
    }
}

/// Copies rows of activations into lines, one block of k after the other.
fn copy_a(a: &[u8], a_stride: usize, words: usize, rows: usize, lines: &mut [Line]) {
    for (words, lines) in depth_blocks(words).zip(lines.chunks_exact_mut(rows)) {
        debug_assert!(words.len() <= KC);
        for (line, row) in lines.iter_mut().zip(a.chunks(a_stride)) {
            let bytes = row[4 * words.start..4 * words.end].as_chunks::<4>().0;
            line.iter_mut().zip(bytes).for_each(|(word, bytes)| *word = u32::from_le_bytes(*bytes));
        }
    }
}

fn check(len: usize, stride: usize, m: usize, n: usize) {
    let fits = m == 0 || n == 0 || (stride >= n && len >= (m - 1) * stride + n);
    assert!(fits, "c is smaller than {m}×{n}");
}

/// The way back to floats of one row: shared by every row of the table, vectorised in each.
#[inline(always)]
pub(super) fn dequantize(sums: &[i32], a_scale: f32, b_scale: &[f32], bias: &[f32], c: &mut [f32]) {
    for (((c, &sum), &b_scale), &bias) in c.iter_mut().zip(sums).zip(b_scale).zip(bias) {
        *c = (sum as f32).mul_add(a_scale * b_scale, bias);
    }
}
