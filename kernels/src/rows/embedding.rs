//! Rows of an embedding table.

use crate::Kernels;
use crate::simd::{LANES, Simd};

impl Kernels {
    /// `out[i] = table[ids[i]]`, or `out[i] += table[ids[i]]` if `accumulate`. `table`: `[vocab, hidden]`,
    /// `out`: `[ids, hidden]`.
    ///
    /// # Panics
    /// If `out` or `table` is not whole rows of the same length, or an id is beyond the table.
    pub fn gather_rows(self, table: &[f32], ids: &[u32], out: &mut [f32], accumulate: bool) {
        let Some(hidden) = row_length(ids.len(), out.len(), table.len()) else { return };
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(hidden)) {
            let row = &table[id as usize * hidden..][..hidden];
            if accumulate {
                self.add(row, out);
            } else {
                out.copy_from_slice(row);
            }
        }
    }

    /// `dtable[ids[i] - first] += dy[i]`, in the order of `ids`, for the ids in the range of rows that `dtable` is,
    /// from row `first` on; others are left to the owners of their rows. The backward of
    /// [`Kernels::gather_rows`]: however the table is divided, a row's sum is taken in one order.
    ///
    /// # Panics
    /// If `dy` or `dtable` is not whole rows of the same length.
    pub fn scatter_add_rows(self, dy: &[f32], ids: &[u32], first: usize, dtable: &mut [f32]) {
        let Some(hidden) = row_length(ids.len(), dy.len(), dtable.len()) else { return };
        let owned = first..first + dtable.len() / hidden;
        for (&id, dy) in ids.iter().zip(dy.chunks_exact(hidden)) {
            if owned.contains(&(id as usize)) {
                self.add(dy, &mut dtable[(id as usize - first) * hidden..][..hidden]);
            }
        }
    }

    /// `out[i] = q[i]·scale`, or `out[i] += q[i]·scale` (rounded once) if `accumulate`: one row of an int8
    /// embedding table.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dequantize_row(self, q: &[i8], scale: f32, out: &mut [f32], accumulate: bool) {
        assert_eq!(q.len(), out.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.dequantize_row)(q, scale, out, accumulate) }
    }
}

/// The length of a row, if there is anything to do.
fn row_length(ids: usize, rows_len: usize, table_len: usize) -> Option<usize> {
    if ids == 0 || rows_len == 0 {
        assert_eq!(rows_len, 0, "no ids, but rows");
        return None;
    }
    let hidden = rows_len / ids;
    assert!(rows_len.is_multiple_of(ids) && table_len.is_multiple_of(hidden));
    Some(hidden)
}

#[inline(always)]
pub(super) fn dequantize_row<S: Simd>(s: S, q: &[i8], scale: f32, out: &mut [f32], accumulate: bool) {
    let scale = s.splat(scale);
    let (q, q_rest) = q.as_chunks::<LANES>();
    let (out, out_rest) = out.as_chunks_mut::<LANES>();
    for (q, out) in q.iter().zip(out) {
        let before = if accumulate { s.load(out) } else { s.zero() };
        s.store(s.fma(s.load_i8(q), scale, before), out);
    }
    if !q_rest.is_empty() {
        let mut padded = [0; LANES];
        padded[..q_rest.len()].copy_from_slice(q_rest);
        let before = if accumulate { s.load_partial(out_rest, 0.0) } else { s.zero() };
        s.store_partial(s.fma(s.load_i8(&padded), scale, before), out_rest);
    }
}
