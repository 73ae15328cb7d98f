//! Attention in int8, forward only: both products on the integer units, softmax between them in floats.
//!
//!   q, k: a scale for each row of a head;  v: a scale for each feature of a head, over the text
//!   scores[i][j] = (Σ q̂ᵢ·k̂ⱼ)·q_scaleᵢ·k_scaleⱼ·scale
//!   p[i][j]      = round(254·e^(scores[i][j] − maxⱼ))                        an integer of 0..=254
//!   context[i]   = (Σⱼ p[i][j]·v̂ⱼ)·v_scale / Σⱼ p[i][j]
//!
//! The weights of the values are the rounded ones in the sum and in what it is divided by, so they add up to 1. A
//! key whose weight is below 1/508 of the largest one is not read: that is the step of the other operands, too.
//!
//! Keys and values are packed once for each head, into the panels that weights lie in; queries go through in
//! blocks, whose scores stay in the first-level cache. The left operand of a product is a byte that stands for a
//! signed number (`gemm::int8`): p travels as p − 127, and 127·Σⱼ v̂ⱼ is part of what the sums start from.

use super::super::exponential::round_254_exp2;
use super::super::quantize::{ZERO, fill_row, larger_magnitude, largest_magnitude, to_bytes};
use super::AttentionArgs;
use super::tile::{HeadRows, Vector};
use crate::gemm::{Int8Kernels, Left, Lines, PANEL, PackedI8, RowMut, blocks_i8_parts, start};
use crate::simd::{LANES, ROUNDER, Simd, load_up_to_16};
use std::cell::Cell;

/// Queries of a block: two tiles of the largest row.
const ROWS: usize = 24;
/// Vectors with a lane for each of them.
const VECTORS: usize = ROWS.div_ceil(LANES);

/// What takes a probability to the signed number that stands for it.
const CENTRE: i32 = 127;

/// Sixteen words of a panel: a line of cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Words([i8; 4 * PANEL]);

/// Keys or values of one head, as the right operand `[n, k]` of a product.
#[derive(Default)]
struct Operand {
    panels: Vec<Words>,
    /// Of each output, over k.
    sums: Vec<i32>,
    /// Of each output; anything beyond n.
    scale: Vec<Vector>,
    n: usize,
    k: usize,
}

impl Operand {
    /// Makes room; what the panels hold is unspecified.
    fn reset(&mut self, n: usize, k: usize) {
        (self.n, self.k) = (n, k);
        self.panels.resize(n.div_ceil(PANEL) * k.div_ceil(4), Words([0; 4 * PANEL]));
        self.sums.resize(n.next_multiple_of(PANEL), 0);
        self.scale.clear();
        self.scale.resize(n.div_ceil(PANEL), [0.0; LANES]);
    }

    fn packed(&self) -> PackedI8<'_> {
        // SAFETY: `Words` is exactly 64 bytes, and the vector holds that many of them.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.panels.as_ptr().cast(), self.panels.len() * 4 * PANEL) };
        PackedI8::new(bytes, self.n, self.k, &self.sums)
    }
}

/// Working memory of a call, kept for the next: prediction allocates nothing.
#[derive(Default)]
struct Memory {
    keys: Operand,
    values: Operand,
    /// Rows of bytes on their way into panels or lines.
    bytes: Vec<u8>,
    /// Sixteen features of the values on theirs: `[keys]`.
    floats: Vec<Vector>,
    lines: Lines,
    /// What strips read in their stead, on some rows of the table.
    wide: Lines,
    /// `[ROWS, keys]`
    scores: Vec<Vector>,
    /// Of a block's queries.
    scales: [Vector; VECTORS],
    /// 1 / Σ p of a block's queries.
    shares: [f32; ROWS],
}

thread_local! {
    static MEMORY: Cell<Option<Box<Memory>>> = const { Cell::new(None) };
}

