//! Backward: per head, queries in blocks. In a block, six queries at a time, P and dS are computed and
//! dQ is finished; then the block's P∘Z and dS, still in the second-level cache, are multiplied from the
//! left, as columns, to add to dV and dK.

use super::super::exponential::exp_lanes;
use super::forward::RowFactors;
use super::tile::{Columns, HeadRows, ROWS, Rows, Scratch, Vector, product, take, vectors, write};
use super::{AttentionArgs, AttentionGradients};
use crate::simd::{LANES, Simd};

/// Queries of a block: with 512 keys, P and dS of a block are 96 KiB each.
const BLOCK: usize = 8 * ROWS;

#[inline(always)]
pub(in super::super) fn attention_backward<S: Simd>(
    s: S,
    args: &AttentionArgs<'_>,
    context: &[f32],
    dcontext: &[f32],
    stride: usize,
    lse: &[f32],
    into: &mut AttentionGradients<'_>,
) {
    let &AttentionArgs { len, queries, heads, head_size, .. } = args;
    let (n, d) = (vectors(len), vectors(head_size));
    if args.is_empty() {
        for i in 0..len {
            into.dk[i * into.dk_stride..][..args.width()].fill(0.0);
            into.dv[i * into.dv_stride..][..args.width()].fill(0.0);
        }
        return;
    }
    // Rows of P and dS are padded to whole tiles of columns, dK and dV to whole tiles of rows.
    let tiled_len = len.next_multiple_of(ROWS);
    let columns = vectors(tiled_len);
    let block = BLOCK.min(queries.next_multiple_of(ROWS));
    let panels = 2 * n * head_size + d * len + 2 * d * block;
    let mut scratch = Scratch::new(panels + 2 * block * columns + 2 * tiled_len * d + ROWS * d);
    let mut free = scratch.vectors();
    let keys_transposed = take(&mut free, n * head_size);
    let values_transposed = take(&mut free, n * head_size);
    let keys = take(&mut free, d * len);
    let query_panels = take(&mut free, d * block);
    let dcontext_panels = take(&mut free, d * block);
    let p = take(&mut free, block * columns);
    let ds = take(&mut free, block * columns);
    let dk = take(&mut free, tiled_len * d);
    let dv = take(&mut free, tiled_len * d);
    let dq = take(&mut free, ROWS * d);

    for head in 0..heads {
        args.key_rows(head).pack_transposed(s, keys_transposed);
        args.value_rows(head).pack_transposed(s, values_transposed);
        args.key_rows(head).pack(s, keys);
        let context = HeadRows::new(context, stride, queries, head, head_size);
        let dcontext = HeadRows::new(dcontext, stride, queries, head, head_size);
        dk.fill([0.0; LANES]);
        dv.fill([0.0; LANES]);

        for block_first in (0..queries).step_by(BLOCK) {
            let block_len = BLOCK.min(queries - block_first);
            let query_block = args.query_rows(head).part(block_first, block_len);
            let dcontext_block = dcontext.part(block_first, block_len);
            let query_panels = &mut query_panels[..d * block_len];
            let dcontext_panels = &mut dcontext_panels[..d * block_len];
            query_block.pack(s, query_panels);
            dcontext_block.pack(s, dcontext_panels);

            for first in (0..block_len).step_by(ROWS) {
                let p = &mut p[first * columns..][..ROWS * columns];
                let ds = &mut ds[first * columns..][..ROWS * columns];
                product(s, query_block.tile(first), keys_transposed, head_size, p, columns);
                product(s, dcontext_block.tile(first), values_transposed, head_size, ds, columns);
                let count = ROWS.min(block_len - first);
                let rows = p.chunks_exact_mut(columns).zip(ds.chunks_exact_mut(columns)).take(count);
                for (r, (p, ds)) in rows.enumerate() {
                    let i = block_first + first + r;
                    let row = ScoreRow {
                        scale: args.scale,
                        lse: lse[i * heads + head],
                        delta: dot(s, dcontext.row(i), context.row(i)),
                        factors: args.row_factors(head, i),
                    };
                    row.gradient(s, &mut p[..n], &mut ds[..n]);
                }
                let flat = ds.as_flattened();
                let rows = std::array::from_fn(|r| &flat[r * columns * LANES..][..len]);
                product(s, Rows(rows), keys, len, dq, d);
                for (r, row) in dq.chunks_exact(d).take(count).enumerate() {
                    let to = (block_first + first + r) * into.dq_stride + head * head_size;
                    write(s, row, 1.0, &mut into.dq[to..][..head_size]);
                }
            }

            for first in (0..len).step_by(ROWS) {
                let at = first * d;
                let left = Columns { block: p, stride: columns, first };
                product(s, left, dcontext_panels, block_len, &mut dv[at..], d);
                let left = Columns { block: ds, stride: columns, first };
                product(s, left, query_panels, block_len, &mut dk[at..], d);
            }
        }

        for (i, (dk, dv)) in dk.chunks_exact(d).zip(dv.chunks_exact(d)).take(len).enumerate() {
            write(s, dk, 1.0, &mut into.dk[i * into.dk_stride + head * head_size..][..head_size]);
            write(s, dv, 1.0, &mut into.dv[i * into.dv_stride + head * head_size..][..head_size]);
        }
    }
}

/// What a row of scores shares.
struct ScoreRow {
    scale: f32,
    lse: f32,
    delta: f32,
    factors: RowFactors,
}

impl ScoreRow {
    /// From Q·Kᵀ and dcontext·Vᵀ to P∘Z and dS, in place.
    #[inline(always)]
    fn gradient<S: Simd>(self, s: S, p: &mut [Vector], ds: &mut [Vector]) {
        let (scale, minus_lse, delta) = (s.splat(self.scale), s.splat(-self.lse), s.splat(self.delta));
        match self.factors {
            None => {
                for (p, ds) in p.iter_mut().zip(ds) {
                    let probability = exp_lanes(s, s.fma(s.load(p), scale, minus_lse));
                    let slope = s.sub(s.load(ds), delta);
                    s.store(probability, p);
                    s.store(s.mul(s.mul(probability, scale), slope), ds);
                }
            }
            Some((mut factors, mut index)) => {
                for (p, ds) in p.iter_mut().zip(ds) {
                    let probability = exp_lanes(s, s.fma(s.load(p), scale, minus_lse));
                    let factor = factors.at(s, index);
                    let slope = s.sub(s.mul(s.load(ds), factor), delta);
                    s.store(s.mul(probability, factor), p);
                    s.store(s.mul(s.mul(probability, scale), slope), ds);
                    index += LANES as u64;
                }
            }
        }
    }
}

/// Σ aᵢ·bᵢ
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sum = s.mul(s.load_partial(a_rest, 0.0), s.load_partial(b_rest, 0.0));
    for (a, b) in a.iter().zip(b) {
        sum = s.fma(s.load(a), s.load(b), sum);
    }
    s.sum(sum)
}
