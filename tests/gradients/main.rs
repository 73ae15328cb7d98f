//! Every operation of the tape against central differences of an f64 oracle, written here as plain loops.
//!
//! The loss is a random linear functional of the operation's result: `L = Σ dy·y`. For each element of each
//! parameter and of each input, `(L(x + h) - L(x - h)) / 2h` in f64 is compared with what the tape's backward
//! pass gives. With h = 1e-5 the differences are right to about 1e-9, so the bound is that of f32 rounding.
#![cfg(feature = "cuda")]

mod attention;
mod harness;
mod layers;
mod losses;
mod oracle;
mod qat;
mod vocabulary;

use harness::{Case, NOISE, TEXTS, TOKENS, VOCAB, batch, both};
use limbeck::autograd::Tape;
use limbeck::backend::Cpu;
use limbeck::models::config::Activation;
use limbeck::nn::{Attend, Embeddings, Exec, LayerNorm, Linear, ParamId};
use limbeck::params::ParamStore;
use limbeck::tensor::{Shape, Tensor};
use limbeck_kernels::Kernels;
use oracle::{attention, embed, linear, norm, sum};

fn layer(first: u32, inputs: usize, outputs: usize, activation: Activation) -> Linear {
    Linear { weight: ParamId(first), bias: Some(ParamId(first + 1)), inputs, outputs, activation, down: None }
}

/// What dropout at `rate` does to ones, at the first place of a fresh tape: the factors themselves.
fn factors(rate: f32, rows: usize, cols: usize) -> Vec<f64> {
    let cpu = Cpu::new(Kernels::select().unwrap());
    let (params, batch) = (ParamStore::new(&cpu, &[], |_| unreachable!()).unwrap(), batch());
    let mut tape = Tape::recording(&cpu, &params, &batch, Some(NOISE));
    let ones = tape.leaf(Tensor::upload(&cpu, &vec![1.0; rows * cols], Shape::new(rows, cols)).unwrap());
    let factors = tape.dropout(&ones, rate).unwrap().tensor().download(&cpu).unwrap();
    two_values(factors.into_iter().map(f64::from).collect(), rate)
}

/// `factors`, which must all be zero or `1 / (1 - rate)`, and both.
fn two_values(factors: Vec<f64>, rate: f32) -> Vec<f64> {
    let kept = 1.0 / (1.0 - f64::from(rate));
    assert!(factors.iter().all(|f| *f == 0.0 || (f - kept).abs() <= 1e-5 * kept), "{factors:?}");
    assert!(factors.contains(&0.0) && factors.iter().any(|f| *f != 0.0));
    factors.into_iter().map(|f| if f == 0.0 { 0.0 } else { kept }).collect()
}

