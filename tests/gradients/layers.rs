//! A whole layer of the encoder, of factored matrices, and used more than once.

use super::harness::{Case, TOKENS, both};
use super::layer;
use super::oracle::{attention, linear, norm, sum};
use limbeck::models::config::Activation;
use limbeck::nn::{Attend, Attention, Down, Layer, LayerNorm, Linear, ParamId};

/// A layer of the encoder, three of whose matrices are factored, that runs twice with one set of parameters.
#[test]
fn a_shared_layer_with_factored_matrices() {
    let (size, units, plain) = (6, 5, Activation::Identity);
    let factored = |first: u32, rank: usize, [inputs, outputs]: [usize; 2], activation| {
        let down = Some(Down { weight: ParamId(first), inputs });
        Linear { down, ..layer(first + 1, rank, outputs, activation) }
    };
    let norm_of = |first: u32| LayerNorm { gamma: ParamId(first), beta: ParamId(first + 1), eps: 1e-3 };
    let layer = Layer {
        attention: Attention {
            query: factored(0, 2, [size, size], plain),
            key: layer(3, size, size, plain),
            value: factored(5, 1, [size, size], plain),
            output: layer(8, size, size, plain),
            attend: Attend { heads: 2, head_size: 3, dropout: 0.0, decoupled: false },
        },
        attention_norm: norm_of(10),
        expand: layer(12, size, units, Activation::Gelu),
        contract: factored(14, 3, [units, size], plain),
        output_norm: norm_of(17),
        attention_output_dropout: 0.0,
        output_dropout: 0.0,
    };
    let (square, vector) = ((size, size), (1, size));
    let query = [(2, size), (size, 2), vector];
    let value = [(1, size), (size, 1), vector];
    let params = [
        &query[..],
        &[square, vector],
        &value,
        &[square, vector, vector, vector, (units, size), (1, units)],
        &[(3, units), (size, 3), vector, vector, vector],
    ]
    .concat();
    let once = |x: &[f64], p: &[Vec<f64>]| -> Vec<f64> {
        let through = |x: &[f64], first: usize, rank: usize| {
            let narrow = linear(x, &p[first], &vec![0.0; rank], TOKENS, plain);
            linear(&narrow, &p[first + 1], &p[first + 2], TOKENS, plain)
        };
        let (q, k, v) = (through(x, 0, 2), linear(x, &p[3], &p[4], TOKENS, plain), through(x, 5, 1));
        let context = attention([&q, &k, &v], [2, 3], false, &|_, _, _, _| 1.0);
        let attended = linear(&context, &p[8], &p[9], TOKENS, plain);
        let x = norm(&sum(&attended, x), &p[10], &p[11], 1e-3);
        let wide = linear(&x, &p[12], &p[13], TOKENS, Activation::Gelu);
        norm(&sum(&through(&wide, 14, 3), &x), &p[17], &p[18], 1e-3)
    };
    Case {
        name: "a factored layer that runs twice",
        params: &params,
        inputs: &[(TOKENS, size)],
        tape: both!(|tape, x| {
            let middle = layer.forward(tape, &x[0], false)?.hidden;
            Ok(layer.forward(tape, &middle, false)?.hidden)
        }),
        oracle: &|x| once(&once(&x[19], x), x),
    }
    .check();
}
