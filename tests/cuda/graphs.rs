//! Training steps as CUDA graphs: the same numbers as without, few graphs, and what the driver refuses while it captures.

use crate::common::say;
use crate::device::*;
use crate::step::{config, moved_alike};
use cudarc::driver::{CudaContext, DriverError, result, sys};
use limbeck::backend::cuda::{Graphs, Storage};
use limbeck::backend::{Cuda, Device, Repeats};
use limbeck::models::ModelConfig;
use limbeck::ops::dropout::DropoutSeed;
use limbeck::ops::loss::Distillation;
use limbeck::stages::artifact;
use limbeck::stages::recipe::tables::Train;
use limbeck::tensor::Tensor;
use limbeck::train::{Examples, Learner, Step};
use limbeck_emulation::{Order, graphs_launched};

/// Of both sizes: one that is measured, one that is written down, the others replayed.
const STEPS: u64 = 6;

/// Two sizes in turns, each time of other lengths in another order.
fn examples(step: u64) -> Examples {
    let middle = if step.is_multiple_of(2) { 11 } else { 150 };
    let mut lengths = [5, 36, 57, middle, 27];
    lengths[0] += (step / 2 % 4) as usize;
    lengths.rotate_left(step as usize * 2 % 5);
    let mut batch = batch(&lengths);
    batch.ids.iter_mut().for_each(|id| *id = (*id + 7 * step as u32) % 50);
    let labels: Vec<usize> =
        (0..lengths.len()).map(|text| (batch.ids[batch.offsets[text]] % 3) as usize).collect();
    let teacher = random(step, labels.len() * 3, Storage::F32);
    Examples { batch, labels, teacher: Some((teacher, Distillation { temperature: 2.0, alpha: 0.5 })) }
}

struct Trained {
    steps: Vec<Step>,
    weights: Vec<(String, Vec<f32>)>,
    repeats: Repeats,
    launched: u64,
}

/// Trains by steps that are as `graphs` says.
fn train(cuda: &Cuda, graphs: Graphs) -> Trained {
    train_changing(cuda, graphs, STEPS, None)
}

/// The same in so many steps; before step `change`, the values of a parameter are replaced.
fn train_changing(cuda: &Cuda, graphs: Graphs, steps: u64, change: Option<u64>) -> Trained {
    let cuda = &cuda.with_graphs(graphs);
    let config = ModelConfig { positions: 200, ..config() };
    let mut learner: Learner<Cuda> = artifact::learner(cuda, &config, None, 3, &Train::default()).unwrap();
    let (before, launched) = (cuda.graph_repeats(), if in_emulation() { graphs_launched() } else { 0 });
    let mut done = Vec::new();
    for step in 0..steps {
        if change == Some(step) {
            let (id, _) =
                learner.params.iter().find(|(_, param)| param.spec.name.contains("q_lin.weight")).unwrap();
            let shape = learner.params.value(id).shape();
            let values: Vec<f32> = learner
                .params
                .value(id)
                .download(cuda)
                .unwrap()
                .into_iter()
                .map(|value| 0.5 * value)
                .collect();
            *learner.params.value_mut(id).0 = Tensor::upload(cuda, &values, shape).unwrap();
        }
        // An evaluation leaves packed weights behind.
        if step == 5 {
            learner.logits(&examples(step).batch).unwrap();
        }
        let rate = 1e-3 * (1.0 - step as f64 / 20.0);
        done.push(learner.step(&examples(step), Some(DropoutSeed { seed: 7, step }), rate, None).unwrap());
    }
    let weights = learner
        .params
        .iter()
        .map(|(_, param)| (param.spec.name.clone(), param.value().download(cuda).unwrap()))
        .collect();
    let after = cuda.graph_repeats();
    let repeats = Repeats {
        captured: after.captured - before.captured,
        replayed: after.replayed - before.replayed,
        ordinary: after.ordinary - before.ordinary,
        differed: after.differed - before.differed,
        unfit: after.unfit - before.unfit,
    };
    Trained {
        steps: done,
        weights,
        repeats,
        launched: if in_emulation() { graphs_launched() - launched } else { 0 },
    }
}

/// Fails unless all numbers are the same bits.
fn assert_same(found: &Trained, expected: &Trained, what: &str) {
    for (step, (found, expected)) in found.steps.iter().zip(&expected.steps).enumerate() {
        assert_eq!(found, expected, "{what}, step {step}");
    }
    for ((name, found), (_, expected)) in found.weights.iter().zip(&expected.weights) {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert!(bits(found) == bits(expected), "{what}: {name} is another");
    }
}

