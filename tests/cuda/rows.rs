//! Operations on rows: norms, dropout, embeddings, pooling, AdamW, sums.

use crate::device::*;
use limbeck::backend::cuda::Storage;
use limbeck::backend::{Cpu, Cuda, Device};
use limbeck::ops::dropout::{DropoutOps, DropoutSeed, DropoutSite};
use limbeck::ops::embedding::{EmbeddingOps, Lookup};
use limbeck::ops::norm::NormOps;
use limbeck::ops::optimizer::{AdamWOps, AdamWStep, Update};
use limbeck::ops::pool::{Pool, PoolOps};
use limbeck::params::Mask;
use limbeck::tensor::{Shape, Tensor};

#[test]
fn layer_norm() {
    on_devices(&Storage::ALL, |cuda, what| {
        let cpu = cpu();
        let batch = batch(&[1, 3, 60, 86]);
        let site = DropoutSite { seed: DropoutSeed { seed: 5, step: 9 }, place: 2, rate: 0.2 };
        let (tokens, texts) = (batch.tokens(), batch.texts());
        let sizes = [
            (1, 1, true, false),
            (5, 33, true, false),
            (9, 64, false, false),
            (tokens, 40, true, true),
            (texts, 70, true, true),
        ];
        for (rows, cols, with_residual, drops) in sizes {
            let what = format!("{what}, {rows} × {cols}");
            let dropout = drops.then_some((&batch, &site));
            let values = |seed| random(seed, rows * cols, cuda.storage());
            let (x, on_cpu) = both(cuda, &cpu, &values(1), rows);
            let (residual, residual_on_cpu) = both(cuda, &cpu, &values(2), rows);
            let [(gamma, gamma_on_cpu), (beta, beta_on_cpu)] =
                [3, 4].map(|seed| parameter(cuda, &cpu, &random(seed, cols, Storage::F32)));
            let residual = with_residual.then_some(&residual);
            let (y, saved) = cuda.norm_forward(&x, dropout, residual, &gamma, &beta, 1e-5).unwrap();
            let residual = with_residual.then_some(&residual_on_cpu);
            let (expected, expected_saved) =
                cpu.norm_forward(&on_cpu, dropout, residual, &gamma_on_cpu, &beta_on_cpu, 1e-5).unwrap();
            // The sum is rounded before it is normalized, and the result again.
            let bound = 1e-5 + 6.0 * rounding(cuda.storage());
            same(cuda, &cpu, &y, &expected, bound, &what);
            same(cuda, &cpu, &saved.z, &expected_saved.z, 1e-6 + rounding(cuda.storage()), &what);

            let (dy, dy_on_cpu) = both(cuda, &cpu, &values(5), rows);
            for accumulate in [false, true] {
                let begin = random(6, cols, Storage::F32);
                let [mut dgamma, mut dbeta] = [(); 2].map(|()| parameter(cuda, &cpu, &begin));
                let parameters = [&mut dgamma.0, &mut dbeta.0];
                let found = cuda.norm_backward(&dy, &saved, dropout, &gamma, parameters, accumulate).unwrap();
                let parameters = [&mut dgamma.1, &mut dbeta.1];
                let expected = cpu
                    .norm_backward(
                        &dy_on_cpu,
                        &expected_saved,
                        dropout,
                        &gamma_on_cpu,
                        parameters,
                        accumulate,
                    )
                    .unwrap();
                for (found, expected) in found.iter().zip(&expected) {
                    same(cuda, &cpu, found, expected, bound, &what);
                }
                same(cuda, &cpu, &dgamma.0, &dgamma.1, bound, &what);
                same(cuda, &cpu, &dbeta.0, &dbeta.1, 1e-5, &what);
            }
        }
    });
}

#[test]
fn dropout_drops_what_the_cpu_drops() {
    on_devices(&Storage::ALL, |cuda, what| {
        let (cpu, batch) = (cpu(), batch(&[3, 1, 40, 7]));
        let site = DropoutSite { seed: DropoutSeed { seed: 5, step: 1 << 40 }, place: 3, rate: 0.3 };
        for rows in [batch.tokens(), batch.texts()] {
            let (x, on_cpu) = both(cuda, &cpu, &random(1, rows * 37, cuda.storage()), rows);
            let found = cuda.dropout(&batch, &x, &site).unwrap();
            let expected = cpu.dropout(&batch, &on_cpu, &site).unwrap();
            same(cuda, &cpu, &found, &expected, rounding(cuda.storage()), what);
            let zeros = |values: Vec<f32>| values.iter().map(|x| *x == 0.0).collect::<Vec<_>>();
            let (found, expected) = (zeros(found.download(cuda).unwrap()), zeros(expected.buffer().to_vec()));
            assert_eq!(found, expected, "{what}");
            assert!(found.contains(&true) && found.contains(&false));
        }
    });
}

