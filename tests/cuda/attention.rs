//! Attention: against f64, with bounds from the roundings of the type; in f32 against the CPU as well.

use crate::attention_oracle::{Attended, Sum, Texts, attend};
use crate::device::*;
use limbeck::Batch;
use limbeck::backend::cuda::Storage;
use limbeck::backend::cuda::lengths::Part;
use limbeck::backend::{Cuda, Device};
use limbeck::nn::Attend;
use limbeck::ops::attention::AttentionOps;
use limbeck::ops::dropout::{DropoutSeed, DropoutSite};
use limbeck::tensor::Tensor;
use std::cell::RefCell;
use std::collections::HashMap;

const SITE: DropoutSite = DropoutSite { seed: DropoutSeed { seed: 9, step: 4 }, place: 12, rate: 0.15 };

fn attention(texts: &Texts) -> Attend {
    Attend { heads: texts.heads, head_size: texts.size, dropout: SITE.rate, decoupled: false }
}

/// q, k, v and dcontext, as `storage` holds them.
fn operands(texts: &Texts, storage: Storage) -> [Vec<f32>; 4] {
    let width = texts.width();
    [(1, texts.queries()), (2, texts.tokens()), (3, texts.tokens()), (4, texts.queries())]
        .map(|(seed, rows)| random(seed, rows * width, storage))
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

fn oracle(texts: &Texts, batch: &Batch, storage: Storage, dropout: Option<&DropoutSite>) -> Attended {
    let [q, k, v, dcontext] = operands(texts, storage).map(|x| wide(&x));
    attend(texts, [&q, &k, &v, &dcontext], dropout, &batch.samples)
}

/// What the GPU gives: context, sums, dq, dk, dv.
fn run(cuda: &Cuda, batch: &Batch, texts: &Texts, dropout: Option<&DropoutSite>) -> [Vec<f32>; 5] {
    run_with(cuda, batch, texts, &operands(texts, cuda.storage()), dropout)
}

/// The same of these operands.
fn run_with(
    cuda: &Cuda,
    batch: &Batch,
    texts: &Texts,
    [q, k, v, dcontext]: &[Vec<f32>; 4],
    dropout: Option<&DropoutSite>,
) -> [Vec<f32>; 5] {
    let cpu = cpu();
    let upload = |x: &[f32], rows: usize| both(cuda, &cpu, x, rows).0;
    let qkv = [upload(q, texts.queries()), upload(k, texts.tokens()), upload(v, texts.tokens())];
    let attend = attention(texts);
    let [context, sums] = cuda.attention_forward(batch, &attend, qkv.each_ref(), dropout).unwrap();
    let dcontext = upload(dcontext, texts.queries());
    let results = [&context, &sums];
    let [dq, dk, dv] =
        cuda.attention_backward(batch, &attend, qkv.each_ref(), dropout, results, &dcontext).unwrap();
    [context, sums, dq, dk, dv].map(|x: Tensor<Cuda>| x.download(cuda).unwrap())
}

/// How wrong results may be: shares of the sizes of what is added up, and what is lost near zero.
struct Bounds {
    /// Of a result and of a left operand, rounded to storage.
    rounding: f64,
    /// Of a probability, from sums in f32.
    probability: f64,
    smallest: f64,
}

impl Bounds {
    fn of(storage: Storage, texts: &Texts, score: f64) -> Bounds {
        let longest = texts.lengths.iter().copied().max().unwrap_or(0);
        let single = rounding(Storage::F32);
        // Each term of a scalar product is rounded once and then in each sum; a power takes its exponent's error as its own share.
        let probability = (texts.size + 8) as f64 * single * (2.0 + 2.0 * score) + longest as f64 * single;
        // Half of the smallest number there is, for each that is added up.
        let smallest = if storage == Storage::F16 { (longest + 1) as f64 * 2f64.powi(-25) } else { 1e-30 };
        Bounds { rounding: rounding(storage), probability, smallest }
    }

    /// `roundings` times something was rounded to storage on the way to these.
    fn check(&self, found: &[f32], expected: &[Sum], roundings: f64, what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - expected.value).abs();
            let share = roundings * self.rounding + 4.0 * self.probability;
            let bound = share * expected.size + self.smallest;
            assert!(
                error <= bound,
                "{what}, element {i}: {found}, not {expected:?}, off by {error} of {bound}"
            );
        }
    }
}

