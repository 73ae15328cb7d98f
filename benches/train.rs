//! A training step: forward with dropout, backward, clipping, AdamW; the same of two ranks; and the loss over a vocabulary.
//!
//! distilbert-base's shape with random weights, on a batch of 32 texts as long as AG News's are. Throughput is
//! in tokens (criterion prints elements), on all threads. In test mode (`cargo bench -- --test`) the network is
//! tiny, and only that a step runs is seen.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use limbeck::Batch;
use limbeck::autograd::Context;
use limbeck::backend::Cpu;
use limbeck::models::ModelConfig;
use limbeck::models::config::{Activation, Sizes};
use limbeck::nn::{Linear, ParamBuilder, ParamSpec};
use limbeck::ops::dropout::DropoutSeed;
use limbeck::ops::vocabulary::{self, Task};
use limbeck::params::ParamStore;
use limbeck::ranks::{Launch, OneThread, ProcessGroup, Tcp};
use limbeck::stages::artifact;
use limbeck::stages::recipe::tables::Train;
use limbeck::tensor::{Shape, Tensor};
use limbeck::train::BatchShard;
use limbeck::train::{Examples, Learner};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::Precision;
use limbeck_kernels::random::SplitMix64;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Tokens of 32 texts: the means of 32 equal parts of AG News's lengths, shuffled. Their mean is 53.
const LENGTHS: [usize; 32] = [
    64, 52, 46, 46, 69, 31, 40, 38, 42, 51, 44, 54, 85, 48, 57, 26, 56, 74, 41, 47, 55, 59, 49, 50, 37, 124,
    34, 60, 62, 66, 53, 43,
];
const LABELS: usize = 4;
const SEED: u64 = 1;

fn config([hidden, heads, intermediate, layers, vocab]: [usize; 5]) -> ModelConfig {
    ModelConfig::distilbert(
        Sizes { vocab, positions: 512, hidden, heads, intermediate, layers },
        (0..LABELS).map(|label| label.to_string()),
    )
}

fn examples(vocab: usize) -> Examples {
    let mut batch = Batch::new();
    for (sample, length) in LENGTHS.into_iter().enumerate() {
        let ids: Vec<u32> = (0..length).map(|place| (7919 * (place + 64 * sample) % vocab) as u32).collect();
        batch.push(&ids, sample as u64);
    }
    let labels = (0..LENGTHS.len()).map(|text| text % LABELS).collect();
    Examples { batch, labels, teacher: None }
}

fn step(c: &mut Criterion) {
    let test = std::env::args().any(|argument| argument == "--test");
    let shape = if test { [32, 2, 64, 2, 500] } else { [768, 12, 3072, 6, 30_522] };
    let (config, examples) = (config(shape), examples(shape[4]));
    let kernels = Kernels::select().expect("LIMBECK_ISA names a row that this CPU has");
    let mut group = c.benchmark_group("train_step");
    group.sample_size(10).throughput(Throughput::Elements(examples.batch.tokens() as u64));
    for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
        let device = Cpu::new(kernels).with_precision(precision);
        let mut learner: Learner<Cpu> = artifact::learner(&device, &config, None, SEED, &Train::default())
            .expect("memory for the network");
        group.bench_function(BenchmarkId::new(name, "distilbert-base"), |b| {
            b.iter(|| {
                let noise = DropoutSeed { seed: SEED, step: learner.optimizer.steps() };
                learner.step(&examples, Some(noise), 2e-5, None).expect("small steps do not diverge")
            })
        });
    }
    group.finish();
}

/// The loss of masked tokens over BERT's vocabulary, and its gradients, in chunks; throughput in rows.
fn vocabulary_loss(c: &mut Criterion) {
    let test = std::env::args().any(|argument| argument == "--test");
    let [rows, hidden, words] = if test { [20, 32, 500] } else { [256, 768, 30_522] };
    let kernels = Kernels::select().expect("LIMBECK_ISA names a row that this CPU has");
    let random = |seed: u64, len: usize| -> Vec<f32> {
        let mut stream = SplitMix64::new(seed);
        (0..len).map(|_| 0.05 * stream.signed_unit()).collect()
    };
    let mut declare = ParamBuilder::default();
    let table = Linear::new(&mut declare, "words", hidden, words, Activation::Identity);
    let targets: Vec<u32> = (0..rows).map(|row| (7919 * row % words) as u32).collect();
    let mut group = c.benchmark_group("vocabulary_loss");
    group.sample_size(10).throughput(Throughput::Elements(rows as u64));
    for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
        let device = Cpu::new(kernels).with_precision(precision);
        let values = |spec: &ParamSpec| Ok(random(1, spec.len()));
        let params = ParamStore::new(&device, &declare.specs, values).expect("memory for the table");
        let h = Tensor::upload(&device, &random(2, rows * hidden), Shape::new(rows, hidden)).expect("memory");
        let batch = Batch::new();
        let at = Context { backend: &device, params: &params, batch: &batch };
        let task = Task { layer: &table, h: &h, targets: &targets, teacher: None, scale: 1.0 };
        group.bench_function(BenchmarkId::new(name, format!("{rows}x{hidden}x{words}")), |b| {
            b.iter(|| vocabulary::loss(&at, &task, true).expect("the CPU does not fail"))
        });
    }
    group.finish();
}

/// A training step of two ranks over sockets, here two threads of one process, of a network of MiniLM's shape: with sums during the
/// backward pass, and behind it. Both ranks' products share this machine's threads, so that what is left to gain is the time in which
/// nobody computes.
fn ranks(c: &mut Criterion) {
    let test = std::env::args().any(|argument| argument == "--test");
    let shape = if test { [32, 2, 64, 2, 500] } else { [384, 12, 1536, 6, 30_522] };
    let (config, examples) = (config(shape), examples(shape[4]));
    let kernels = Kernels::select().expect("LIMBECK_ISA names a row that this CPU has");
    let mut group = c.benchmark_group("train_step_of_two_ranks");
    group.sample_size(10).throughput(Throughput::Elements(2 * examples.batch.tokens() as u64));
    for (name, overlaps) in [("overlapped", true), ("behind", false)] {
        group.bench_function(BenchmarkId::new(name, "minilm-l6"), |b| {
            b.iter_custom(|steps| {
                as_two(|ranks| {
                    let mut learner: Learner<Cpu> =
                        artifact::learner(&Cpu::new(kernels), &config, None, SEED, &Train::default())
                            .expect("memory for the network");
                    let alone = OneThread(ranks);
                    let ranks: &dyn ProcessGroup = if overlaps { &alone.0 } else { &alone };
                    let among = BatchShard { ranks, texts: 0.5, tokens: 0.5 };
                    let mut step =
                        || learner.step_sharded(&examples, among, None, 2e-5, None).expect("a step");
                    step();
                    let start = Instant::now();
                    for _ in 0..steps {
                        step();
                    }
                    start.elapsed()
                })
            })
        });
    }
    group.finish();
}

/// Runs `each` as two ranks; the longer of what they took.
fn as_two(each: impl Fn(Tcp) -> Duration + Sync) -> Duration {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let run = |rank| {
        let address = format!("127.0.0.1:{port}");
        let launch = Launch { rank, size: 2, local_rank: 0, address, by_mpi: false };
        each(Tcp::join(&launch).expect("two ranks of one process"))
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        run(0).max(other.join().expect("the other rank"))
    })
}

criterion_group!(benches, step, vocabulary_loss, ranks);
criterion_main!(benches);
