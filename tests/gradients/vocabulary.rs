//! The loss of a head over a vocabulary against central differences of an f64 oracle, in chunks of several sizes; and that its memory
//! does not grow with the rows.

use crate::harness::{batch, close, random, slopes};
use limbeck::autograd::Context;
use limbeck::backend::cuda::{Options, Storage};
use limbeck::backend::{Cpu, Cuda};
use limbeck::models::config::Activation;
use limbeck::nn::{Linear, ParamId, ParamSpec, Role};
use limbeck::ops::Backend;
use limbeck::ops::loss::{Distillation, Losses};
use limbeck::ops::vocabulary::{Task, Teacher, VocabularyOps, loss, loss_in_chunks};
use limbeck::params::ParamStore;
use limbeck::tensor::{Shape, Tensor};
use limbeck_emulation::ORDERS;
use limbeck_kernels::Kernels;

const ROWS: usize = 7;
const HIDDEN: usize = 5;
const TEACHERS_HIDDEN: usize = 4;
const SCALE: f64 = 0.7;
const TARGETS: [u32; ROWS] = [3, 0, 8, 8, 1, 7, 3];

fn head(words: usize, hidden: usize) -> Linear {
    let activation = Activation::Identity;
    let [weight, bias] = [ParamId(0), ParamId(1)];
    Linear { weight, bias: Some(bias), inputs: hidden, outputs: words, activation, down: None }
}

fn store<B: Backend>(device: &B, [table, bias]: [&[f32]; 2]) -> ParamStore<B> {
    let spec = |name: &str, role, rows, cols| ParamSpec { name: name.into(), role, rows, cols };
    let (words, hidden) = (bias.len(), table.len() / bias.len());
    let specs = [spec("table", Role::Embedding, words, hidden), spec("bias", Role::Bias, 1, words)];
    let value = |spec: &ParamSpec| Ok(if spec.name == "table" { table } else { bias }.to_vec());
    ParamStore::new(device, &specs, value).unwrap()
}

/// The loss and its gradients by h, table and bias. Leaves: these three, then the teacher's.
fn run<B: Backend>(
    device: &B,
    leaves: &[Vec<f32>],
    how: Option<Distillation>,
    chunk: usize,
) -> (Losses, Vec<Vec<f32>>) {
    let words = leaves[2].len();
    let upload = |leaf: &[f32]| Tensor::upload(device, leaf, Shape::new(ROWS, leaf.len() / ROWS)).unwrap();
    let params = store(device, [&leaves[1], &leaves[2]]);
    let of_teacher = store(device, [&leaves[4], &leaves[5]]);
    let (h, h_of_teacher) = (upload(&leaves[0]), upload(&leaves[3]));
    let (layer, layer_of_teacher) = (head(words, HIDDEN), head(words, TEACHERS_HIDDEN));
    let teacher =
        how.map(|how| Teacher { params: &of_teacher, layer: &layer_of_teacher, h: &h_of_teacher, how });
    let task = Task { layer: &layer, h: &h, targets: &TARGETS, teacher, scale: SCALE };
    let batch = batch();
    let at = Context { backend: device, params: &params, batch: &batch };
    let (pending, gradients) = loss_in_chunks(&at, &task, true, chunk).unwrap();
    let gradients = gradients.expect("asked for");
    assert_eq!(gradients.params.iter().map(|(id, _)| id.index()).collect::<Vec<_>>(), [0, 1]);
    let all = std::iter::once(&gradients.h).chain(gradients.params.iter().map(|(_, gradient)| gradient));
    (device.losses(pending).unwrap(), all.map(|gradient| gradient.download(device).unwrap()).collect())
}

fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let cold: Vec<f64> = logits.iter().map(|s| s / temperature).collect();
    let highest = cold.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = cold.iter().map(|s| (s - highest).exp()).sum();
    cold.iter().map(|s| s - highest - sum.ln()).collect()
}

fn logits(h: &[f64], table: &[f64], bias: &[f64], row: usize) -> Vec<f64> {
    let hidden = table.len() / bias.len();
    let h = &h[row * hidden..][..hidden];
    let word = |(entry, bias): (&[f64], &f64)| entry.iter().zip(h).map(|(e, h)| e * h).sum::<f64>() + bias;
    table.chunks(hidden).zip(bias).map(word).collect()
}

/// `[total, cross-entropy, divergence]` by their definitions.
fn oracle(leaves: &[Vec<f64>], how: Option<Distillation>) -> [f64; 3] {
    let (mut cross_entropy, mut divergence) = (0.0, 0.0);
    for (row, target) in TARGETS.into_iter().enumerate() {
        let s = logits(&leaves[0], &leaves[1], &leaves[2], row);
        cross_entropy -= log_softmax(&s, 1.0)[target as usize] / ROWS as f64;
        let Some(how) = how else { continue };
        let temperature = f64::from(how.temperature);
        let log_p = log_softmax(&s, temperature);
        let log_q = log_softmax(&logits(&leaves[3], &leaves[4], &leaves[5], row), temperature);
        let sum: f64 = log_q.iter().zip(&log_p).map(|(q, p)| q.exp() * (q - p)).sum();
        divergence += temperature * temperature * sum / ROWS as f64;
    }
    let alpha = how.map_or(0.0, |how| f64::from(how.alpha));
    [alpha * divergence + (1.0 - alpha) * cross_entropy, cross_entropy, divergence]
}

