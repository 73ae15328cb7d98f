//! The float products: what is checked, and the loops around the strips.

use super::{BLOCK_LINES, FloatKernels, Line, Matrix, PANEL, PackedMatrix, PanelsMut, Precision, Start};
use super::{depth_blocks, with_lines};
use crate::Kernels;
use std::cell::Cell;
use std::ops::Range;

/// Rows of the largest tile of any row of the table.
const TILE: usize = 12;

/// What a product adds to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[n]`, added to every row.
    pub bias: Option<&'a [f32]>,
    /// Add to what `c` holds, instead of overwriting it.
    pub accumulate: bool,
}

thread_local! {
    /// The last, incomplete columns of `c`, kept from call to call as the packed block of `a` is.
    static EDGE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

impl Kernels {
    /// Packs the columns of `b: [k, n]` that `into` stands for. Weights `[n, k]` of a linear layer are
    /// `weights.transpose()` in the forward product, and as they are in that of the data gradient.
    pub fn pack(self, b: Matrix<'_>, into: &mut PanelsMut<'_>) {
        assert_eq!(b.shape(), [into.k, into.n], "the matrix to pack has another shape than its panels");
        // SAFETY: `self` exists only for a table whose instructions this CPU reports.
        unsafe { (self.floats(into.precision).pack_b)(b, into) }
    }

    /// `c = a·b`, plus `epilogue.bias` and what `c` held if so asked: `a: [m, k]`, `b: [k, n]`, and the rows
    /// of `c: [m, n]` begin `c_stride` elements apart. If `b` is bf16, `a` is rounded to bf16 too.
    ///
    /// Every output starts from its bias (and former value) and adds its products in the order of k, by
    /// fused multiply-add: in f32 the same bits on every row, and for every way to split m and n.
    pub fn gemm(
        self,
        a: Matrix<'_>,
        b: &PackedMatrix,
        epilogue: Epilogue<'_>,
        c: &mut [f32],
        c_stride: usize,
    ) {
        let ([m, k], [b_k, n]) = (a.shape(), b.shape());
        assert_eq!(k, b_k, "the columns of a and the rows of b differ");
        assert!(epilogue.bias.is_none_or(|bias| bias.len() == n), "the bias is not as long as a row of c");
        if m == 0 || n == 0 {
            return;
        }
        assert!(c_stride >= n && c.len() >= (m - 1) * c_stride + n, "c is smaller than {m}×{n}");
        let kernels = self.floats(b.precision());
        let blocks = depth_blocks(b.words()).len();
        // Equal blocks of whole tiles.
        let most = (BLOCK_LINES / blocks / TILE * TILE).max(4 * TILE);
        let rows = m.div_ceil(m.div_ceil(most)).next_multiple_of(TILE).min(m);
        with_lines(|lines| {
            let lines = lines.lend(rows * blocks);
            for first in (0..m).step_by(rows) {
                let last = (first + rows).min(m);
                block(kernels, a.rows(first..last), b, epilogue, &mut c[first * c_stride..], c_stride, lines);
            }
        });
    }

    fn floats(self, precision: Precision) -> &'static FloatKernels {
        match precision {
            Precision::F32 => &self.0.gemm.f32,
            #[cfg(feature = "train")]
            Precision::Bf16 => &self.0.gemm.bf16,
        }
    }
}

/// The product of as many rows of `a` as `lines` can hold.
fn block(
    kernels: &FloatKernels,
    a: Matrix<'_>,
    b: &PackedMatrix,
    epilogue: Epilogue<'_>,
    c: &mut [f32],
    c_stride: usize,
    lines: &mut [Line],
) {
    let [m, _] = a.shape();
    let [_, n] = b.shape();
    let lines = &mut lines[..m * depth_blocks(b.words()).len()];
    for (words, lines) in depth_blocks(b.words()).zip(lines.chunks_exact_mut(m)) {
        // SAFETY: the table came from a `Kernels`, which exists only if this CPU has its instructions.
        unsafe { (kernels.pack_a)(a, words, lines) }
    }
    let mut edge = EDGE.take();
    for first in (0..n).step_by(2 * PANEL) {
        let columns = first..(first + 2 * PANEL).min(n);
        let mut start = [0.0; 2 * PANEL];
        if let Some(bias) = epilogue.bias {
            start[..columns.len()].copy_from_slice(&bias[columns.clone()]);
        }
        if epilogue.accumulate && epilogue.bias.is_some() {
            for row in c.chunks_mut(c_stride).take(m) {
                row[columns.clone()].iter_mut().zip(start).for_each(|(c, bias)| *c += bias);
            }
        }
        let start = (!epilogue.accumulate).then_some(&start);
        if columns.len() == 2 * PANEL {
            pair(kernels, lines, b, first / PANEL, start, &mut c[first..], c_stride);
        } else {
            edge.resize(m * 2 * PANEL, 0.0);
            copy(c, c_stride, columns.clone(), &mut edge, |c, edge| edge.copy_from_slice(c));
            pair(kernels, lines, b, first / PANEL, start, &mut edge, 2 * PANEL);
            copy(c, c_stride, columns, &mut edge, |c, edge| c.copy_from_slice(edge));
        }
    }
    EDGE.set(edge);
}

/// The product of the packed rows with panels `panel` and `panel + 1`, over all of k.
fn pair(
    kernels: &FloatKernels,
    lines: &[Line],
    b: &PackedMatrix,
    panel: usize,
    mut start: Start<'_, f32>,
    c: &mut [f32],
    c_stride: usize,
) {
    let m = lines.len() / depth_blocks(b.words()).len();
    for (words, lines) in depth_blocks(b.words()).zip(lines.chunks_exact(m)) {
        // SAFETY: the table came from a `Kernels`, which exists only if this CPU has its instructions.
        unsafe { (kernels.strip)(lines, b.panels_at(panel, words), start.take(), c, c_stride) }
    }
}

/// Copies between the last, incomplete columns of `c` and full rows of two panels.
fn copy(
    c: &mut [f32],
    stride: usize,
    columns: Range<usize>,
    edge: &mut [f32],
    each: impl Fn(&mut [f32], &mut [f32]),
) {
    for (c, edge) in c.chunks_mut(stride).zip(edge.chunks_exact_mut(2 * PANEL)) {
        each(&mut c[columns.clone()], &mut edge[..columns.len()]);
    }
}