fn check(found: &[Vec<f32>; 5], expected: &Attended, texts: &Texts, storage: Storage, what: &str) {
    let bounds = Bounds::of(storage, texts, expected.score);
    let [context, sums, dq, dk, dv] = found;
    for (found, expected) in sums.iter().zip(&expected.sums) {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= bounds.probability, "{what}, sum: {found}, not {expected}");
    }
    // The left operand and the result; of scores' slopes also the context in δ.
    bounds.check(context, &expected.context, 2.0, &format!("{what}, context"));
    bounds.check(dv, &expected.dv, 2.0, &format!("{what}, dv"));
    bounds.check(dq, &expected.dq, 3.0, &format!("{what}, dq"));
    bounds.check(dk, &expected.dk, 3.0, &format!("{what}, dk"));
}

/// Lengths of texts, heads, columns of a head.
type Case<'a> = (&'a [usize], usize, usize);

/// What tensor cores compute.
const HALVES: [Storage; 2] = [Storage::Bf16, Storage::F16];

/// Each of these in each of the storages and each order, with dropout and without. Orders change no bit.
fn against_f64(storages: &[Storage], cases: &[Case<'_>], first: bool) {
    type Known = (Attended, Option<[Vec<f32>; 5]>);
    let known: RefCell<HashMap<(Storage, usize, bool), Known>> = RefCell::default();
    on_devices(storages, |cuda, what| {
        for (case, &(lengths, heads, size)) in cases.iter().enumerate() {
            let texts = Texts { lengths: lengths.to_vec(), heads, size, first };
            let (storage, batch) = (cuda.storage(), batch(lengths));
            for dropout in [None, Some(&SITE)] {
                let mut known = known.borrow_mut();
                let (expected, before) = known
                    .entry((storage, case, dropout.is_some()))
                    .or_insert_with(|| (oracle(&texts, &batch, storage, dropout), None));
                let found = run(cuda, &batch, &texts, dropout);
                let dropped = if dropout.is_some() { "dropout" } else { "no dropout" };
                let what = format!("{what}, {texts:?}, {dropped}");
                check(&found, expected, &texts, storage, &what);
                assert!(
                    *before.get_or_insert_with(|| found.clone()) == found,
                    "{what}: other bits in another order"
                );
            }
        }
    });
}

/// Three classes of texts, each alone, and together, where those that are few join the next class.
#[test]
fn texts_that_a_block_holds() {
    // The last are so many that a class has room for one of them that is shorter.
    let many: Vec<usize> = std::iter::once(70).chain([3; 16]).collect();
    let cases: [Case<'_>; 5] = [
        (&[1, 2, 31, 32], 2, 64),
        (&[33, 64, 1], 2, 64),
        (&[128, 100], 1, 64),
        (&[70, 3, 40, 20, 90], 12, 8),
        (&many, 12, 8),
    ];
    against_f64(&HALVES, &cases, false);
}

#[test]
fn texts_that_pass_in_tiles() {
    // The last have 21 tiles, and the list one more, which is none.
    let cases: [Case<'_>; 5] =
        [(&[129, 300, 5], 1, 32), (&[512], 1, 16), (&[140], 1, 64), (&[130, 64], 1, 128), (&[129; 7], 1, 8)];
    against_f64(&HALVES, &cases, false);
}

#[test]
fn texts_by_rows() {
    against_f64(&[Storage::F32], &[(&[1, 2, 31, 32, 33, 64], 2, 64), (&[129], 1, 20)], false);
}

#[test]
fn heads_of_any_size() {
    let lengths: &[usize] = &[33, 1, 17];
    let heads = [(3, 1), (1, 8), (5, 20), (3, 32), (1, 96), (1, 128)];
    against_f64(&Storage::ALL, &heads.map(|(heads, size)| (lengths, heads, size)), false);
    // In tiles: too large for a block to hold the text, and not of eights.
    against_f64(&HALVES, &[(&[66], 1, 99), (&[140], 2, 20), (&[130], 1, 3)], false);
}

#[test]
fn first_tokens_alone() {
    let cases: [Case<'_>; 4] =
        [(&[1, 2, 31, 32, 33, 64, 100, 129, 300], 2, 64), (&[70, 3], 12, 20), (&[5], 3, 1), (&[512], 1, 128)];
    against_f64(&Storage::ALL, &cases, true);
}

/// Where scores are so far below zero that a power of 0, which is the score of what is not there, would overflow.
#[test]
fn scores_far_from_zero() {
    on_devices(&Storage::ALL, |cuda, what| {
        for (lengths, first) in
            [(vec![3, 50], false), (vec![70], false), (vec![140], false), (vec![3, 40], true)]
        {
            let texts = Texts { lengths, heads: 1, size: 64, first };
            let batch = batch(&texts.lengths);
            let mut given = operands(&texts, cuda.storage());
            given[0].iter_mut().for_each(|x| *x = 16.0 * x.abs());
            given[1].iter_mut().for_each(|x| *x = -16.0 * x.abs());
            let wide = given.each_ref().map(|x| wide(x));
            let expected = attend(&texts, wide.each_ref().map(|x| &x[..]), None, &batch.samples);
            assert!(expected.sums.iter().all(|sum| *sum < -100.0));
            check(&run_with(cuda, &batch, &texts, &given, None), &expected, &texts, cuda.storage(), what);
        }
    });
}

#[test]
fn in_f32_as_on_the_cpu() {
    on_devices(&[Storage::F32], |cuda, what| {
        let (cpu, lengths) = (cpu(), [1, 2, 31, 33, 64, 129]);
        for first in [false, true] {
            let texts = Texts { lengths: lengths.to_vec(), heads: 3, size: 16, first };
            let (batch, attend) = (batch(&lengths), attention(&texts));
            let [q, k, v, dcontext] = operands(&texts, Storage::F32);
            let upload = |x: &[f32], rows: usize| both(cuda, &cpu, x, rows).1;
            let qkv = [upload(&q, texts.queries()), upload(&k, texts.tokens()), upload(&v, texts.tokens())];
            let dcontext = upload(&dcontext, texts.queries());
            for dropout in [None, Some(&SITE)] {
                let [context, sums] =
                    cpu.attention_forward(&batch, &attend, qkv.each_ref(), dropout).unwrap();
                let [dq, dk, dv] = cpu
                    .attention_backward(
                        &batch,
                        &attend,
                        qkv.each_ref(),
                        dropout,
                        [&context, &sums],
                        &dcontext,
                    )
                    .unwrap();
                let expected = [context, sums, dq, dk, dv];
                for (found, expected) in run(cuda, &batch, &texts, dropout).iter().zip(expected) {
                    assert_close(found, &cpu.download(expected.buffer()).unwrap(), 3e-6, what);
                }
            }
        }
    });
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let texts = Texts { lengths: vec![3, 1, 5], heads: 2, size: 3, first: false };
    let batch = batch(&texts.lengths);
    let given = operands(&texts, Storage::F16).map(|x| wide(&x));
    let loss = |given: &[Vec<f64>; 4]| -> f64 {
        let attended = attend(&texts, given.each_ref().map(|x| &x[..]), Some(&SITE), &batch.samples);
        attended.context.iter().zip(&given[3]).map(|(context, dcontext)| context.value * dcontext).sum()
    };
    let step = 1e-5;
    let slopes: Vec<Vec<f64>> = (0..3)
        .map(|which| {
            let slope = |i: usize| {
                let shifted = |by: f64| {
                    let mut given = given.clone();
                    given[which][i] += by;
                    loss(&given)
                };
                (shifted(step) - shifted(-step)) / (2.0 * step)
            };
            (0..given[which].len()).map(slope).collect()
        })
        .collect();
    let expected = attend(&texts, given.each_ref().map(|x| &x[..]), Some(&SITE), &batch.samples);
    for (slopes, expected) in slopes.iter().zip([&expected.dq, &expected.dk, &expected.dv]) {
        for (slope, expected) in slopes.iter().zip(expected) {
            assert!((slope - expected.value).abs() <= 1e-8, "{slope}, not {expected:?}");
        }
    }
    on_devices(&[Storage::F32], |cuda, what| {
        // The same numbers: what f16 holds, f32 holds.
        let cpu = cpu();
        let upload = |x: &[f64], rows: usize| {
            let x: Vec<f32> = x.iter().map(|x| *x as f32).collect();
            both(cuda, &cpu, &x, rows).0
        };
        let [q, k, v, dcontext] = given.each_ref().map(|x| upload(x, texts.tokens()));
        let (attend, qkv) = (attention(&texts), [&q, &k, &v]);
        let [context, sums] = cuda.attention_forward(&batch, &attend, qkv, Some(&SITE)).unwrap();
        let gradients =
            cuda.attention_backward(&batch, &attend, qkv, Some(&SITE), [&context, &sums], &dcontext).unwrap();
        for (found, slopes) in gradients.iter().zip(&slopes) {
            let slopes: Vec<f32> = slopes.iter().map(|slope| *slope as f32).collect();
            assert_close(&found.download(cuda).unwrap(), &slopes, 2e-6, what);
        }
    });
}

/// With three heads, the indices of the last one's dropout are above 2³².
#[test]
fn dropout_of_a_text_too_long_for_32_bits() {
    on_devices(&[Storage::Bf16], |cuda, what| {
        let texts = Texts { lengths: vec![46_500], heads: 3, size: 1, first: true };
        let (storage, batch) = (cuda.storage(), batch(&texts.lengths));
        let expected = oracle(&texts, &batch, storage, Some(&SITE));
        check(&run(cuda, &batch, &texts, Some(&SITE)), &expected, &texts, storage, what);
    });
}

#[test]
fn mean_probabilities() {
    on_devices(&Storage::ALL, |cuda, what| {
        let (cpu, lengths) = (cpu(), [1, 5, 40, 130]);
        for first in [false, true] {
            let texts = Texts { lengths: lengths.to_vec(), heads: 3, size: 20, first };
            let (batch, attend) = (batch(&lengths), attention(&texts));
            let [q, k, v, _] = operands(&texts, cuda.storage());
            let [q, k, v] = [(q, texts.queries()), (k, texts.tokens()), (v, texts.tokens())]
                .map(|(x, rows)| both(cuda, &cpu, &x, rows));
            let [mut found, mut expected] = [[2.0; 3]; 2];
            cuda.mean_attention(&batch, &attend, [&q.0, &k.0, &v.0], &mut found).unwrap();
            cpu.mean_attention(&batch, &attend, [&q.1, &k.1, &v.1], &mut expected).unwrap();
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-6, "{what}: {found}, not {expected}");
            }
        }
    });
}

#[test]
fn no_heads_and_heads_too_large() {
    on_devices(&Storage::ALL, |cuda, what| {
        let lengths = [3, 70, 200];
        let texts = Texts { lengths: lengths.to_vec(), heads: 0, size: 64, first: false };
        let found = run(cuda, &batch(&lengths), &texts, Some(&SITE));
        assert!(found.iter().all(Vec::is_empty), "{what}");
        let texts = Texts { heads: 1, size: 129, ..texts };
        let [q, k, v, _] = operands(&texts, cuda.storage()).map(|x| both(cuda, &cpu(), &x, texts.tokens()).0);
        let refused = cuda.attention_forward(&batch(&lengths), &attention(&texts), [&q, &k, &v], None);
        assert!(refused.err().is_some_and(|error| error.to_string().contains("129")), "{what}");
    });
}

#[test]
fn launches_by_length() {
    on_devices(&[Storage::Bf16], |cuda, what| {
        let batch = batch(&[200, 10, 100, 40, 129, 50, 20, 64, 32]);
        let on_device = cuda.batch(&batch).unwrap();
        let lengths = &on_device.lengths;
        let list: Vec<i32> = cuda.download_all(&lengths.list, 9 + 2 * 9).unwrap();
        let tiles = [[0, 0], [0, 64], [0, 128], [0, 192], [4, 0], [4, 64], [4, 128], [2, 0], [2, 64]];
        assert_eq!(list[..9], [0, 4, 2, 7, 5, 3, 8, 6, 1], "{what}");
        assert_eq!(list[9..], tiles.concat(), "{what}");
        let all = Part::Tiles { first: 9, count: 7 };
        let of = |class, texts| Part::Texts(class, texts);
        assert_eq!(lengths.parts(128, 1), [of(32, 6..9), of(64, 3..6), of(128, 2..3), all.clone()]);
        // Three texts are too few, and so are the six of both classes.
        assert_eq!(lengths.parts(128, 4), [of(64, 3..9), of(128, 2..3), all.clone()]);
        assert_eq!(lengths.parts(128, 7), [of(128, 2..9), all]);
        assert_eq!(lengths.parts(64, 7), [of(64, 3..9), Part::Tiles { first: 9, count: 9 }]);
        let many: Vec<usize> = std::iter::repeat_n(129, 7).chain([70]).chain([3; 9]).collect();
        let lengths = &cuda.batch(&crate::device::batch(&many)).unwrap().lengths;
        let tiles = Part::Tiles { first: 17, count: 24 };
        assert_eq!(
            lengths.parts(128, 1),
            [of(32, 8..17), tiles],
            "{what}: eight texts, a shorter one too, in 23 tiles and one that is none"
        );
    });
}