fn check(words: usize, how: Option<Distillation>) {
    let sizes =
        [ROWS * HIDDEN, words * HIDDEN, words, ROWS * TEACHERS_HIDDEN, words * TEACHERS_HIDDEN, words];
    let leaves: Vec<Vec<f32>> = sizes.iter().zip(40..).map(|(&len, key)| random(key, len)).collect();
    let leaves: Vec<Vec<f32>> =
        leaves.into_iter().map(|leaf| leaf.into_iter().map(|x| 2.0 * x).collect()).collect();
    let wide: Vec<Vec<f64>> =
        leaves.iter().map(|leaf| leaf.iter().map(|x| f64::from(*x)).collect()).collect();
    let expected = oracle(&wide, how);
    let slopes = [0, 1, 2].map(|leaf| slopes(&wide, leaf, &|leaves| oracle(leaves, how)[0]));
    let compare = |what: &str, (losses, gradients): (Losses, Vec<Vec<f32>>)| {
        for (found, expected) in
            [losses.total, losses.cross_entropy, losses.distillation].into_iter().zip(expected)
        {
            assert!((found - expected).abs() <= 2e-6 * expected.max(1.0), "{what}: {found} for {expected}");
        }
        for (leaf, (found, expected)) in gradients.iter().zip(&slopes).enumerate() {
            let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
            assert!(largest > 1e-3, "a loss with a slope");
            let found: Vec<f32> = found.iter().map(|x| (f64::from(*x) / SCALE / largest) as f32).collect();
            let expected: Vec<f64> = expected.iter().map(|x| x / largest).collect();
            close(&format!("{what}: the gradient of leaf {leaf}"), &found, &expected);
        }
    };
    for chunk in [1, 2, 3, ROWS, 100] {
        let what = format!("{words} words, {how:?}, chunks of {chunk}");
        for kernels in Kernels::available() {
            compare(&format!("{what} on {}", kernels.isa()), run(&Cpu::new(kernels), &leaves, how, chunk));
        }
        for order in ORDERS.into_iter().filter(|_| limbeck_emulation::load()) {
            limbeck_emulation::set_order(order);
            let options = Options { storage: Storage::F32, reuse: false, ..Options::default() };
            let cuda = Cuda::open(&options).unwrap();
            compare(&format!("{what} on emulated CUDA, {order:?}"), run(&cuda, &leaves, how, chunk));
        }
    }
}

#[test]
fn losses_over_a_vocabulary() {
    // Narrow layers have kernels of their own on a GPU.
    for words in [9, 41] {
        check(words, None);
        for (temperature, alpha) in [(1.0, 0.5), (3.0, 0.7), (2.0, 1.0), (2.0, 0.0)] {
            check(words, Some(Distillation { temperature, alpha }));
        }
    }
}

#[test]
fn a_student_that_is_its_teacher_learns_nothing_from_it() {
    let (cpu, words) = (Cpu::new(Kernels::select().unwrap()), 41);
    let of_one = [random(1, ROWS * HIDDEN), random(2, words * HIDDEN), random(3, words)];
    let params = store(&cpu, [&of_one[1], &of_one[2]]);
    let (layer, h) =
        (head(words, HIDDEN), Tensor::upload(&cpu, &of_one[0], Shape::new(ROWS, HIDDEN)).unwrap());
    let how = Distillation { temperature: 2.0, alpha: 1.0 };
    let teacher = Some(Teacher { params: &params, layer: &layer, h: &h, how });
    let task = Task { layer: &layer, h: &h, targets: &TARGETS, teacher, scale: 1.0 };
    let batch = batch();
    let (losses, gradients) =
        loss(&Context { backend: &cpu, params: &params, batch: &batch }, &task, true).unwrap();
    assert_eq!(losses.distillation, 0.0);
    assert!(gradients.unwrap().h.download(&cpu).unwrap().iter().all(|dh| *dh == 0.0));
}

/// A row without a number makes the loss none, and its gradient too, so that the step is seen to be none.
#[test]
fn a_logit_that_is_no_number_is_seen() {
    let cpu = Cpu::new(Kernels::select().unwrap());
    for broken in [f32::NAN, f32::INFINITY] {
        let mut h = random(1, ROWS * HIDDEN);
        h[2 * HIDDEN] = broken;
        let params = store(&cpu, [&random(2, 9 * HIDDEN), &random(3, 9)]);
        let (layer, h) = (head(9, HIDDEN), Tensor::upload(&cpu, &h, Shape::new(ROWS, HIDDEN)).unwrap());
        let task = Task { layer: &layer, h: &h, targets: &TARGETS, teacher: None, scale: 1.0 };
        let batch = batch();
        let (losses, gradients) =
            loss(&Context { backend: &cpu, params: &params, batch: &batch }, &task, true).unwrap();
        assert!(!losses.total.is_finite());
        let gradient = gradients.unwrap().h.download(&cpu).unwrap();
        assert!(gradient[2 * HIDDEN..3 * HIDDEN].iter().all(|dh| dh.is_nan()), "{gradient:?}");
    }
}

/// Four times as many logits as may be there at once, and one buffer never holds more.
#[test]
fn memory_is_that_of_a_chunk() {
    let cpu = Cpu::new(Kernels::select().unwrap());
    let (words, hidden, rows) = (30_522, 4, 2_000);
    let params = store(&cpu, [&random(1, words * hidden), &random(2, words)]);
    let (layer, h) =
        (head(words, hidden), Tensor::upload(&cpu, &random(3, rows * hidden), Shape::new(rows, hidden)));
    let (h, targets) = (h.unwrap(), vec![17; rows]);
    let task = Task { layer: &layer, h: &h, targets: &targets, teacher: None, scale: 1.0 };
    let batch = batch();
    let (losses, _) = loss(&Context { backend: &cpu, params: &params, batch: &batch }, &task, true).unwrap();
    assert!(losses.total.is_finite());
    let most = <Cpu as VocabularyOps>::CHUNK;
    assert!(rows * words > 3 * most, "a task that chunks are for");
    assert!(cpu.largest_buffer() <= most, "{} floats at once", cpu.largest_buffer());
}