#[inline(always)]
pub(in super::super) fn attention_int8<S: Simd>(
    s: S,
    args: &AttentionArgs<'_>,
    int8: &Int8Kernels,
    context: &mut [f32],
    stride: usize,
) {
    if args.is_empty() {
        return;
    }
    let mut memory = MEMORY.take().unwrap_or_default();
    for head in 0..args.heads {
        pack_keys(s, args.key_rows(head), &mut memory);
        pack_values(s, args.value_rows(head), &mut memory);
        for first in (0..args.queries).step_by(ROWS) {
            let queries = args.query_rows(head).part(first, ROWS.min(args.queries - first));
            quantize_queries(s, queries, &mut memory);
            scores(s, int8, queries.len(), &mut memory);
            probabilities(s, queries.len(), args.scale, &mut memory);
            let context = &mut context[first * stride + head * args.head_size..];
            weigh_values(s, int8, queries.len(), &mut memory, context, stride);
        }
    }
    MEMORY.set(Some(memory));
}

/// Rows of keys become lanes: sixteen rows, of sixteen words at a time, change places with them.
#[inline(always)]
fn pack_keys<S: Simd>(s: S, rows: HeadRows<'_>, memory: &mut Memory) {
    let (width, words) = (rows.width(), rows.width().div_ceil(4));
    let Memory { keys, bytes, .. } = memory;
    keys.reset(rows.len(), width);
    let stride = width.next_multiple_of(4 * LANES);
    bytes.clear();
    bytes.resize(PANEL * stride, ZERO);
    for (panel, to) in keys.panels.chunks_exact_mut(words).enumerate() {
        let rows = rows.part(panel * PANEL, PANEL.min(keys.n - panel * PANEL));
        let factors = row_scales(s, rows, &mut keys.scale[panel..=panel]);
        for (i, bytes) in bytes.chunks_exact_mut(stride).enumerate().take(rows.len()) {
            let sum = to_bytes(s, rows.row(i), factors[0][i], &mut bytes[..width]);
            keys.sums[panel * PANEL + i] = s.sum(sum) as i32;
        }
        for (w, to) in to.chunks_mut(LANES).enumerate() {
            let mut block = [s.zero(); LANES];
            for (i, row) in block.iter_mut().enumerate() {
                let words = bytes[i * stride + 4 * LANES * w..].first_chunk().expect("a padded row");
                *row = s.floats(s.xor(s.load_words(words), s.splat_bits(0x8080_8080)));
            }
            for (column, to) in s.transpose(block).into_iter().zip(to) {
                s.store_words(s.bits(column), &mut to.0);
            }
        }
    }
}

/// Values lie as they come, sixteen features side by side; four rows of them make words.
#[inline(always)]
fn pack_values<S: Simd>(s: S, rows: HeadRows<'_>, memory: &mut Memory) {
    let Memory { values, floats, .. } = memory;
    let (words, count) = (rows.len().div_ceil(4), rows.len());
    values.reset(rows.width(), count);
    // Rows that lie far apart fall on a few sets of the first-level cache: they are brought together as they are read.
    floats.resize(count, [0.0; LANES]);
    for (v, panel) in values.panels.chunks_exact_mut(words).enumerate() {
        let rows = rows.columns(v * LANES);
        let mut largest = s.zero();
        for (j, to) in floats.iter_mut().enumerate() {
            rows.prefetch(s, j);
            let x = load_up_to_16(s, rows.row(j));
            s.store(x, to);
            largest = larger_magnitude(s, largest, x);
        }
        let (factor, scale) = column_scales(s, largest);
        s.store(scale, &mut values.scale[v]);
        let rounder = s.splat(ROUNDER);
        let (mut sum, low) = (s.splat_bits(0), s.splat_bits(0xff));
        for (x, to) in floats.chunks(4).zip(panel) {
            // The low byte of a sum with the rounder is the integer.
            let mut q = [s.bits(rounder); 4];
            for (q, x) in q.iter_mut().zip(x) {
                *q = s.bits(s.fma(s.load(x), factor, rounder));
            }
            let [a, b, c, d] = q;
            sum = s.add_bits(sum, s.add_bits(s.add_bits(a, b), s.add_bits(c, d)));
            let pair = s.xor(s.and(a, low), s.shift_left::<8>(s.and(b, low)));
            let other = s.xor(s.shift_left::<16>(s.and(c, low)), s.shift_left::<24>(d));
            s.store_words(s.xor(pair, other), &mut to.0);
        }
        let rounders = ROUNDER.to_bits().wrapping_mul(4 * words as u32);
        let mut lanes = [0.0; LANES];
        s.store(s.floats(s.sub_bits(sum, s.splat_bits(rounders))), &mut lanes);
        values.sums[v * PANEL..][..PANEL].copy_from_slice(&lanes.map(|sum| sum.to_bits().cast_signed()));
    }
}

