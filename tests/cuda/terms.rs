//! What looks at the inside of a network.

use crate::device::*;
use limbeck::backend::cuda::Storage;
use limbeck::ops::blocks::{BlockOps, BlockShape, Summed};
use limbeck::ops::cosine::CosineOps;
use limbeck::ops::gate::GateOps;
use limbeck::ops::loss::{Distillation, LossOps};
use limbeck::ops::mean_square::MeanSquareOps;

#[test]
fn distances_of_states() {
    on_devices(&Storage::ALL, |cuda, what| {
        let cpu = cpu();
        for (rows, cols) in [(1, 1), (7, 33), (90, 70)] {
            let mut student = random(1, rows * cols, cuda.storage());
            student[..cols].fill(0.0);
            let (x, x_on_cpu) = both(cuda, &cpu, &student, rows);
            let (y, y_on_cpu) = both(cuda, &cpu, &random(2, rows * cols, cuda.storage()), rows);
            let (found, dx) = cuda.mean_square(&x, &y, 3.0).unwrap();
            let (expected, dx_on_cpu) = cpu.mean_square(&x_on_cpu, &y_on_cpu, 3.0).unwrap();
            assert!((found - expected).abs() <= 1e-6 * expected, "{what}: {found} {expected}");
            same(cuda, &cpu, &dx, &dx_on_cpu, 1e-6 + rounding(cuda.storage()), what);
            let (found, dx) = cuda.cosine(&x, &y, 3.0).unwrap();
            let (expected, dx_on_cpu) = cpu.cosine(&x_on_cpu, &y_on_cpu, 3.0).unwrap();
            assert!((found - expected).abs() <= 1e-9 * expected, "{what}: {found} {expected}");
            same(cuda, &cpu, &dx, &dx_on_cpu, 1e-6 + rounding(cuda.storage()), what);
        }
    });
}

#[test]
fn losses_on_logits() {
    on_devices(&[Storage::F32], |cuda, what| {
        let cpu = cpu();
        for (texts, classes) in [(1, 1), (7, 4), (300, 2)] {
            let logits: Vec<f32> = random(1, texts * classes, Storage::F32).iter().map(|x| 9.0 * x).collect();
            let labels: Vec<usize> = (0..texts).map(|text| text * 5 % classes).collect();
            let teacher = random(2, texts * classes, Storage::F32);
            let (on_gpu, on_cpu) = both(cuda, &cpu, &logits, texts);
            for alpha in [None, Some(0.0), Some(0.7), Some(1.0)] {
                let teacher = alpha.map(|alpha| (&teacher[..], Distillation { temperature: 4.0, alpha }));
                let (pending, gradient) = cuda.loss(&on_gpu, &labels, teacher, 1.0).unwrap();
                let (expected, gradient_on_cpu) = cpu.loss(&on_cpu, &labels, teacher, 1.0).unwrap();
                let found = cuda.losses(pending).unwrap();
                let pairs = [
                    (found.total, expected.total),
                    (found.cross_entropy, expected.cross_entropy),
                    (found.distillation, expected.distillation),
                ];
                for (found, expected) in pairs {
                    assert!(
                        (found - expected).abs() <= 1e-12 * (1.0 + expected.abs()),
                        "{what}: {found} {expected}"
                    );
                }
                same(cuda, &cpu, &gradient, &gradient_on_cpu, 1e-6, what);
            }
            let (broken, _) = both(cuda, &cpu, &vec![f32::NAN; texts * classes], texts);
            let (pending, gradient) = cuda.loss(&broken, &labels, None, 1.0).unwrap();
            assert!(!cuda.losses(pending).unwrap().total.is_finite());
            assert!(gradient.download(cuda).unwrap().iter().all(|x| x.is_nan()), "{what}");
        }
    });
}

#[test]
fn slopes_of_gates_and_sums_of_blocks() {
    on_devices(&Storage::ALL, |cuda, what| {
        let (cpu, batch) = (cpu(), batch(&[4, 1, 50]));
        for rows in [batch.tokens(), batch.texts()] {
            let (x, x_on_cpu) = both(cuda, &cpu, &random(1, rows * 24, cuda.storage()), rows);
            let (dx, dx_on_cpu) = both(cuda, &cpu, &random(2, rows * 24, cuda.storage()), rows);
            for width in [1, 8, 24] {
                let found = cuda.gate_gradients(&batch, &x, &dx, width).unwrap();
                let expected = cpu.gate_gradients(&batch, &x_on_cpu, &dx_on_cpu, width).unwrap();
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() <= 1e-5, "{what}: {found} {expected}");
                }
            }
        }
        let (x, x_on_cpu) = both(cuda, &cpu, &random(3, 33 * 22, cuda.storage()), 33);
        for summed in [Summed::Products, Summed::Squares] {
            let count = BlockShape::PACKED.count(x.shape());
            let [mut found, mut expected] = [vec![1.0; count], vec![1.0; count]];
            cuda.block_sums(summed, &x, &x, BlockShape::PACKED, &mut found).unwrap();
            cpu.block_sums(summed, &x_on_cpu, &x_on_cpu, BlockShape::PACKED, &mut expected).unwrap();
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-12, "{what}: {found} {expected}");
            }
        }
    });
}