#[test]
fn graphs_change_no_bit() {
    // In f16 with a library's products, below.
    in_orders(&[Storage::F32, Storage::Bf16], &[Order::Shuffled(5)], |cuda, what| {
        let (graphs, filled) = (train(cuda, Graphs::On), train(cuda, Graphs::Filled));
        assert_same(&graphs, &filled, what);
        let expected = Repeats { captured: 2, replayed: STEPS - 4, ordinary: 4, differed: 0, unfit: 0 };
        assert_eq!(graphs.repeats, expected, "{what}");
        assert_eq!(filled.repeats, Repeats::default(), "{what}");
        if in_emulation() {
            assert_eq!(
                [graphs.launched, filled.launched],
                [STEPS - 4, 0],
                "{what}: launches of the driver's"
            );
        }
        if cuda.storage() == Storage::Bf16 {
            // The same sizes again, by another learner: at other addresses, or at the same.
            assert_same(&train(cuda, Graphs::On), &filled, &format!("{what}, again"));
        }
    });
}

#[test]
fn filling_changes_rounding_alone() {
    in_orders(&[Storage::F32, Storage::Bf16], &[Order::Ascending], |cuda, what| {
        let (filled, plain) = (train(cuda, Graphs::On), train(cuda, Graphs::Off));
        assert_eq!(plain.repeats, Repeats::default(), "{what}");
        // As for the two devices (step.rs), over more steps.
        let bound = match cuda.storage() {
            Storage::F32 => 1e-5,
            storage => 4.0 * rounding(storage),
        };
        for (step, (found, expected)) in filled.steps.iter().zip(&plain.steps).enumerate() {
            let pairs = [(found.loss, expected.loss), (found.gradient_norm, expected.gradient_norm)];
            for (found, expected) in pairs {
                let difference = (found - expected).abs() / expected.abs();
                assert!(difference <= bound * (1.0 + step as f64), "{what}, step {step}: {found} {expected}");
            }
        }
        let begun = train_changing(cuda, Graphs::Off, 0, None).weights;
        let begun: Vec<Vec<f32>> = begun.into_iter().map(|(_, values)| values).collect();
        moved_alike(cuda.storage(), what, &begun, [&filled.weights, &plain.weights]);
    });
}

#[test]
fn a_changed_network_has_other_graphs() {
    in_orders(&[Storage::Bf16], &[Order::Descending], |cuda, what| {
        const STEPS: u64 = 10;
        let [graphs, filled] =
            [Graphs::On, Graphs::Filled].map(|graphs| train_changing(cuda, graphs, STEPS, Some(5)));
        assert_same(&graphs, &filled, what);
        // Both sizes begin again; or go on, where the new values lie where the old ones did.
        let Repeats { captured, replayed, ordinary, differed, unfit } = graphs.repeats;
        assert_eq!([replayed + ordinary, unfit], [STEPS, 0], "{what}");
        assert!(differed <= 1 && captured == 2 + 2 * differed, "{what}: {:?}", graphs.repeats);
        assert!(differed == 1 || !in_emulation(), "{what}: memory is not used again there");
    });
}

#[test]
fn a_library_takes_part() {
    in_orders(&[Storage::F16], &[Order::Ascending], |cuda, what| {
        use limbeck::backend::cuda::GemmBackend::CublasLt;
        if !cuda.gemm_backends().unwrap().contains(&CublasLt) {
            assert!(!in_emulation(), "{what}: it has a cuBLASLt");
            say("SKIPPED: there is no cuBLASLt on the library path");
            return;
        }
        let cuda = &cuda.with_gemm_backend(Some(CublasLt)).unwrap();
        let graphs = train(cuda, Graphs::On);
        assert_same(&graphs, &train(cuda, Graphs::Filled), what);
        assert_eq!(graphs.repeats.replayed, STEPS - 4, "{what}");
    });
}

/// What the host has to wait for is found out, and done as always.
#[test]
fn work_that_waits_is_no_graph() {
    in_orders(&[Storage::F32], &[Order::Ascending], |cuda, what| {
        let cuda = &cuda.with_graphs(Graphs::On);
        let batch = batch(&[3, 4]);
        for turn in 0..4 {
            let values = [turn as f32, 2.0, 3.0];
            let found = cuda.repeated(&batch, |cuda| cuda.download(&cuda.upload(&values)?)).unwrap();
            assert_eq!(found, values, "{what}");
        }
        let expected = Repeats { ordinary: 4, unfit: 1, ..Repeats::default() };
        assert_eq!(cuda.graph_repeats(), expected, "{what}");
    });
}

