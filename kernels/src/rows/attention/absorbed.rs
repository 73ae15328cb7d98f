//! Attention of one query whose key and value projections are absorbed into it (as DeepSeek-V2, arXiv 2405.04434,
//! absorbs its own), for the layer of which only the first token is read. With K = x·Wkᵀ + bk and V = x·Wvᵀ + bv,
//!
//!   u = q·Wk,   p = softmax(scale·x·uᵀ),   c = p·x,   context = c·Wvᵀ + bv
//!
//! for each head: q·bk is the same for every key and leaves softmax alone, and the p add up to 1. Two products of all
//! tokens become four of one vector each, so that the weights are read once and nothing but they is int8.

use super::super::softmax::softmax_row;
use super::AbsorbedArgs;
use super::tile::{Scratch, Vector, take, vectors};
use crate::gemm::PANEL;
use crate::simd::{LANES, Simd, load_up_to_16};
use std::ops::Range;

/// Heads that share a pass over the tokens.
const HEADS: usize = 4;

/// Inputs of one word of weights, which lie side by side under each output.
const WORD: usize = 4;

#[inline(always)]
pub(in super::super) fn attention_absorbed<S: Simd>(s: S, args: &AbsorbedArgs<'_>, context: &mut [f32]) {
    let (width, keys) = (vectors(args.hidden), vectors(args.len));
    let words = args.hidden.div_ceil(WORD);
    let mut scratch = Scratch::new(words + HEADS * (width + keys));
    let mut scratch = scratch.vectors();
    let lanes = take(&mut scratch, words);
    let rows = take(&mut scratch, HEADS * width);
    let scores = take(&mut scratch, HEADS * keys);
    for first in (0..args.heads).step_by(HEADS) {
        let heads = first..args.heads.min(first + HEADS);
        for (head, u) in heads.clone().zip(rows.chunks_exact_mut(width)) {
            through_keys(s, args, head, lanes, u);
        }
        score(s, args, rows, scores, width, keys);
        for scores in scores.chunks_exact_mut(keys).take(heads.len()) {
            softmax_row(s, &mut scores.as_flattened_mut()[..args.len]);
        }
        weigh(s, args, scores, rows, width, keys);
        for (head, c) in heads.zip(rows.chunks_exact(width)) {
            let outputs = head * args.head_size..(head + 1) * args.head_size;
            through_values(s, args, outputs.clone(), c, &mut context[outputs]);
        }
    }
}

/// The panels that hold some outputs.
fn panels(outputs: &Range<usize>) -> Range<usize> {
    outputs.start / PANEL..outputs.end.div_ceil(PANEL)
}

/// u = q·Wk of one head, times what scores are multiplied by. `lanes`: a vector for each word, left at anything.
#[inline(always)]
fn through_keys<S: Simd>(s: S, args: &AbsorbedArgs<'_>, head: usize, lanes: &mut [Vector], u: &mut [Vector]) {
    let outputs = head * args.head_size..(head + 1) * args.head_size;
    lanes.fill([0.0; LANES]);
    for panel in panels(&outputs) {
        // Each output's factor under each of its four inputs.
        let mut factors = [0.0; WORD * PANEL];
        for output in outputs.start.max(panel * PANEL)..outputs.end.min((panel + 1) * PANEL) {
            let factor = args.query[output] * args.key.scale[output] * args.scale;
            factors[output % PANEL * WORD..][..WORD].fill(factor);
        }
        let factors = factors.as_chunks::<LANES>().0;
        for part in args.key.weights.parts(panel) {
            for (i, word) in part.words.iter().enumerate() {
                let Some(lanes) = lanes.get_mut(part.place(i)) else { continue };
                let mut sum = s.load(lanes);
                for (weights, factor) in word.as_chunks().0.iter().zip(factors) {
                    sum = s.fma(s.load_i8(weights), s.load(factor), sum);
                }
                s.store(sum, lanes);
            }
        }
    }
    let u = u.as_flattened_mut();
    u[WORD * lanes.len()..].fill(0.0);
    for (lanes, u) in lanes.iter().zip(u.as_chunks_mut::<WORD>().0) {
        for (i, u) in u.iter_mut().enumerate() {
            *u = (lanes[i] + lanes[WORD + i]) + (lanes[2 * WORD + i] + lanes[3 * WORD + i]);
        }
    }
}

/// `scores[h][t] = x[t]·u[h]`.
#[inline(always)]
fn score<S: Simd>(
    s: S,
    args: &AbsorbedArgs<'_>,
    u: &[Vector],
    scores: &mut [Vector],
    width: usize,
    keys: usize,
) {
    let scores = scores.as_flattened_mut();
    for t in 0..args.len {
        let x = &args.x[t * args.hidden..][..args.hidden];
        let mut sums = [s.zero(); HEADS];
        for (v, x) in x.chunks(LANES).enumerate() {
            let x = load_up_to_16(s, x);
            for (h, sum) in sums.iter_mut().enumerate() {
                *sum = s.fma(x, s.load(&u[h * width + v]), *sum);
            }
        }
        for (h, sum) in sums.into_iter().enumerate() {
            scores[h * keys * LANES + t] = s.sum(sum);
        }
    }
}

/// `c[h] = Σ_t p[h][t]·x[t]`.
#[inline(always)]
fn weigh<S: Simd>(s: S, args: &AbsorbedArgs<'_>, p: &[Vector], c: &mut [Vector], width: usize, keys: usize) {
    let p = p.as_flattened();
    for v in 0..width {
        let mut sums = [s.zero(); HEADS];
        for t in 0..args.len {
            let row = &args.x[t * args.hidden..][..args.hidden];
            let x = load_up_to_16(s, &row[v * LANES..]);
            for (h, sum) in sums.iter_mut().enumerate() {
                *sum = s.fma(s.splat(p[h * keys * LANES + t]), x, *sum);
            }
        }
        for (h, sum) in sums.into_iter().enumerate() {
            s.store(sum, &mut c[h * width + v]);
        }
    }
}

/// `context = c·Wvᵀ + bv` of one head.
#[inline(always)]
fn through_values<S: Simd>(
    s: S,
    args: &AbsorbedArgs<'_>,
    outputs: Range<usize>,
    c: &[Vector],
    context: &mut [f32],
) {
    let inputs = c.as_flattened().as_chunks::<WORD>().0;
    for panel in panels(&outputs) {
        let mut sums = [s.zero(); PANEL * WORD / LANES];
        for part in args.value.weights.parts(panel) {
            for (i, word) in part.words.iter().enumerate() {
                let Some(inputs) = inputs.get(part.place(i)) else { continue };
                let inputs = s.load_four(inputs);
                for (sum, weights) in sums.iter_mut().zip(word.as_chunks().0) {
                    *sum = s.fma(s.load_i8(weights), inputs, *sum);
                }
            }
        }
        let mut lanes = [[0.0; LANES]; PANEL * WORD / LANES];
        for (lanes, sum) in lanes.iter_mut().zip(sums) {
            s.store(sum, lanes);
        }
        let words = lanes.as_flattened().as_chunks::<WORD>().0;
        for output in outputs.start.max(panel * PANEL)..outputs.end.min((panel + 1) * PANEL) {
            let [a, b, c, d] = words[output % PANEL];
            let sum = (a + b) + (c + d);
            context[output - outputs.start] = sum.mul_add(args.value.scale[output], args.value.bias[output]);
        }
    }
}