#[test]
fn embeddings() {
    on_devices(&Storage::ALL, |cuda, what| {
        let (cpu, cols, tokens) = (cpu(), 24, 700);
        let rows: Vec<Vec<u32>> = vec![
            (0..tokens).map(|i| if i % 4 == 0 { 2 } else { i * 31 % 40 }).collect(),
            (0..tokens).map(|i| i % 90).collect(),
            (0..tokens).map(|i| i / 400).collect(),
        ];
        let tables = [40usize, 90, 2].map(|entries| {
            let values = random(entries as u64, entries * cols, Storage::F32);
            let shape = Shape::new(entries, cols);
            (Tensor::upload(cuda, &values, shape).unwrap(), Tensor::upload(&cpu, &values, shape).unwrap())
        });
        for count in 1..=3 {
            let on_gpu: Vec<Lookup<'_, Cuda>> = tables
                .iter()
                .zip(&rows)
                .take(count)
                .map(|(table, rows)| Lookup { table: &table.0, rows })
                .collect();
            let on_cpu: Vec<Lookup<'_, Cpu>> = tables
                .iter()
                .zip(&rows)
                .take(count)
                .map(|(table, rows)| Lookup { table: &table.1, rows })
                .collect();
            let (found, expected) = (cuda.gather(&on_gpu).unwrap(), cpu.gather(&on_cpu).unwrap());
            same(cuda, &cpu, &found, &expected, 1e-7 + rounding(cuda.storage()), what);
        }
        let (dy, dy_on_cpu) =
            both(cuda, &cpu, &random(9, tokens as usize * cols, cuda.storage()), tokens as usize);
        for ((table, on_cpu), rows) in tables.iter().zip(&rows) {
            for accumulate in [false, true] {
                let begin = |shape: Shape| random(10, shape.len(), Storage::F32);
                let mut found = Tensor::upload(cuda, &begin(table.shape()), table.shape()).unwrap();
                let mut expected = Tensor::upload(&cpu, &begin(table.shape()), on_cpu.shape()).unwrap();
                cuda.scatter(&dy, rows, &mut found, accumulate).unwrap();
                cpu.scatter(&dy_on_cpu, rows, &mut expected, accumulate).unwrap();
                same(cuda, &cpu, &found, &expected, 1e-5, what);
            }
        }
    });
}

#[test]
fn pooling() {
    on_devices(&Storage::ALL, |cuda, what| {
        let (cpu, batch) = (cpu(), batch(&[1, 5, 64, 2]));
        for pool in [Pool::First, Pool::Mean] {
            for rows in [batch.tokens(), batch.texts()] {
                let (x, on_cpu) = both(cuda, &cpu, &random(1, rows * 19, cuda.storage()), rows);
                let found = cuda.pool_forward(&batch, &x, pool).unwrap();
                let expected = cpu.pool_forward(&batch, &on_cpu, pool).unwrap();
                same(cuda, &cpu, &found, &expected, 1e-6 + rounding(cuda.storage()), what);
            }
            let (dy, on_cpu) =
                both(cuda, &cpu, &random(2, batch.texts() * 19, cuda.storage()), batch.texts());
            let found = cuda.pool_backward(&batch, &dy, pool).unwrap();
            let expected = cpu.pool_backward(&batch, &on_cpu, pool).unwrap();
            same(cuda, &cpu, &found, &expected, 1e-6 + rounding(cuda.storage()), what);
        }
    });
}

/// A parameter's value, moments and gradient on one device.
struct State<D: Device> {
    w: Tensor<D>,
    moments: [Tensor<D>; 2],
    gradient: Tensor<D>,
}

impl<D: AdamWOps> State<D> {
    fn new(device: &D, seed: u64, len: usize) -> State<D> {
        let shape = Shape::vector(len);
        let drawn = |place: u64| random(seed + place, len, Storage::F32);
        let upload = |values: Vec<f32>| Tensor::upload(device, &values, shape).unwrap();
        let positive = |place| drawn(place).into_iter().map(f32::abs).collect();
        State {
            w: upload(drawn(0)),
            moments: [upload(drawn(1)), upload(positive(2))],
            gradient: upload(drawn(3)),
        }
    }

    fn update<'a>(&'a mut self, mask: Option<&'a Mask>, decays: bool) -> Update<'a, D> {
        Update { w: &mut self.w, moments: &mut self.moments, gradient: &mut self.gradient, mask, decays }
    }
}