/// Linear layers with every activation, of many sizes.
fn each_linear(check: impl Fn(&Case<'_>, Activation)) {
    use Activation::{Gelu, Identity, Relu, Tanh};
    for activation in [Identity, Gelu, Relu, Tanh] {
        for [inputs, outputs] in [[7, 5], [1, 1], [3, 33], [6, 0], [0, 4]] {
            let case = Case {
                name: &format!("linear {activation:?} {inputs} to {outputs}"),
                params: &[(outputs, inputs), (1, outputs)],
                inputs: &[(TOKENS, inputs)],
                tape: both!(|tape, x| tape.linear(&layer(0, inputs, outputs, activation), &x[0])),
                oracle: &|x| linear(&x[2], &x[0], &x[1], TOKENS, activation),
            };
            check(&case, activation);
        }
    }
}

/// Rows that were picked have a gradient; so have, from elsewhere, those that were not.
#[test]
fn rows_picked_from_all() {
    for rows in [&[][..], &[0], &[17], &[2, 3, 11, 17]] {
        Case {
            name: &format!("rows {rows:?}"),
            params: &[],
            inputs: &[(TOKENS, 3)],
            tape: both!(|tape, x| tape.select(&x[0], rows)),
            oracle: &|x| rows.iter().flat_map(|row| x[0][*row as usize * 3..][..3].to_vec()).collect(),
        }
        .check();
    }
    let layer = layer(0, 3, 3, Activation::Identity);
    let normed = LayerNorm { gamma: ParamId(2), beta: ParamId(3), eps: 0.1 };
    Case {
        name: "rows of a result that is read twice",
        params: &[(3, 3), (1, 3), (1, 3), (1, 3)],
        inputs: &[(TOKENS, 3)],
        tape: both!(|tape, x| {
            let y = tape.linear(&layer, &x[0])?;
            let few = tape.select(&y, &[1, 5])?;
            let many = tape.select(&y, &[0, 1, 2, 3, 4, 5, 6, 7])?;
            let (few, many) = (tape.linear(&layer, &few)?, tape.select(&many, &[5, 6])?);
            let both = tape.add_norm(&normed, &few, &many, 0.0)?;
            tape.norm(&normed, &both)
        }),
        oracle: &|x| {
            let row = |y: &[f64], row: usize| y[row * 3..][..3].to_vec();
            let y = linear(&x[4], &x[0], &x[1], TOKENS, Activation::Identity);
            let few = linear(&[row(&y, 1), row(&y, 5)].concat(), &x[0], &x[1], 2, Activation::Identity);
            let z = sum(&few, &[row(&y, 5), row(&y, 6)].concat());
            norm(&norm(&z, &x[2], &x[3], 0.1), &x[2], &x[3], 0.1)
        },
    }
    .check();
}

#[test]
fn linear_with_every_activation() {
    each_linear(|case, _| case.check());
}

#[test]
fn norm_of_a_sum_with_and_without_dropout() {
    let layer_norm = LayerNorm { gamma: ParamId(0), beta: ParamId(1), eps: 1e-3 };
    for size in [2, 5, 33] {
        for rate in [0.0, 0.3] {
            let factors = if rate > 0.0 { factors(rate, TOKENS, size) } else { vec![1.0; TOKENS * size] };
            Case {
                name: &format!("norm over {size}, dropout {rate}"),
                params: &[(1, size), (1, size)],
                inputs: &[(TOKENS, size), (TOKENS, size)],
                tape: both!(|tape, x| tape.add_norm(&layer_norm, &x[0], &x[1], rate)),
                oracle: &|x| {
                    let dropped: Vec<f64> = x[2].iter().zip(&factors).map(|(x, f)| x * f).collect();
                    norm(&sum(&dropped, &x[3]), &x[0], &x[1], 1e-3)
                },
            }
            .check();
        }
    }
}

/// Tables are params `first..`: words, positions, perhaps types, gamma, beta.
fn embeddings(types: bool, hidden: usize, dropout: f32) -> Embeddings {
    let after = if types { 3 } else { 2 };
    Embeddings {
        words: ParamId(0),
        positions: ParamId(1),
        token_types: types.then_some(ParamId(2)),
        norm: LayerNorm { gamma: ParamId(after), beta: ParamId(after + 1), eps: 1e-3 },
        projection: None,
        hidden,
        dropout,
    }
}

#[test]
fn words_that_are_narrower_than_the_network() {
    let (hidden, size) = (5, 3);
    let tables = [(VOCAB, size), (9, hidden), (3, hidden), (1, hidden), (1, hidden)];
    let params = [&tables[..], &[(hidden, size), (1, hidden)]].concat();
    let projection = || Some(layer(5, size, hidden, Activation::Identity));
    let factors = factors(0.3, TOKENS, hidden);
    // The rows of the dense table that the product of both is.
    let dense = |x: &[Vec<f64>]| -> Vec<f64> {
        let words = linear(&x[0], &x[5], &x[6], VOCAB, Activation::Identity);
        embed(&[&[words][..], &x[1..5]].concat(), true, hidden)
    };
    for (rate, ones) in [(0.0, vec![1.0; TOKENS * hidden]), (0.3, factors)] {
        Case {
            name: &format!("words through a projection, dropout {rate}"),
            params: &params,
            inputs: &[],
            tape: both!(|tape, _| {
                Embeddings { projection: projection(), ..embeddings(true, hidden, rate) }.forward(tape)
            }),
            oracle: &|x| dense(x).iter().zip(&ones).map(|(y, factor)| y * factor).collect(),
        }
        .check();
    }
}

#[test]
fn embeddings_and_the_norm_of_one_input() {
    let hidden = 5;
    // A position and a type that no token has: their rows' gradients are zero.
    let tables = [(VOCAB, hidden), (9, hidden), (3, hidden), (1, hidden), (1, hidden)];
    let without_types = [tables[0], tables[1], tables[3], tables[4]];
    for (types, params) in [(true, &tables[..]), (false, &without_types[..])] {
        Case {
            name: &format!("embeddings, types: {types}"),
            params,
            inputs: &[],
            tape: both!(|tape, _| tape.embed(&embeddings(types, hidden, 0.0))),
            oracle: &|x| embed(x, types, hidden),
        }
        .check();
    }
    let factors = factors(0.3, TOKENS, hidden);
    Case {
        name: "embeddings with dropout",
        params: &tables,
        inputs: &[],
        tape: both!(|tape, _| tape.embed(&embeddings(true, hidden, 0.3))),
        oracle: &|x| embed(x, true, hidden).iter().zip(&factors).map(|(y, f)| y * f).collect(),
    }
    .check();
    let residual_norm = LayerNorm { gamma: ParamId(3), beta: ParamId(4), eps: 1e-3 };
    Case {
        name: "tables and a norm used twice",
        params: &tables,
        inputs: &[],
        tape: both!(|tape, _| {
            let first = tape.embed(&embeddings(true, hidden, 0.0))?;
            let second = tape.embed(&embeddings(true, hidden, 0.0))?;
            tape.add_norm(&residual_norm, &first, &second, 0.0)
        }),
        oracle: &|x| {
            let once = embed(x, true, hidden);
            norm(&sum(&once, &once), &x[3], &x[4], 1e-3)
        },
    }
    .check();
}

#[test]
fn dropout_of_rows_of_tokens_and_of_texts() {
    for (rows, cols) in [(TOKENS, 7), (TEXTS, 6)] {
        for rate in [0.0, 0.1, 0.9] {
            let factors = if rate > 0.0 { factors(rate, rows, cols) } else { vec![1.0; rows * cols] };
            Case {
                name: &format!("dropout {rate} of {rows} rows"),
                params: &[],
                inputs: &[(rows, cols)],
                tape: both!(|tape, x| tape.dropout(&x[0], rate)),
                oracle: &|x| x[0].iter().zip(&factors).map(|(x, f)| x * f).collect(),
            }
            .check();
        }
    }
}

#[test]
fn pooling() {
    let hidden = 5;
    let pooled = |x: &[f64], mean: bool| {
        let (batch, mut y) = (batch(), Vec::new());
        for text in 0..TEXTS {
            let rows =
                if mean { batch.text(text) } else { batch.text(text).start..batch.text(text).start + 1 };
            let share = 1.0 / rows.len() as f64;
            y.extend((0..hidden).map(|i| rows.clone().map(|t| share * x[t * hidden + i]).sum::<f64>()));
        }
        y
    };
    for mean in [false, true] {
        Case {
            name: if mean { "the mean of tokens" } else { "first tokens" },
            params: &[],
            inputs: &[(TOKENS, hidden)],
            tape: both!(|tape, x| if mean { tape.mean_tokens(&x[0]) } else { tape.first_tokens(&x[0]) }),
            oracle: &|x| pooled(&x[0], mean),
        }
        .check();
    }
}

#[test]
fn what_is_used_more_than_once_collects_all_its_gradients() {
    let (size, tanh) = (6, Activation::Tanh);
    Case {
        name: "a layer used twice",
        params: &[(size, size), (1, size)],
        inputs: &[(TOKENS, size)],
        tape: both!(|tape, x| {
            let once = tape.linear(&layer(0, size, size, tanh), &x[0])?;
            tape.linear(&layer(0, size, size, tanh), &once)
        }),
        oracle: &|x| {
            let once = linear(&x[2], &x[0], &x[1], TOKENS, tanh);
            linear(&once, &x[0], &x[1], TOKENS, tanh)
        },
    }
    .check();

    // x feeds three projections and a residual; the context feeds two layers and its own norm.
    let attend = Attend { heads: 2, head_size: 3, dropout: 0.0, decoupled: false };
    let normed = LayerNorm { gamma: ParamId(8), beta: ParamId(9), eps: 1e-3 };
    let plain = Activation::Identity;
    let (matrix, vector) = ((size, size), (1, size));
    Case {
        name: "variables used by several operations",
        params: &[matrix, vector, matrix, vector, matrix, vector, matrix, vector, vector, vector],
        inputs: &[(TOKENS, size)],
        tape: both!(|tape, x| {
            let [q, k, v] =
                [0, 2, 4].map(|first| tape.linear(&layer(first, size, size, plain), &x[0]).unwrap());
            let context = tape.attend(&attend, &q, &k, &v)?;
            let again = tape.attend(&attend, &context, &context, &context)?;
            let y = tape.linear(&layer(6, size, size, Activation::Gelu), &again)?;
            let normed_once = tape.add_norm(&normed, &y, &x[0], 0.0)?;
            let twice = tape.add_norm(&normed, &normed_once, &normed_once, 0.0)?;
            tape.add_norm(&normed, &context, &twice, 0.0)
        }),
        oracle: &|x| {
            let input = &x[10];
            let [q, k, v] = [0, 2, 4].map(|i| linear(input, &x[i], &x[i + 1], TOKENS, plain));
            let keep = |_: usize, _: usize, _: usize, _: usize| 1.0;
            let context = attention([&q, &k, &v], [2, 3], false, &keep);
            let again = attention([&context, &context, &context], [2, 3], false, &keep);
            let y = linear(&again, &x[6], &x[7], TOKENS, Activation::Gelu);
            let normed_once = norm(&sum(&y, input), &x[8], &x[9], 1e-3);
            let twice = norm(&sum(&normed_once, &normed_once), &x[8], &x[9], 1e-3);
            norm(&sum(&context, &twice), &x[8], &x[9], 1e-3)
        },
    }
    .check();
}

#[test]
fn a_leaf_that_nothing_uses_has_no_gradient() {
    Case {
        name: "the second of two inputs",
        params: &[(3, 3), (1, 3)],
        inputs: &[(TOKENS, 3), (TOKENS, 3)],
        tape: both!(|tape, x| tape.linear(&layer(0, 3, 3, Activation::Relu), &x[1])),
        oracle: &|x| linear(&x[3], &x[0], &x[1], TOKENS, Activation::Relu),
    }
    .check();
}

#[test]
fn derivatives_by_several_variables_add_up() {
    let (cpu, batch) = (Cpu::new(Kernels::select().unwrap()), batch());
    let value = |spec: &limbeck::nn::ParamSpec| Ok((0..spec.len()).map(|i| 0.3 - 0.05 * i as f32).collect());
    let spec =
        limbeck::nn::ParamSpec { name: "w".to_owned(), role: limbeck::nn::Role::Weight, rows: 4, cols: 3 };
    let bias = limbeck::nn::ParamSpec { name: "b".to_owned(), rows: 1, cols: 4, ..spec.clone() };
    let params = ParamStore::new(&cpu, &[spec, bias], value).unwrap();
    let upload = |x: f32, cols: usize| {
        let values: Vec<f32> = (0..TOKENS * cols).map(|i| x * (i as f32 * 0.37).sin()).collect();
        Tensor::upload(&cpu, &values, Shape::new(TOKENS, cols)).unwrap()
    };
    // y = x·Wᵀ, and z = y again, pooled: what is given for x, for y and for z, together and one by one.
    let run = |given: [bool; 3]| -> Vec<f32> {
        let mut tape = Tape::recording(&cpu, &params, &batch, None);
        let x = tape.leaf(upload(1.0, 3));
        let y = tape.linear(&layer(0, 3, 4, Activation::Tanh), &x).unwrap();
        let z = tape.mean_tokens(&y).unwrap();
        let dz = Tensor::upload(&cpu, &[0.5; TEXTS * 4], Shape::new(TEXTS, 4)).unwrap();
        let all = [(x.clone(), upload(0.2, 3)), (y.clone(), upload(0.7, 4)), (y, upload(-0.1, 4)), (z, dz)];
        let chosen = [given[0], given[1], given[1], given[2]];
        let pairs = all.into_iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(pair, _)| pair);
        let grads = tape.backward(pairs).unwrap();
        grads.var(x.id()).unwrap().download(&cpu).unwrap()
    };
    let alone = [[true, false, false], [false, true, false], [false, false, true]].map(run);
    for (i, sum) in run([true; 3]).into_iter().enumerate() {
        let expected: f32 = alone.iter().map(|alone| alone[i]).sum();
        assert!((sum - expected).abs() <= 1e-6, "{i}: {sum} for {expected}");
    }
}
