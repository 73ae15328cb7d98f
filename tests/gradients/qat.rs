//! Gradients straight through rounding: at values that int8 holds they are the exact ones.

use super::attention::each_attention;
use super::harness::{Case, LENGTHS, TEXTS, TOKENS, both};
use super::oracle::{attention, linear};
use super::{each_linear, layer};
use limbeck::models::config::Activation;
use limbeck::nn::{Attend, Attention, Exec, Linear};

/// int8 holds what it rounds to 1 in 254 of a row's largest; attention rounds queries, keys, weights and values.
const ROUNDED: f64 = 1.0 / 254.0;
const ATTENDED: f64 = 4.0 * ROUNDED;

#[test]
fn linear_with_every_activation() {
    // The wide half of a feed-forward layer goes from GELU to bytes.
    let bound = |activation| if activation == Activation::Gelu { ROUNDED } else { 2e-5 };
    each_linear(|case, activation| case.check_in_int8(bound(activation)));
}

#[test]
fn linear_without_a_bias() {
    for activation in [Activation::Identity, Activation::Relu] {
        let (inputs, outputs) = (7, 5);
        let without = Linear { bias: None, ..layer(0, inputs, outputs, activation) };
        Case {
            name: &format!("int8 linear {activation:?} without a bias"),
            params: &[(outputs, inputs)],
            inputs: &[(TOKENS, inputs)],
            tape: both!(|tape, x| tape.linear(&without, &x[0])),
            oracle: &|x| linear(&x[1], &x[0], &[0.0; 5], TOKENS, activation),
        }
        .check_in_int8(2e-5);
    }
}

#[test]
fn attention_of_every_token_and_of_the_first() {
    each_attention(|case| case.check_in_int8(ATTENDED));
}

/// Keys and values are absorbed into the one query of a text: nothing but the weights, and the row of the query, is rounded.
#[test]
fn attention_absorbed_into_the_first_token() {
    for [heads, head_size] in [[2, 3], [1, 8], [3, 1]] {
        let (hidden, width) = (6, heads * head_size);
        let of = |first| layer(first, hidden, width, Activation::Identity);
        let layers = Attention {
            query: of(0),
            key: of(2),
            value: of(4),
            output: layer(6, width, hidden, Activation::Identity),
            attend: Attend { heads, head_size, dropout: 0.0, decoupled: false },
        };
        let weight = [(width, hidden), (1, width)];
        Case {
            name: &format!("int8 absorbed attention, {heads} heads of {head_size}"),
            params: &[weight, weight, weight].concat(),
            inputs: &[(TOKENS, hidden)],
            tape: both!(|tape, x| tape.self_attention(&layers, &x[0], true).map(|[context, _]| context)),
            oracle: &|x| {
                let project = |first: usize, x: &[f64], rows, leaves: &[Vec<f64>]| {
                    linear(x, &leaves[first], &leaves[first + 1], rows, Activation::Identity)
                };
                let tokens = &x[6];
                let first: Vec<f64> =
                    first_lens().flat_map(|t| tokens[t * hidden..(t + 1) * hidden].to_vec()).collect();
                let query = project(0, &first, TEXTS, x);
                let [key, value] = [2, 4].map(|first| project(first, tokens, TOKENS, x));
                attention([&query, &key, &value], [heads, head_size], true, &|_, _, _, _| 1.0)
            },
        }
        .check_in_int8(2e-5);
    }
}

/// The first token of each text.
fn first_lens() -> impl Iterator<Item = usize> {
    LENGTHS.into_iter().scan(0, |next, length| {
        let first = *next;
        *next += length;
        Some(first)
    })
}
