//! The loss of a head over a vocabulary, and rows picked from all.

use crate::device::*;
use limbeck::autograd::Context;
use limbeck::backend::cuda::Storage;
use limbeck::models::config::Activation;
use limbeck::nn::{Linear, ParamId, ParamSpec, Role};
use limbeck::ops::Backend;
use limbeck::ops::loss::{Distillation, Losses};
use limbeck::ops::select::SelectOps;
use limbeck::ops::vocabulary::{Gradients, Task, Teacher, loss_in_chunks};
use limbeck::params::ParamStore;
use limbeck::tensor::{Shape, Tensor};

#[test]
fn rows_picked_and_put_back() {
    on_devices(&Storage::ALL, |cuda, what| {
        let cpu = cpu();
        for (rows, cols) in [(1, 1), (20, 33), (90, 8)] {
            let few: Vec<u32> = (0..rows as u32).filter(|row| row % 3 != 1).collect();
            let (x, x_on_cpu) = both(cuda, &cpu, &random(1, rows * cols, cuda.storage()), rows);
            let (y, y_on_cpu) = (cuda.select(&x, &few).unwrap(), cpu.select(&x_on_cpu, &few).unwrap());
            same(cuda, &cpu, &y, &y_on_cpu, 0.0, what);
            let shape = Shape::new(rows, cols);
            let mut back = cuda.zero_activations(shape).unwrap();
            let mut back_on_cpu = cpu.zero_activations(shape).unwrap();
            cuda.put(&y, &few, &mut back).unwrap();
            cpu.put(&y_on_cpu, &few, &mut back_on_cpu).unwrap();
            same(cuda, &cpu, &back, &back_on_cpu, 0.0, what);
        }
    });
}

/// A head and what it reads: small numbers, so that logits are below 2 and what storage rounds them by is small beside 1.
struct Head {
    words: usize,
    hidden: usize,
    h: Vec<f32>,
    table: Vec<f32>,
    bias: Vec<f32>,
}

impl Head {
    fn new(seed: u64, [rows, words, hidden]: [usize; 3], storage: Storage) -> Head {
        let few = |seed, len: usize, most: f32| -> Vec<f32> {
            random(seed, len, Storage::F32).into_iter().map(|x| round(most * x, storage)).collect()
        };
        let most = (1.0 / hidden as f32).sqrt();
        let [h, table] = [rows * hidden, words * hidden].map(|len| few(seed + len as u64, len, most));
        Head { words, hidden, h, table, bias: few(seed, words, 1.0) }
    }

    fn layer(&self) -> Linear {
        let (activation, [weight, bias]) = (Activation::Identity, [ParamId(0), ParamId(1)]);
        Linear { weight, bias: Some(bias), inputs: self.hidden, outputs: self.words, activation, down: None }
    }

    fn store<B: Backend>(&self, device: &B) -> ParamStore<B> {
        let spec = |name: &str, role, rows, cols| ParamSpec { name: name.into(), role, rows, cols };
        let specs = [
            spec("table", Role::Embedding, self.words, self.hidden),
            spec("bias", Role::Bias, 1, self.words),
        ];
        let value = |spec: &ParamSpec| Ok(if spec.rows > 1 { &self.table } else { &self.bias }.clone());
        ParamStore::new(device, &specs, value).unwrap()
    }
}

fn run<B: Backend>(
    device: &B,
    [student, teacher]: [&Head; 2],
    targets: &[u32],
    how: Option<Distillation>,
    chunk: usize,
) -> (Losses, Gradients<B>) {
    let upload =
        |head: &Head| Tensor::upload(device, &head.h, Shape::new(targets.len(), head.hidden)).unwrap();
    let (params, of_teacher) = (student.store(device), teacher.store(device));
    let (h, h_of_teacher, layers) = (upload(student), upload(teacher), [student.layer(), teacher.layer()]);
    let teacher = how.map(|how| Teacher { params: &of_teacher, layer: &layers[1], h: &h_of_teacher, how });
    let task = Task { layer: &layers[0], h: &h, targets, teacher, scale: 2.0 };
    let batch = batch(&[3]);
    let at = Context { backend: device, params: &params, batch: &batch };
    let (pending, gradients) = loss_in_chunks(&at, &task, true, chunk).unwrap();
    (device.losses(pending).unwrap(), gradients.unwrap())
}

#[test]
fn losses_over_a_vocabulary() {
    on_devices(&Storage::ALL, |cuda, what| {
        let (cpu, storage) = (cpu(), cuda.storage());
        for (sizes, chunk) in [([1, 40, 8], 5), ([9, 300, 24], 4), ([5, 700, 16], 5), ([6, 12, 8], 2)] {
            let [rows, words, _] = sizes;
            let student = Head::new(1, sizes, storage);
            let teacher = Head::new(2, [rows, words, 32], storage);
            let targets: Vec<u32> = (0..rows as u32).map(|row| row * 7 % words as u32).collect();
            for how in [None, Some([2.0, 0.4]), Some([4.0, 1.0])] {
                let how = how.map(|[temperature, alpha]| Distillation { temperature, alpha });
                let (found, of_gpu) = run(cuda, [&student, &teacher], &targets, how, chunk);
                let (expected, of_cpu) = run(&cpu, [&student, &teacher], &targets, how, rows);
                // Logits are below 2: each is off by twice what storage rounds by. Cross-entropy is off by twice the worst logit at
                // most; T² · KL, by whose logits it changes by T · (p - q), by both networks'.
                let factor = how.map_or(1.0, |how| f64::from(how.temperature));
                let bound = 4.0 * factor * (1e-6 + rounding(storage));
                for (found, expected) in [
                    (found.cross_entropy, expected.cross_entropy),
                    (found.distillation, expected.distillation),
                    (found.total, expected.total),
                ] {
                    assert!((found - expected).abs() <= bound, "{what}, {sizes:?}: {found} {expected}");
                }
                // Rounded are logits, their gradient and the results.
                let relative = 1e-5 + 6.0 * rounding(storage);
                same(cuda, &cpu, &of_gpu.h, &of_cpu.h, relative, what);
                for ((_, found), (_, expected)) in of_gpu.params.iter().zip(&of_cpu.params) {
                    same(cuda, &cpu, found, expected, relative, what);
                }
            }
        }
    });
}

/// Many more logits than a chunk has, and no piece of memory for them.
#[test]
fn memory_is_that_of_a_chunk() {
    on_devices(&[Storage::F32], |cuda, what| {
        let (rows, words, chunk) = (64, 600, 4);
        let head = Head::new(1, [rows, words, 8], Storage::F32);
        let targets = vec![5; rows];
        run(cuda, [&head, &head], &targets, Some(Distillation { temperature: 2.0, alpha: 0.5 }), chunk);
        // The table and its gradient have twice as many numbers as a chunk's logits.
        let most = 4 * words * 8;
        assert!(cuda.largest_memory() <= most, "{what}: {} bytes", cuda.largest_memory());
        assert!(4 * rows * words > 4 * most, "logits would not fit");
    });
}
