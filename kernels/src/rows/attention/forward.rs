//! Forward: per head, six queries at a time through scores, softmax and context, all in the first-level
//! cache.

use super::super::dropout::KeepFactors;
use super::super::exponential::exp_lanes;
use super::AttentionArgs;
use super::tile::{HeadRows, ROWS, Rows, Scratch, Vector, product, take, vectors, write};
use crate::simd::{LANES, Simd};

/// The dropout factors of one row of probabilities: the stream, and the index of key 0.
pub(super) type RowFactors = Option<(KeepFactors, u64)>;

impl AttentionArgs<'_> {
    pub(super) fn query_rows(&self, head: usize) -> HeadRows<'_> {
        HeadRows::new(self.q, self.q_stride, self.queries, head, self.head_size)
    }

    pub(super) fn key_rows(&self, head: usize) -> HeadRows<'_> {
        HeadRows::new(self.k, self.k_stride, self.len, head, self.head_size)
    }

    pub(super) fn value_rows(&self, head: usize) -> HeadRows<'_> {
        HeadRows::new(self.v, self.v_stride, self.len, head, self.head_size)
    }

    #[inline(always)]
    pub(super) fn row_factors(&self, head: usize, i: usize) -> RowFactors {
        let first = (head * self.len + i) as u64 * self.len as u64;
        // Prediction has none: saying so spares its binary the code.
        self.dropout
            .filter(|_| cfg!(feature = "train"))
            .map(|dropout| (KeepFactors::new(dropout.key, dropout.rate), first))
    }
}

#[inline(always)]
pub(in super::super) fn attention_forward<S: Simd>(
    s: S,
    args: &AttentionArgs<'_>,
    context: &mut [f32],
    stride: usize,
    lse: &mut [f32],
) {
    if args.is_empty() {
        return;
    }
    let &AttentionArgs { len, queries, heads, head_size, .. } = args;
    let (n, d) = (vectors(len), vectors(head_size));
    let mut scratch = Scratch::new(n * head_size + d * len + ROWS * (n + d));
    let mut free = scratch.vectors();
    let keys = take(&mut free, n * head_size);
    let values = take(&mut free, d * len);
    let scores = take(&mut free, ROWS * n);
    let out = take(&mut free, ROWS * d);

    for head in 0..heads {
        args.key_rows(head).pack_transposed(s, keys);
        args.value_rows(head).pack(s, values);
        let query_rows = args.query_rows(head);
        for first in (0..queries).step_by(ROWS) {
            product(s, query_rows.tile(first), keys, head_size, scores, n);
            let count = ROWS.min(queries - first);
            let mut sums = [1.0; ROWS];
            for (r, row) in scores.chunks_exact_mut(n).take(count).enumerate() {
                let (max, sum) = exponentials(s, row, len, args.scale, args.row_factors(head, first + r));
                sums[r] = sum;
                if !lse.is_empty() {
                    lse[(first + r) * heads + head] = max + sum.ln();
                }
            }
            let flat = scores.as_flattened();
            let rows = std::array::from_fn(|r| &flat[r * n * LANES..][..len]);
            product(s, Rows(rows), values, len, out, d);
            for (r, row) in out.chunks_exact(d).take(count).enumerate() {
                let to = &mut context[(first + r) * stride + head * head_size..][..head_size];
                write(s, row, 1.0 / sums[r], to);
            }
        }
    }
}

/// Replaces a row of scores by e^(scale·x − max) times the dropout factors, the lanes past `len` by 0.
/// Returns max, which is that of scale·x, and the sum before dropout.
#[inline(always)]
fn exponentials<S: Simd>(
    s: S,
    row: &mut [Vector],
    len: usize,
    scale: f32,
    factors: RowFactors,
) -> (f32, f32) {
    row.as_flattened_mut()[len..].fill(f32::NEG_INFINITY);
    let mut max = s.splat(f32::NEG_INFINITY);
    for x in row.iter() {
        max = s.max(max, s.load(x));
    }
    let max = s.maximum(max) * scale;
    let (minus_max, scale) = (s.splat(-max), s.splat(scale));
    let mut sum = s.zero();
    match factors {
        None => {
            for x in row {
                let power = exp_lanes(s, s.fma(s.load(x), scale, minus_max));
                sum = s.add(sum, power);
                s.store(power, x);
            }
        }
        Some((mut factors, mut index)) => {
            for x in row {
                let power = exp_lanes(s, s.fma(s.load(x), scale, minus_max));
                sum = s.add(sum, power);
                s.store(s.mul(power, factors.at(s, index)), x);
                index += LANES as u64;
            }
        }
    }
    (max, s.sum(sum))
}

#[inline(always)]
pub(in super::super) fn attention_probabilities<S: Simd>(
    s: S,
    args: &AttentionArgs<'_>,
    head: usize,
    out: &mut [f32],
) {
    if args.is_empty() {
        return;
    }
    let (n, len) = (vectors(args.len), args.len);
    let mut scratch = Scratch::new(n * args.head_size + ROWS * n);
    let mut free = scratch.vectors();
    let keys = take(&mut free, n * args.head_size);
    let scores = take(&mut free, ROWS * n);

    args.key_rows(head).pack_transposed(s, keys);
    for (tile, out) in out.chunks_mut(ROWS * len).enumerate() {
        product(s, args.query_rows(head).tile(tile * ROWS), keys, args.head_size, scores, n);
        for (row, out) in scores.chunks_exact_mut(n).zip(out.chunks_exact_mut(len)) {
            let (_, sum) = exponentials(s, row, len, args.scale, None);
            write(s, row, 1.0 / sum, out);
        }
    }
}
