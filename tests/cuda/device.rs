//! The devices that the tests run on: the emulation in each order of its threads and each storage, or a GPU.

use crate::common::say;
use limbeck::Batch;
use limbeck::backend::cuda::{Options, Storage, probe};
use limbeck::backend::{Cpu, Cuda, Device};
use limbeck::tensor::{Shape, Tensor};
use limbeck_emulation::{ORDERS, Order};
use limbeck_kernels::Kernels;
use limbeck_kernels::random::SplitMix64;
use std::sync::OnceLock;

/// Where the tests run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Gpu,
    Emulation,
    Nowhere,
}

/// On a GPU if there is one, or has to be; else in the emulation.
fn place() -> Where {
    static PLACE: OnceLock<Where> = OnceLock::new();
    *PLACE.get_or_init(|| match probe::probe() {
        Ok(found) => {
            eprintln!("on {}", found[0]);
            Where::Gpu
        }
        Err(error) if std::env::var_os("LIMBECK_REQUIRE_CUDA").is_some() => panic!("{error}"),
        Err(_) if limbeck_emulation::load() => Where::Emulation,
        Err(error) => {
            say(&format!("SKIPPED: {error}"));
            Where::Nowhere
        }
    })
}

/// Whether that is where they run.
pub fn in_emulation() -> bool {
    place() == Where::Emulation
}

/// Runs `test` on every device there is, of the emulation by each order of threads.
pub fn on_devices(storages: &[Storage], test: impl Fn(&Cuda, &str)) {
    in_orders(storages, &ORDERS, test);
}

/// As [`on_devices`], by these orders of threads alone.
pub fn in_orders(storages: &[Storage], orders: &[Order], test: impl Fn(&Cuda, &str)) {
    let place = place();
    let orders = match place {
        Where::Gpu => &orders[..1],
        Where::Emulation => orders,
        Where::Nowhere => return,
    };
    let real = place == Where::Gpu;
    for &storage in storages {
        for &order in orders {
            if !real {
                limbeck_emulation::set_order(order);
            }
            // compute-sanitizer sees accesses beyond a buffer only where each is an allocation of its own.
            let exact = std::env::var_os("LIMBECK_EXACT_BUFFERS").is_some();
            let options = Options { storage, reuse: real && !exact, ..Options::default() };
            let cuda = Cuda::open(&options).unwrap();
            let what = if real { "GPU".to_owned() } else { format!("{order:?}") };
            test(&cuda, &format!("{}, {what}", storage.name()));
        }
    }
}

/// What the probe finds in the emulation.
#[test]
fn the_emulated_device_is_found() {
    if place() != Where::Emulation {
        return;
    }
    let found = probe::probe().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].capability), ("emulated device", (9, 0)));
}

/// The CPU in f32.
pub fn cpu() -> Cpu {
    Cpu::new(Kernels::select().unwrap())
}

/// Random numbers in [-1, 1), rounded to what `storage` holds.
pub fn random(seed: u64, len: usize, storage: Storage) -> Vec<f32> {
    let mut stream = SplitMix64::new(seed);
    (0..len).map(|_| round(stream.signed_unit(), storage)).collect()
}

/// What `storage` makes of a number.
pub fn round(x: f32, storage: Storage) -> f32 {
    match storage {
        Storage::F32 => x,
        Storage::Bf16 => half::bf16::from_f32(x).to_f32(),
        Storage::F16 => half::f16::from_f32(x).to_f32(),
    }
}

/// Half a unit in the last place of `storage`, relative.
pub fn rounding(storage: Storage) -> f64 {
    match storage {
        Storage::F32 => f64::from(f32::EPSILON) / 2.0,
        Storage::Bf16 => 1.0 / 256.0,
        Storage::F16 => 1.0 / 2048.0,
    }
}

/// The same tensor on both devices.
pub fn both(cuda: &Cuda, cpu: &Cpu, values: &[f32], rows: usize) -> (Tensor<Cuda>, Tensor<Cpu>) {
    let shape = Shape::new(rows, values.len().checked_div(rows).unwrap_or(0));
    let on_gpu = Tensor::upload(cuda, values, shape).unwrap();
    let on_gpu = cuda.activation(&on_gpu).unwrap().into_owned();
    (on_gpu, Tensor::upload(cpu, values, shape).unwrap())
}

/// Parameters stay f32.
pub fn parameter(cuda: &Cuda, cpu: &Cpu, values: &[f32]) -> (Tensor<Cuda>, Tensor<Cpu>) {
    let shape = Shape::vector(values.len());
    (Tensor::upload(cuda, values, shape).unwrap(), Tensor::upload(cpu, values, shape).unwrap())
}

/// Fails unless each number is within `relative` of the other's size, or of the largest if that is what cancels.
pub fn assert_close(found: &[f32], expected: &[f32], relative: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f64, |most, x| most.max(f64::from(x.abs())));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - f64::from(*expected)).abs();
        assert!(
            difference <= relative * largest,
            "{what}, element {i}: {found}, not {expected} (largest {largest})"
        );
    }
}

/// Downloads and compares.
pub fn same(cuda: &Cuda, cpu: &Cpu, found: &Tensor<Cuda>, expected: &Tensor<Cpu>, relative: f64, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    assert_close(&found.download(cuda).unwrap(), &cpu.download(expected.buffer()).unwrap(), relative, what);
}

/// Texts of these lengths.
pub fn batch(lengths: &[usize]) -> Batch {
    let mut batch = Batch::new();
    let mut stream = SplitMix64::new(11);
    for (sample, &length) in lengths.iter().enumerate() {
        let ids: Vec<u32> = (0..length).map(|_| stream.below(50) as u32).collect();
        batch.push(&ids, 1000 + sample as u64 * 17);
    }
    batch
}