/// 127/max and max/127 in each lane, by the rules of [`Kernels::quantize_rows`](crate::Kernels::quantize_rows).
#[inline(always)]
fn column_scales<S: Simd>(s: S, max: S::Floats) -> (S::Floats, S::Floats) {
    let steps = s.splat(127.0);
    let small = s.less(max, s.splat(127.0 * f32::MIN_POSITIVE));
    let finite = s.less_bits(s.bits(max), s.splat_bits(f32::INFINITY.to_bits()));
    let factor = s.select(small, s.zero(), s.div(steps, max));
    let scale = s.select(small, s.splat(1.0), s.div(max, steps));
    (s.select(finite, factor, s.zero()), s.select(finite, scale, s.splat(f32::NAN)))
}

#[inline(always)]
fn quantize_queries<S: Simd>(s: S, rows: HeadRows<'_>, memory: &mut Memory) {
    let Memory { lines, scales, .. } = memory;
    let (width, stride) = (rows.width(), rows.len());
    let lines = lines.lend(stride * blocks_i8_parts(width));
    let factors = row_scales(s, rows, scales);
    for (i, factor) in factors.as_flattened().iter().enumerate().take(stride) {
        fill_row(s, rows.row(i), *factor, &mut RowMut { lines: &mut lines[i..], stride, k: width });
    }
}

/// What each row is multiplied by to be quantized; what takes it back goes to `scales`. Sixteen rows are divided at once.
#[inline(always)]
fn row_scales<S: Simd>(s: S, rows: HeadRows<'_>, scales: &mut [Vector]) -> [Vector; VECTORS] {
    let mut factors = [[0.0; LANES]; VECTORS];
    for (i, largest) in scales.as_flattened_mut().iter_mut().enumerate().take(rows.len()) {
        rows.prefetch(s, i);
        *largest = largest_magnitude(s, rows.row(i));
    }
    for (factor, scale) in factors.iter_mut().zip(scales) {
        let (by, back) = column_scales(s, s.load(scale));
        s.store(by, factor);
        s.store(back, scale);
    }
    factors
}

/// The lines of a block of queries, or of their probabilities.
fn left(lines: &Lines, rows: usize) -> Left<'_> {
    Left { lines: lines.get(), stride: rows, rows, width: 1 }
}

/// Scores, but for the factor of each query.
#[inline(always)]
fn scores<S: Simd>(s: S, int8: &Int8Kernels, rows: usize, memory: &mut Memory) {
    let Memory { keys, lines, wide, scores, .. } = memory;
    let panels = keys.scale.len();
    scores.resize(ROWS * panels, [0.0; LANES]);
    let packed = keys.packed();
    // SAFETY: whoever holds these kernels runs where their instructions are.
    let queries = unsafe { int8.widened(left(lines, rows), keys.k.div_ceil(4), wide) };
    let mut sums = [[0; 2 * PANEL]; ROWS];
    for panel in (0..panels).step_by(2) {
        let sums = &mut sums[..rows];
        // SAFETY: as above.
        unsafe { int8.multiply(queries, packed.into(), panel, start(&keys.sums, panel, int8.offset), sums) };
        for (sums, row) in sums.iter().zip(scores.chunks_exact_mut(panels)) {
            let columns = sums.as_chunks::<LANES>().0.iter().zip(&keys.scale[panel..]);
            for ((sums, scale), score) in columns.zip(&mut row[panel..]) {
                s.store(s.mul(s.load_i32(sums), s.load(scale)), score);
            }
        }
    }
}

