//! Signal-to-noise ratios and divergences against sums in f64, and what is left behind.

use crate::network::{bits, config, download, learner};
use limbeck::Batch;
use limbeck::autograd::Tape;
use limbeck::backend::Cpu;
use limbeck::data::{TokenSet, demo};
use limbeck::formats::{Int4Rows, Int8Rows};
use limbeck::models::config::{Architecture, Pooling};
use limbeck::models::{ModelConfig, Rows, probabilities};
use limbeck::nn::{Linear, ParamId, Role};
use limbeck::quantize::sensitivity::{MatrixSensitivity, Scan, Sensitivity, measure};
use limbeck::stages::Silent;
use limbeck::tokenizer::{Rules, Tokenizer};
use limbeck::train::Learner;
use std::sync::atomic::AtomicBool;

/// Texts that are looked at; half of them calibrate.
const COUNT: usize = 20;

/// A tiny network, and texts that it can read.
fn setting() -> (Learner<Cpu>, TokenSet) {
    let demo::Demo { train, labels, pieces, .. } = demo::generate(3, COUNT + 4, 0);
    let tokenizer = Tokenizer::from_pieces(&pieces, Rules::bert(true)).unwrap();
    let texts = TokenSet::from_examples(&train, &labels, &tokenizer, 24);
    let config = config(Architecture::Bert, Pooling::Mean, 0.0);
    (learner(&ModelConfig { vocab: pieces.len(), labels, ..config }), texts)
}

fn scan(texts: &TokenSet) -> Scan<'_> {
    static NEVER: AtomicBool = AtomicBool::new(false);
    Scan { texts, count: COUNT, blocks: true, progress: &Silent, stop: &NEVER }
}

fn values_of(learner: &Learner<Cpu>, id: ParamId) -> Vec<f32> {
    download(learner, learner.params.value(id))
}

/// The values that a matrix of some form stands for.
type Rounded = Vec<f64>;

fn in_int8(values: &[f32], rows: usize, cols: usize) -> Rounded {
    Int8Rows::by_row(values, rows, cols).values().map(f64::from).collect()
}

fn in_int4(values: &[f32], rows: usize, cols: usize) -> Rounded {
    Int4Rows::by_row(values, rows, cols).unpack().values().map(f64::from).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// `x·Wᵀ + b`.
fn product(x: &[f64], w: &[f64], bias: &[f32], inputs: usize) -> Vec<f64> {
    let outputs = |x: &[f64]| -> Vec<f64> {
        let sums = w.chunks(inputs).zip(bias);
        sums.map(|(w, b)| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + f64::from(*b)).collect()
    };
    x.chunks(inputs).flat_map(outputs).collect()
}

fn decibels(exact: &[f64], found: &[f64]) -> f64 {
    let signal: f64 = exact.iter().map(|x| x * x).sum();
    let noise: f64 = exact.iter().zip(found).map(|(a, b)| (a - b).powi(2)).sum();
    10.0 * (signal / noise).log10()
}

/// Values by steps of `clip / 127`.
fn clipped(x: &[f64], clip: f64) -> Vec<f64> {
    x.iter().map(|x| (x * 127.0 / clip).round_ties_even().clamp(-127.0, 127.0) * clip / 127.0).collect()
}

fn by_row(x: &[f64], cols: usize) -> Vec<f64> {
    x.chunks(cols).flat_map(|row| clipped(row, row.iter().fold(0.0, |max, x| max.max(x.abs())))).collect()
}

fn close(what: &str, found: Option<f64>, expected: f64) {
    let found = found.unwrap_or_else(|| panic!("{what}: nothing found"));
    // Rounding a value in f32 rather than in f64 goes the other way for one in some ten thousand.
    assert!((found - expected).abs() <= 0.02, "{what}: {found} dB, in f64 {expected}");
}

fn found<'s>(sensitivity: &'s Sensitivity, learner: &Learner<Cpu>, id: ParamId) -> &'s MatrixSensitivity {
    let name = &learner.params.get(id).spec.name;
    sensitivity.parameters.iter().find(|parameter| parameter.name == *name).unwrap()
}

/// What a matrix reads, of the first half of the texts and of the second.
fn inputs(learner: &Learner<Cpu>, texts: &TokenSet, of: usize) -> Vec<(Linear, [Vec<f64>; 2])> {
    let halves = [0..COUNT / 2, COUNT / 2..COUNT].map(|rows| {
        let batch = Batch::from_texts(rows.map(|text| texts.tokens(text)));
        let mut tape = Tape::evaluating(&learner.backend, &learner.params, &batch);
        let (_, taps) = learner.model.forward_with_taps(&mut tape, Rows::Needed).unwrap();
        let layer = &taps.layers[of];
        let before = if of == 0 { &taps.embedded } else { &taps.layers[of - 1].hidden };
        [before, &layer.context, &layer.intermediate].map(|var| wide(&download(learner, var.tensor())))
    });
    let [first, second] = halves;
    let layer = &learner.model.layers[of];
    let linears = [&layer.attention.value, &layer.attention.output, &layer.contract];
    let pairs = linears.into_iter().zip(first.into_iter().zip(second));
    pairs.map(|(linear, (first, second))| (linear.clone(), [first, second])).collect()
}

