//! Latency of one text through a whole model, one thread, by length: the session, and its matrix products alone.
//!
//! Shapes are those of real models, weights are random. Before anything is timed, the logits of the session must
//! be the same bits on every kernel row. A table closes the run, on standard error: best times, taken in turns,
//! and the share of the products, which nothing around them can go below.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use limbeck::infer::{Model, Session};
use limbeck::models::Classifier;
use limbeck::models::config::{ModelConfig, Sizes};
use limbeck::nn::{Linear, ParamSpec, Role};
use limbeck::quantize::{Extras, Quantization, quantize};
use limbeck::{Batch, Result};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{LayerI8, PackedI8, QuantizedRows, packed_i8_len};
use limbeck_kernels::random::{SplitMix64, mix};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

const LENGTHS: [usize; 4] = [16, 50, 128, 256];

/// Name, hidden, heads, intermediate; six layers each.
const SHAPES: [(&str, usize, usize, usize); 2] =
    [("distilbert-base", 768, 12, 3072), ("minilm-l6", 384, 12, 1536)];

fn config(hidden: usize, heads: usize, intermediate: usize) -> ModelConfig {
    ModelConfig::distilbert(
        Sizes { vocab: 30_522, positions: 512, hidden, heads, intermediate, layers: 6 },
        ["World", "Sports", "Business", "Sci/Tech"],
    )
}

/// Random values that keep activations in a natural range.
fn values(spec: &ParamSpec) -> Result<Vec<f32>> {
    let mut random = SplitMix64::new(spec.name.bytes().fold(0, |key, byte| mix(key ^ u64::from(byte))));
    let spread = if spec.role == Role::Weight { 1.7 / (spec.cols as f32).sqrt() } else { 0.2 };
    let centre = if spec.role == Role::Gamma { 1.0 } else { 0.0 };
    Ok((0..spec.len()).map(|_| centre + spread * random.signed_unit()).collect())
}

fn text(length: usize) -> Batch {
    let ids: Vec<u32> = (0..length as u32).map(|place| (place * 7919 + 101) % 30_522).collect();
    Batch::from_texts([ids.as_slice()])
}

/// Rows, outputs, inputs, weights and sums.
type Product = (usize, usize, usize, Vec<i8>, Vec<i32>);

/// The int8 products of one pass, on memory of their own, in the order of the network.
struct Products {
    kernels: Kernels,
    steps: Vec<Product>,
    hidden: usize,
    /// What products read: rows of `hidden` columns, and wide ones.
    rows: [QuantizedRows; 2],
    ones: Vec<f32>,
    out: Vec<f32>,
}

impl Products {
    fn new(kernels: Kernels, config: &ModelConfig, tokens: usize) -> Products {
        let (classifier, _) = Classifier::new(config);
        let mut steps = Vec::new();
        let mut push = |linear: &Linear, rows: usize| {
            let (n, k) = (linear.outputs, linear.inputs);
            let weights = (0..packed_i8_len(n, k)).map(|i| (i * 37 % 255) as u8 as i8).collect();
            steps.push((rows, n, k, weights, vec![0; n.next_multiple_of(16)]));
        };
        for (index, layer) in classifier.layers.iter().enumerate() {
            let attention = &layer.attention;
            let last = index + 1 == classifier.layers.len();
            if !last {
                push(&attention.key, tokens);
                push(&attention.value, tokens);
            }
            for linear in [&attention.query, &attention.output, &layer.expand, &layer.contract] {
                push(linear, if last { 1 } else { tokens });
            }
        }
        let widest = steps.iter().map(|step| step.1.max(step.2)).max().unwrap_or(0);
        let bytes: Vec<u8> = (0..tokens * widest).map(|i| (i * 91 % 255 + 1) as u8).collect();
        let hidden = config.hidden;
        let ones = vec![1.0; widest.max(tokens)];
        let rows =
            [hidden, widest].map(|k| QuantizedRows::from_bytes(&bytes[..tokens * k], k, &ones[..tokens]));
        Products { kernels, steps, hidden, rows, ones, out: vec![0.0; tokens * widest] }
    }

    fn run(&mut self) {
        for (rows, n, k, weights, sums) in &self.steps {
            let ones = &self.ones;
            let weights = PackedI8::new(weights, *n, *k, sums);
            // Rows of the bytes that there are: their content does not matter.
            let rows = self.rows[usize::from(*k > self.hidden)].rows(0..*rows);
            let layer = LayerI8 { weights: weights.into(), scale: &ones[..*n], bias: &ones[..*n] };
            self.kernels.gemm_i8_f32(rows, layer, &mut self.out, *n);
        }
        black_box(&mut self.out);
    }
}

/// The shortest of several turns.
fn best(turns: usize, mut runs: [&mut dyn FnMut(); 2]) -> [Duration; 2] {
    let mut best = [Duration::MAX; 2];
    for _ in 0..turns {
        for (run, best) in runs.iter_mut().zip(&mut best) {
            let start = Instant::now();
            run();
            *best = start.elapsed().min(*best);
        }
    }
    best
}

fn latency(criterion: &mut Criterion) {
    let mut table = String::new();
    for (name, hidden, heads, intermediate) in SHAPES {
        let config = config(hidden, heads, intermediate);
        let path = Path::new(name);
        let quantized = quantize(path, &config, values, Quantization::INT8, &Extras::default());
        let model =
            quantized.and_then(|quantized| quantized.image.into_model(path)).expect("a model in memory");
        check(&model);
        let mut group = criterion.benchmark_group(format!("int8 {name}"));
        group.sample_size(20);
        for length in LENGTHS {
            let (batch, mut session) = (text(length), Session::new(&model));
            let mut products = Products::new(session.kernels(), &config, length);
            group.bench_function(BenchmarkId::new("session", length), |bencher| {
                bencher.iter(|| session.logits(black_box(&batch)).expect("a text that fits").len());
            });
            group.bench_function(BenchmarkId::new("products", length), |bencher| {
                bencher.iter(|| products.run())
            });
            let mut whole = || {
                black_box(session.logits(&batch).expect("a text that fits"));
            };
            let [all, alone] = best(15, [&mut whole, &mut || products.run()]);
            let share = 100.0 * alone.as_secs_f64() / all.as_secs_f64();
            table += &format!(
                "{name:>16} {length:>5} tokens {all:>10.2?}  products {alone:>10.2?}  {share:.0} %\n"
            );
        }
    }
    eprintln!("\n{table}");
}

/// The same bits on every row.
fn check(model: &Model) {
    let batch = text(19);
    let logits = Kernels::available().map(|kernels| {
        let mut session = Session::with(model, kernels, 1);
        let logits = session.logits(&batch).expect("a text that fits");
        logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>()
    });
    let logits: Vec<_> = logits.collect();
    assert!(logits.iter().all(|row| *row == logits[0]), "the rows of the table differ");
}

criterion_group!(benches, latency);
criterion_main!(benches);