#[test]
fn adamw() {
    on_devices(&[Storage::F32], |cuda, what| {
        let (cpu, lengths) = (cpu(), [1000, 40_000, 0, 1]);
        let mask = Mask((0..1000).map(|i| u8::from(i % 3 > 0)).collect());
        let masks = [Some(&mask), None, None, None];
        let mut found = lengths.map(|len| State::new(cuda, len as u64, len));
        let mut expected = lengths.map(|len| State::new(&cpu, len as u64, len));
        for (t, clip) in [(1, 0.0), (2, 0.5), (3, 1e9)] {
            let step = AdamWStep {
                learning_rate: 1e-2,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.1,
                gradient_scale: 0.7,
                step: t,
            };
            let with = |i: usize| (masks[i], i != 1);
            let updates = |(i, state)| State::update(state, with(i).0, with(i).1);
            let norm = cuda.adamw(found.iter_mut().enumerate().map(updates).collect(), clip, &step);
            let norm = cuda.norm(norm.unwrap()).unwrap();
            let updates = |(i, state)| State::update(state, with(i).0, with(i).1);
            let on_cpu =
                cpu.adamw(expected.iter_mut().enumerate().map(updates).collect(), clip, &step).unwrap();
            assert!((norm - on_cpu).abs() <= 1e-6 * on_cpu, "{what}: {norm} {on_cpu}");
            for (found, expected) in found.iter().zip(&expected) {
                same(cuda, &cpu, &found.w, &expected.w, 1e-6, what);
                for (found, expected) in found.moments.iter().zip(&expected.moments) {
                    same(cuda, &cpu, found, expected, 1e-6, what);
                }
            }
        }
        for state in [&found[0].w, &found[0].moments[0], &found[0].moments[1]] {
            let values = state.download(cuda).unwrap();
            assert!(values.iter().zip(&*mask.0).all(|(value, kept)| *kept == 1 || *value == 0.0), "{what}");
        }
        let before = found[1].w.download(cuda).unwrap();
        found[3].gradient = Tensor::upload(cuda, &[f32::INFINITY], Shape::vector(1)).unwrap();
        let step = AdamWStep {
            learning_rate: 1e-2,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.1,
            gradient_scale: 1.0,
            step: 4,
        };
        let updates = found.iter_mut().map(|state| state.update(None, true)).collect();
        let norm = cuda.adamw(updates, 1.0, &step).unwrap();
        assert!(!cuda.norm(norm).unwrap().is_finite());
        assert_eq!(
            found[1].w.download(cuda).unwrap(),
            before,
            "{what}: a norm that is not finite changes nothing"
        );

        let (mut x, mut on_cpu) = parameter(cuda, &cpu, &random(5, 1000, Storage::F32));
        cuda.mask(&mut x, &mask).unwrap();
        cpu.mask(&mut on_cpu, &mask).unwrap();
        same(cuda, &cpu, &x, &on_cpu, 0.0, what);
    });
}

#[test]
fn sums_and_squares_and_storages() {
    on_devices(&Storage::ALL, |cuda, what| {
        let cpu = cpu();
        for len in [0, 1, 17, 2048, 40_000] {
            let values = random(1, len, cuda.storage());
            let (x, on_cpu) = both(cuda, &cpu, &values, 1);
            assert_eq!(x.download(cuda).unwrap(), values, "{what}: there and back");
            let found = cuda.sum_squares(x.buffer()).unwrap();
            let expected = cpu.sum_squares(on_cpu.buffer()).unwrap();
            assert!((found - expected).abs() <= 1e-6 * expected, "{what}: {found} {expected}");
            // Gradients meet in all storages.
            for of_x in [cuda.storage(), Storage::F32] {
                for of_y in [cuda.storage(), Storage::F32] {
                    let add = random(2, len, cuda.storage());
                    let uploaded = Tensor::upload(cuda, &add, Shape::vector(len)).unwrap();
                    let from = cuda.stored(&uploaded, of_x).unwrap();
                    let mut into = Tensor::upload(cuda, &values, Shape::vector(len)).unwrap();
                    if of_y != Storage::F32 {
                        into = cuda.stored(&into, of_y).unwrap().into_owned();
                    }
                    cuda.add(from.buffer(), into.buffer_mut()).unwrap();
                    let sums: Vec<f32> = values.iter().zip(&add).map(|(x, y)| round(x + y, of_y)).collect();
                    assert_eq!(into.download(cuda).unwrap(), sums, "{what}");
                }
            }
        }
    });
}