/// From scores to the lines of the second product. The largest of all rows are found first: what follows would wait for each.
#[inline(always)]
fn probabilities<S: Simd>(s: S, rows: usize, scale: f32, memory: &mut Memory) {
    let Memory { keys, bytes, lines, scores, scales, shares, .. } = memory;
    let (len, panels) = (keys.n, keys.scale.len());
    bytes.resize(panels * LANES, 0);
    let lines = lines.lend(rows * blocks_i8_parts(len));
    let outputs = scales.as_flattened().iter().zip(shares).take(rows).enumerate();
    let mut largest = [0.0; ROWS];
    for (row, largest) in scores.chunks_exact_mut(panels).zip(&mut largest).take(rows) {
        row.as_flattened_mut()[len..].fill(f32::NEG_INFINITY);
        let max = row.iter().fold(s.splat(f32::NEG_INFINITY), |max, x| s.max(max, s.load(x)));
        *largest = s.maximum(max);
    }
    for (row, (i, (query_scale, share))) in scores.chunks_exact(panels).zip(outputs) {
        let mut out = RowMut { lines: &mut lines[i..], stride: rows, k: len };
        // Where a row is one line, straight into it.
        let to = out.line().map_or(&mut bytes[..], |line| &mut line[..]);
        let factor = query_scale * (scale * std::f32::consts::LOG2_E);
        // The largest is taken off first: rounding leaves it at e^0, however large the scores are.
        let (max, factor) = (s.splat(largest[i]), s.splat(factor));
        let (rounder, offset) = (s.splat(ROUNDER), s.splat_bits((128 - CENTRE) as u32));
        let mut sum = s.zero();
        for (x, bytes) in row.iter().zip(to.as_chunks_mut().0) {
            let p = round_254_exp2(s, s.mul(s.sub(s.load(x), max), factor));
            sum = s.add(sum, s.sub(p, rounder));
            s.store_low_bytes(s.add_bits(s.bits(p), offset), bytes);
        }
        *share = 1.0 / s.sum(sum);
        if out.line().is_none() {
            out.copy(bytes);
        }
    }
}

/// The context of a block of queries; its rows are `stride` apart.
#[inline(always)]
fn weigh_values<S: Simd>(
    s: S,
    int8: &Int8Kernels,
    rows: usize,
    memory: &mut Memory,
    context: &mut [f32],
    stride: usize,
) {
    let Memory { values, lines, wide, shares, .. } = memory;
    let packed = values.packed();
    // SAFETY: whoever holds these kernels runs where their instructions are.
    let weights = unsafe { int8.widened(left(lines, rows), values.k.div_ceil(4), wide) };
    let mut sums = [[0; 2 * PANEL]; ROWS];
    for panel in (0..values.scale.len()).step_by(2) {
        let sums = &mut sums[..rows];
        // SAFETY: as above.
        unsafe {
            int8.multiply(
                weights,
                packed.into(),
                panel,
                start(&values.sums, panel, int8.offset - CENTRE),
                sums,
            )
        };
        let columns = panel * PANEL..values.n.min((panel + 2) * PANEL);
        for (i, (sums, share)) in sums.iter().zip(&*shares).enumerate() {
            let to = &mut context[i * stride..][columns.clone()];
            let share = s.splat(*share);
            let parts = sums.as_chunks::<LANES>().0.iter().zip(&values.scale[panel..]);
            for ((sums, scale), to) in parts.zip(to.chunks_mut(LANES)) {
                let x = s.mul(s.load_i32(sums), s.mul(s.load(scale), share));
                match to.try_into() {
                    Ok(to) => s.store(x, to),
                    Err(_) => s.store_partial(x, to),
                }
            }
        }
    }
}