/// Work that differs from what was recorded in an argument alone.
#[test]
fn work_that_differs_is_done_all_the_same() {
    in_orders(&[Storage::F32], &[Order::Ascending], |cuda, what| {
        let cuda = &cuda.with_graphs(Graphs::On);
        let batch = batch(&[3, 4]);
        let (x, mut differed) = (cuda.upload(&[1.0, 2.0, 3.0, 4.0]).unwrap(), 0);
        for (turn, len) in [4, 4, 4, 4, 2, 2, 2].into_iter().enumerate() {
            let sum = cuda
                .repeated(&batch, |cuda| {
                    let mut y = cuda.upload(&[turn as f32; 4])?;
                    let short = cuda.upload(&vec![1.0; len])?;
                    cuda.add(&x, &mut y)?;
                    let mut z = cuda.zeros(len)?;
                    cuda.add(&short, &mut z)?;
                    Ok((y, z))
                })
                .unwrap();
            assert_eq!(
                cuda.download(&sum.0).unwrap(),
                [1.0, 2.0, 3.0, 4.0].map(|x| x + turn as f32),
                "{what}"
            );
            assert_eq!(cuda.download(&sum.1).unwrap(), vec![1.0; len], "{what}");
            differed = cuda.graph_repeats().differed;
        }
        assert_eq!(differed, 1, "{what}");
        assert_eq!(cuda.graph_repeats().replayed, 3, "{what}");
    });
}

/// More than all blocks hold, while nobody waits: none is filled again too early.
#[test]
fn uploads_are_not_overwritten() {
    in_orders(&[Storage::F32], &[Order::Ascending], |cuda, what| {
        let content = |i: usize| (0..300_000).map(|j| (i * 1000 + j) as u32).collect::<Vec<_>>();
        let uploaded: Vec<_> = (0..40).map(|i| cuda.upload_all(&content(i)).unwrap()).collect();
        for (i, memory) in uploaded.iter().enumerate() {
            assert!(cuda.download_all::<u32>(memory, 300_000).unwrap() == content(i), "{what}: upload {i}");
        }
    });
}

/// Status codes of a capture during which something happens.
fn captured(stream: sys::CUstream, with: impl FnOnce() -> Result<(), DriverError>) -> [sys::CUresult; 2] {
    let status = |result: Result<(), DriverError>| {
        result.map_or_else(|error| error.0, |()| sys::CUresult::CUDA_SUCCESS)
    };
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream is this test's; a graph that comes of it is released.
    unsafe {
        result::stream::begin_capture(stream, mode).unwrap();
        let with = status(with());
        let end = result::stream::end_capture(stream).and_then(|graph| result::graph::destroy(graph));
        [with, status(end)]
    }
}

/// The stand-in driver is as strict as the real one: otherwise the tests above would show nothing.
#[test]
fn the_emulated_driver_is_late_and_strict() {
    in_orders(&[Storage::F32], &[Order::Ascending], |_, _| {
        if !in_emulation() {
            return;
        }
        use sys::CUresult::{
            CUDA_ERROR_STREAM_CAPTURE_INVALIDATED as INVALIDATED,
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED as UNSUPPORTED, CUDA_SUCCESS as SUCCESS,
        };
        let context = CudaContext::new(0).unwrap();
        let new_stream = context.new_stream().unwrap();
        let stream = new_stream.cu_stream();
        // SAFETY: memory is of the sizes that are copied, and released once, at the end; no thread but this one has it.
        unsafe {
            let device = result::malloc_sync(16).unwrap();
            let pinned = result::malloc_host(16, 0).unwrap().cast::<u32>();
            let host = std::slice::from_raw_parts_mut(pinned, 4);
            let copy = |from: &[u32]| result::memcpy_htod_async(device, from, stream);
            let read = || {
                let mut found = [0u32; 4];
                result::memcpy_dtoh_async(&mut found, device, stream).unwrap();
                result::stream::synchronize(stream).unwrap();
                found
            };
            host.fill(1);
            copy(host).unwrap();
            std::ptr::write_volatile(pinned, 9);
            assert_eq!(read(), [9, 1, 1, 1], "an upload that was overwritten too early");
            let mut pageable = [2u32; 4];
            copy(&pageable).unwrap();
            std::ptr::write_volatile(&mut pageable[0], 9);
            assert_eq!(read(), [2; 4], "the driver has read other memory when it returns");
            assert_eq!(captured(stream, || copy(host)), [SUCCESS; 2]);
            assert_eq!(read(), [2; 4], "what is captured is not done");
            let refused = [UNSUPPORTED, INVALIDATED];
            assert_eq!(captured(stream, || copy(&pageable)), refused);
            assert_eq!(captured(stream, || result::malloc_sync(16).map(drop)), refused);
            assert_eq!(captured(stream, || result::free_sync(device)), refused);
            assert_eq!(captured(stream, || result::stream::synchronize(stream)), refused);
            assert_eq!(captured(stream, || result::malloc_host(16, 0).map(drop)), refused);
            let after = captured(stream, || {
                let _ = result::malloc_sync(16);
                copy(host)
            });
            assert_eq!(after, [INVALIDATED; 2]);
            result::free_host(pinned.cast()).unwrap();
            result::free_sync(device).unwrap();
        }
    });
}
