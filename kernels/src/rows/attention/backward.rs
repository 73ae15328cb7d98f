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
    if args.is_empty() {
        for i in 0..len {
            into.dk[i * into.dk_stride..][..args.width()].fill(0.0);
            into.dv[i * into.dv_stride..][..args.width()].fill(0.0);
        }
        return;
    }
    let mut scratch = Scratch::new(Workspace::vectors(args));
    let mut work = Workspace::new(args, scratch.vectors());
    for head in 0..heads {
        args.key_rows(head).pack_transposed(s, work.keys_transposed);
        args.value_rows(head).pack_transposed(s, work.values_transposed);
        args.key_rows(head).pack(s, work.keys);
        work.dk.fill([0.0; LANES]);
        work.dv.fill([0.0; LANES]);
        let rows = HeadQueries {
            head,
            q: args.query_rows(head),
            context: HeadRows::new(context, stride, queries, head, head_size),
            dcontext: HeadRows::new(dcontext, stride, queries, head, head_size),
        };
        for first in (0..queries).step_by(BLOCK) {
            let rows = rows.part(first, BLOCK.min(queries - first));
            work.query_gradients(s, args, rows, first, lse, into);
            work.add_key_gradients(s, rows, len);
        }
        let d = vectors(head_size);
        for (i, (dk, dv)) in work.dk.chunks_exact(d).zip(work.dv.chunks_exact(d)).take(len).enumerate() {
            write(s, dk, 1.0, &mut into.dk[i * into.dk_stride + head * head_size..][..head_size]);
            write(s, dv, 1.0, &mut into.dv[i * into.dv_stride + head * head_size..][..head_size]);
        }
    }
}

/// What belongs to the queries of one head, or of a block of them.
#[derive(Clone, Copy)]
struct HeadQueries<'a> {
    head: usize,
    q: HeadRows<'a>,
    context: HeadRows<'a>,
    dcontext: HeadRows<'a>,
}

impl HeadQueries<'_> {
    fn part(self, first: usize, count: usize) -> Self {
        HeadQueries {
            head: self.head,
            q: self.q.part(first, count),
            context: self.context.part(first, count),
            dcontext: self.dcontext.part(first, count),
        }
    }
}

/// The packed operands and the products of one head. With n vectors of keys and d of features:
struct Workspace<'a> {
    /// Right operands [n][head_size]: Kᵀ and Vᵀ.
    keys_transposed: &'a mut [Vector],
    values_transposed: &'a mut [Vector],
    /// Right operand [d][len]: K.
    keys: &'a mut [Vector],
    /// Right operands [d][block]: the block's Q and dcontext.
    query_panels: &'a mut [Vector],
    dcontext_panels: &'a mut [Vector],
    /// The block's P∘Z and dS, rows of `columns` vectors: `len` padded to whole tiles of columns.
    p: &'a mut [Vector],
    ds: &'a mut [Vector],
    columns: usize,
    /// Sums over the blocks, rows of d vectors, padded to whole tiles of rows.
    dk: &'a mut [Vector],
    dv: &'a mut [Vector],
    /// One tile of dQ.
    dq: &'a mut [Vector],
}

impl<'a> Workspace<'a> {
    /// How large each field is, in vectors: those by key, the block's panels, P, the sums, one tile.
    fn sizes(args: &AttentionArgs<'_>) -> [usize; 6] {
        let (n, d) = (vectors(args.len), vectors(args.head_size));
        let tiled_len = args.len.next_multiple_of(ROWS);
        let block = BLOCK.min(args.queries.next_multiple_of(ROWS));
        [n * args.head_size, d * args.len, d * block, vectors(tiled_len) * block, d * tiled_len, d * ROWS]
    }

    fn vectors(args: &AttentionArgs<'_>) -> usize {
        let [transposed, keys, panels, p, sums, dq] = Self::sizes(args);
        2 * transposed + keys + 2 * panels + 2 * p + 2 * sums + dq
    }

    fn new(args: &AttentionArgs<'_>, mut free: &'a mut [Vector]) -> Self {
        let [transposed, keys, panels, p, sums, dq] = Self::sizes(args);
        Workspace {
            keys_transposed: take(&mut free, transposed),
            values_transposed: take(&mut free, transposed),
            keys: take(&mut free, keys),
            query_panels: take(&mut free, panels),
            dcontext_panels: take(&mut free, panels),
            p: take(&mut free, p),
            ds: take(&mut free, p),
            columns: vectors(args.len.next_multiple_of(ROWS)),
            dk: take(&mut free, sums),
            dv: take(&mut free, sums),
            dq: take(&mut free, dq),
        }
    }

    /// P∘Z, dS and dQ of a block of queries, which starts at query `start`.
    #[inline(always)]
    fn query_gradients<S: Simd>(
        &mut self,
        s: S,
        args: &AttentionArgs<'_>,
        rows: HeadQueries<'_>,
        start: usize,
        lse: &[f32],
        into: &mut AttentionGradients<'_>,
    ) {
        let &AttentionArgs { len, heads, head_size, .. } = args;
        let (n, d, columns, head) = (vectors(len), vectors(head_size), self.columns, rows.head);
        for first in (0..rows.q.len()).step_by(ROWS) {
            let p = &mut self.p[first * columns..][..ROWS * columns];
            let ds = &mut self.ds[first * columns..][..ROWS * columns];
            product(s, rows.q.tile(first), self.keys_transposed, head_size, p, columns);
            product(s, rows.dcontext.tile(first), self.values_transposed, head_size, ds, columns);
            let count = ROWS.min(rows.q.len() - first);
            let pairs = p.chunks_exact_mut(columns).zip(ds.chunks_exact_mut(columns)).take(count);
            for (r, (p, ds)) in pairs.enumerate() {
                let i = start + first + r;
                let row = ScoreRow {
                    scale: args.scale,
                    lse: lse[i * heads + head],
                    delta: dot(s, rows.dcontext.row(first + r), rows.context.row(first + r)),
                    factors: args.row_factors(head, i),
                };
                row.gradient(s, &mut p[..n], &mut ds[..n]);
            }
            let flat = ds.as_flattened();
            let left = Rows(std::array::from_fn(|r| &flat[r * columns * LANES..][..len]));
            product(s, left, self.keys, len, self.dq, d);
            for (r, row) in self.dq.chunks_exact(d).take(count).enumerate() {
                let to = (start + first + r) * into.dq_stride + head * head_size;
                write(s, row, 1.0, &mut into.dq[to..][..head_size]);
            }
        }
    }

    /// Adds a block's share to dK and dV.
    #[inline(always)]
    fn add_key_gradients<S: Simd>(&mut self, s: S, rows: HeadQueries<'_>, len: usize) {
        let (count, d) = (rows.q.len(), self.dq.len() / ROWS);
        let query_panels = &mut self.query_panels[..d * count];
        let dcontext_panels = &mut self.dcontext_panels[..d * count];
        rows.q.pack(s, query_panels);
        rows.dcontext.pack(s, dcontext_panels);
        for first in (0..len).step_by(ROWS) {
            let left = Columns { block: self.p, stride: self.columns, first };
            product(s, left, dcontext_panels, count, &mut self.dv[first * d..], d);
            let left = Columns { block: self.ds, stride: self.columns, first };
            product(s, left, query_panels, count, &mut self.dk[first * d..], d);
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
