//! Attention: of every token and of the first, within sentences, with dropout on its probabilities.

use crate::harness::{Case, FIRSTS, LENGTHS, NOISE, TEXTS, TOKENS, batch, both};
use crate::oracle::{attention, attention_within};
use crate::two_values;
use limbeck::autograd::Tape;
use limbeck::backend::Cpu;
use limbeck::nn::{Attend, Exec};
use limbeck::params::ParamStore;
use limbeck::tensor::{Shape, Tensor};
use limbeck_kernels::Kernels;

/// Attention of every token, and of the first of each text.
pub fn each_attention(check: impl Fn(&Case<'_>)) {
    for [heads, head_size] in [[2, 3], [1, 16], [5, 1], [0, 4]] {
        let (attend, width) =
            (Attend { heads, head_size, dropout: 0.0, decoupled: false }, heads * head_size);
        for (first_only, rows) in [(false, TOKENS), (true, TEXTS)] {
            check(&Case {
                name: &format!("attention {heads} heads of {head_size}, {rows} queries"),
                params: &[],
                inputs: &[(rows, width), (TOKENS, width), (TOKENS, width)],
                tape: both!(|tape, x| tape.attend(&attend, &x[0], &x[1], &x[2])),
                oracle: &|x| {
                    attention([&x[0], &x[1], &x[2]], [heads, head_size], first_only, &|_, _, _, _| 1.0)
                },
            });
        }
    }
}

/// Sentences that are kept apart attend as one text does through a block-diagonal mask.
#[test]
fn attention_within_sentences() {
    let same = |text: usize, query: usize, key: usize| (query < FIRSTS[text]) == (key < FIRSTS[text]);
    for [heads, head_size] in [[2, 3], [1, 16], [5, 1], [0, 4]] {
        let (attend, width) = (Attend { heads, head_size, dropout: 0.0, decoupled: true }, heads * head_size);
        Case {
            name: &format!("attention within sentences, {heads} heads of {head_size}"),
            params: &[],
            inputs: &[(TOKENS, width); 3],
            tape: both!(|tape, x| tape.attend(&attend, &x[0], &x[1], &x[2])),
            oracle: &|x| {
                let qkv = [&x[0][..], &x[1], &x[2]];
                attention_within(qkv, [heads, head_size], false, &|_, _, _, _| 1.0, &same)
            },
        }
        .check();
    }
}

#[test]
fn attention_of_every_token_and_of_the_first() {
    each_attention(|case| case.check());
}

#[test]
fn attention_with_dropout_on_the_probabilities() {
    // A head is wider than the longest text, so that values can be unit vectors.
    let (heads, size, rate) = (2, 8, 0.4);
    let (attend, width) = (Attend { heads, head_size: size, dropout: rate, decoupled: false }, 2 * 8);
    // With queries of zero every probability is 1 / length; with the unit vector of its place as a key's value,
    // the context is the row of probabilities after dropout.
    let cpu = Cpu::new(Kernels::select().unwrap());
    let (params, batch) = (ParamStore::new(&cpu, &[], |_| unreachable!()).unwrap(), batch());
    let mut tape = Tape::recording(&cpu, &params, &batch, Some(NOISE));
    let zeros =
        tape.leaf(Tensor::upload(&cpu, &vec![0.0; TOKENS * width], Shape::new(TOKENS, width)).unwrap());
    let mut values = vec![0.0; TOKENS * width];
    for text in 0..TEXTS {
        for (place, row) in batch.text(text).enumerate() {
            (0..heads).for_each(|head| values[row * width + head * size + place] = 1.0);
        }
    }
    let values = tape.leaf(Tensor::upload(&cpu, &values, Shape::new(TOKENS, width)).unwrap());
    let rows = tape.attend(&attend, &zeros, &zeros, &values).unwrap().tensor().download(&cpu).unwrap();
    let dropped = |text: usize, head: usize, query: usize, key: usize| {
        let at = (batch.text(text).start + query) * width + head * size + key;
        f64::from(rows[at]) * LENGTHS[text] as f64
    };
    let mut all = Vec::new();
    for (text, length) in LENGTHS.into_iter().enumerate() {
        (0..heads * length * length)
            .for_each(|i| all.push(dropped(text, i / length / length, i / length % length, i % length)));
    }
    let mut all = two_values(all, rate).into_iter();
    let factors: Vec<Vec<f64>> =
        LENGTHS.iter().map(|length| all.by_ref().take(heads * length * length).collect()).collect();
    let dropout = |text: usize, head: usize, query: usize, key: usize| {
        factors[text][(head * LENGTHS[text] + query) * LENGTHS[text] + key]
    };
    for (first_only, rows) in [(false, TOKENS), (true, TEXTS)] {
        Case {
            name: &format!("attention with dropout, {rows} queries"),
            params: &[],
            inputs: &[(rows, width), (TOKENS, width), (TOKENS, width)],
            tape: both!(|tape, x| tape.attend(&attend, &x[0], &x[1], &x[2])),
            oracle: &|x| attention([&x[0], &x[1], &x[2]], [heads, size], first_only, &dropout),
        }
        .check();
    }
}