#[test]
fn ratios_are_those_of_sums_in_f64() {
    let (mut learner, texts) = setting();
    let sensitivity = measure(&mut learner, scan(&texts), |_| false).unwrap();
    for of in [0, 2] {
        for (linear, [calibration, x]) in inputs(&learner, &texts, of) {
            let of = found(&sensitivity, &learner, linear.weight);
            let (name, n, k) = (&of.name, of.rows, of.cols);
            let w = values_of(&learner, linear.weight);
            let bias = values_of(&learner, linear.bias.expect("no layer is factored"));
            let exact = product(&x, &wide(&w), &bias, k);
            let (int8, int4) = (in_int8(&w, n, k), in_int4(&w, n, k));
            close(&format!("{name} in int8"), of.int8.weights_db, decibels(&wide(&w), &int8));
            close(&format!("{name} in int4"), of.int4.weights_db, decibels(&wide(&w), &int4));
            let rows = by_row(&x, k);
            let ratio = |x: &[f64], w: &[f64]| decibels(&exact, &product(x, w, &bias, k));
            close(&format!("{name}, int8 outputs"), of.int8.outputs_db, ratio(&rows, &int8));
            close(&format!("{name}, int4 outputs"), of.int4.outputs_db, ratio(&rows, &int4));
            assert!(of.int4.outputs_db < of.int8.outputs_db && of.int4.bytes < of.int8.bytes, "{name}");
            let largest = calibration.iter().fold(0.0f64, |max, x| max.max(x.abs()));
            let fixed = of.static_scales.unwrap();
            close(&format!("{name}, the largest"), fixed.max_db, ratio(&clipped(&x, largest), &int8));
            // A clip chosen for the least error is not much worse than any other on like texts.
            let others = (20..=100).map(|part| ratio(&clipped(&x, largest * f64::from(part) / 100.0), &int8));
            let best = others.fold(f64::NEG_INFINITY, f64::max);
            assert!(fixed.mse_db.unwrap() >= best - 1.5, "{name}: {fixed:?}, best {best}");
        }
    }
}

#[test]
fn a_table_s_ratio_is_that_of_the_rows_that_are_read() {
    let (mut learner, texts) = setting();
    let sensitivity = measure(&mut learner, scan(&texts), |_| false).unwrap();
    let words = learner.model.embeddings.words;
    let of = found(&sensitivity, &learner, words);
    let values = values_of(&learner, words);
    let (int8, int4) = (in_int8(&values, of.rows, of.cols), in_int4(&values, of.rows, of.cols));
    let ids: Vec<usize> =
        (COUNT / 2..COUNT).flat_map(|text| texts.tokens(text)).map(|id| *id as usize).collect();
    let read = |table: &[f64]| -> Vec<f64> {
        ids.iter().flat_map(|id| table[id * of.cols..(id + 1) * of.cols].to_vec()).collect()
    };
    let exact = read(&wide(&values));
    close("words in int8", of.int8.outputs_db, decibels(&exact, &read(&int8)));
    close("words in int4", of.int4.outputs_db, decibels(&exact, &read(&int4)));
    assert_eq!((of.static_scales, of.divergence), (None, None));
}

#[test]
fn a_divergence_is_that_of_the_network_with_one_matrix_rounded() {
    let (mut learner, texts) = setting();
    let all = Batch::from_texts((0..COUNT).map(|text| texts.tokens(text)));
    let before = learner.logits(&all).unwrap();
    let sensitivity = measure(&mut learner, scan(&texts), |spec| spec.role == Role::Weight).unwrap();
    assert_eq!(bits(&learner.logits(&all).unwrap()), bits(&before), "the network is as it was");
    let classes = learner.model.config.labels.len();
    for linear in [learner.model.layers[1].expand.clone(), learner.model.head.classifier.clone()] {
        let of = found(&sensitivity, &learner, linear.weight);
        let values = values_of(&learner, linear.weight);
        let rounded = in_int4(&values, of.rows, of.cols);
        crate::network::change(&mut learner, linear.weight, |row, col, _| {
            rounded[row * of.cols + col] as f32
        });
        let after = learner.logits(&all).unwrap();
        crate::network::change(&mut learner, linear.weight, |row, col, _| values[row * of.cols + col]);
        let pairs = before.chunks(classes).zip(after.chunks(classes));
        let sum: f64 = pairs
            .flat_map(|(p, q)| probabilities(p).into_iter().zip(probabilities(q)))
            .map(|(p, q)| f64::from(p) * (f64::from(p) / f64::from(q)).ln())
            .sum();
        let (found, expected) = (of.divergence.unwrap(), sum / COUNT as f64);
        assert!((found - expected).abs() <= 1e-6 + 0.01 * expected, "{}: {found} {expected}", of.name);
        assert!(found > 0.0);
    }
    let tables = sensitivity.parameters.iter().filter(|parameter| parameter.static_scales.is_none());
    assert!(tables.clone().count() == 3 && tables.into_iter().all(|table| table.divergence.is_none()));
}
