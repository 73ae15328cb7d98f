//! Softmax and layer norm.

use crate::harness::{EPS, Guarded, Random, SIZES, assert_slope, doubles, rows};
use crate::map;
use crate::oracle::{self, Sum, assert_close};
use limbeck_kernels::Kernels;
use limbeck_kernels::rows::{LayerNormGradients, LayerNormSaved};

#[test]
fn softmax_matches_the_oracle_sums_to_1_and_ignores_a_shift() {
    for kernels in rows() {
        for n in SIZES {
            let mut x = Random::new(n as u64).normals(n);
            x.iter_mut().for_each(|x| *x *= 5.0);
            let softmax = |x: &[f32]| {
                let mut row = Guarded::of(x);
                kernels.softmax_row(row.inside());
                row.checked()
            };
            let y = softmax(&x);
            let truth = oracle::softmax(&doubles(&x));
            let sums: Vec<Sum> = truth.iter().map(|&value| Sum { value, magnitude: value }).collect();
            // x − max is rounded once, at most 60; the rest is a few roundings and the additions.
            assert_close("softmax", &y, &sums, 60.0 + n as f64 / 16.0 + 12.0);
            if n > 0 {
                let sum: f64 = doubles(&y).iter().sum();
                assert!((sum - 1.0).abs() <= EPS * (n as f64 / 16.0 + 8.0), "sum {sum}");
            }
            // Quarters, so that adding 64 is exact.
            let x: Vec<f32> = x.iter().map(|x| (x * 4.0).round() / 4.0).collect();
            let shifted: Vec<f32> = x.iter().map(|x| x + 64.0).collect();
            assert_eq!(softmax(&x), softmax(&shifted));
        }
        let mut row = [f32::NEG_INFINITY, 1.0, 1.0];
        kernels.softmax_row(&mut row);
        assert_eq!(row, [0.0, 0.5, 0.5]);
        for position in [0, 20] {
            for poison in [f32::NAN, f32::INFINITY] {
                let mut row = [1.0; 21];
                row[position] = poison;
                kernels.softmax_row(&mut row);
                assert!(row.iter().all(|x| x.is_nan()));
            }
        }
    }
}

/// A layer norm forward: (y, mean, rstd).
pub fn layer_norm(kernels: Kernels, x: &[f32], gamma: &[f32], beta: &[f32], rows: usize) -> [Vec<f32>; 3] {
    let (mut y, mut mean, mut rstd) = (Guarded::new(x.len()), Guarded::new(rows), Guarded::new(rows));
    let saved = LayerNormSaved { mean: mean.inside(), rstd: rstd.inside() };
    kernels.layer_norm_forward(x, gamma, beta, 1e-12, y.inside(), Some(saved));
    let y = y.checked();
    let unsaved = map(x, |x, y| kernels.layer_norm_forward(x, gamma, beta, 1e-12, y, None));
    assert!(y.iter().zip(&unsaved).all(|(y, unsaved)| y.to_bits() == unsaved.to_bits()));
    [y, mean.checked(), rstd.checked()]
}

#[test]
fn layer_norm_matches_the_oracle() {
    for kernels in rows() {
        for h in SIZES.into_iter().filter(|h| *h > 1) {
            let mut random = Random::new(h as u64);
            let rows = 3;
            // Off centre, so that a one-pass variance would show.
            let x: Vec<f32> = random.normals(rows * h).iter().map(|x| x + 3.0).collect();
            let (gamma, beta, dy) = (random.normals(h), random.normals(h), random.normals(rows * h));
            let [y, mean, rstd] = layer_norm(kernels, &x, &gamma, &beta, rows);

            let start = random.normals(h);
            let (mut dx, mut dgamma, mut dbeta) =
                (Guarded::new(rows * h), Guarded::of(&start), Guarded::of(&start));
            let mut into =
                LayerNormGradients { dx: dx.inside(), dgamma: dgamma.inside(), dbeta: dbeta.inside() };
            kernels.layer_norm_backward(&dy, &x, &gamma, &mean, &rstd, &mut into);
            let (dx, dgamma, dbeta) = (dx.checked(), dgamma.checked(), dbeta.checked());

            let first = |value: &f32| Sum { value: f64::from(*value), magnitude: f64::from(value.abs()) };
            let mut dgamma_truth: Vec<Sum> = start.iter().map(first).collect();
            let mut dbeta_truth = dgamma_truth.clone();
            // Additions one after another in a lane, then the tree.
            let depth = h as f64 / 64.0 + 8.0;
            for r in 0..rows {
                let row = doubles(&x[r * h..][..h]);
                let (true_mean, true_rstd) = oracle::layer_norm_statistics(&row, 1e-12);
                let mean_error = depth * EPS * row.iter().map(|x| x.abs()).sum::<f64>() / h as f64;
                assert!((f64::from(mean[r]) - true_mean).abs() <= mean_error);
                assert!((f64::from(rstd[r]) - true_rstd).abs() <= true_rstd * EPS * (depth + 8.0));

                let truth = oracle::layer_norm(&row, &doubles(&gamma), &doubles(&beta), 1e-12);
                for i in 0..h {
                    let (gamma, beta) = (f64::from(gamma[i]).abs(), f64::from(beta[i]).abs());
                    let scaled = (truth[i].abs() + 2.0 * beta) * EPS * (depth + 12.0);
                    let bound = scaled + gamma * true_rstd * mean_error;
                    let found = f64::from(y[r * h + i]);
                    assert!((found - truth[i]).abs() <= bound, "y[{r}][{i}]: {found} for {}", truth[i]);
                }

                // The backward's inputs include the mean and rstd that were saved.
                let (m, s) = (f64::from(mean[r]), f64::from(rstd[r]));
                let dy = doubles(&dy[r * h..][..h]);
                let (truth, gamma_terms, beta_terms) =
                    oracle::layer_norm_gradients(&dy, &row, &doubles(&gamma), m, s);
                assert_close("dx", &dx[r * h..][..h], &truth, h as f64 / 32.0 + 20.0);
                for i in 0..h {
                    dgamma_truth[i].add(gamma_terms[i]);
                    dbeta_truth[i].add(beta_terms[i]);
                }
            }
            assert_close("dgamma", &dgamma, &dgamma_truth, rows as f64 + 4.0);
            assert_close("dbeta", &dbeta, &dbeta_truth, rows as f64 + 1.0);
        }
        // A constant row is its beta; a single value has no variance.
        let [y, ..] = layer_norm(kernels, &[2.5; 40], &[1.0; 20], &[0.75; 20], 2);
        assert!(y.iter().all(|y| *y == 0.75));
        let [y, ..] = layer_norm(kernels, &[2.5], &[3.0], &[0.5], 1);
        assert_eq!(y, [0.5]);
        let mut x = [1.0; 40];
        x[33] = f32::NAN;
        let [y, ..] = layer_norm(kernels, &x, &[1.0; 20], &[0.0; 20], 2);
        assert!(y[..20].iter().all(|y| *y == 0.0) && y[20..].iter().all(|y| y.is_nan()));
        assert!(layer_norm(kernels, &[], &[], &[], 2)[0].is_empty());
    }
}

#[test]
fn layer_norm_gradients_of_the_oracle_are_slopes() {
    let mut random = Random::new(5);
    let n = 9;
    let [x, gamma, beta, dy] = [(); 4].map(|()| doubles(&random.normals(n)));
    let eps = 1e-3;
    let (mean, rstd) = oracle::layer_norm_statistics(&x, eps);
    let (dx, dgamma, dbeta) = oracle::layer_norm_gradients(&dy, &x, &gamma, mean, rstd);
    let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| -> f64 {
        oracle::layer_norm(x, gamma, beta, eps).iter().zip(&dy).map(|(y, dy)| y * dy).sum()
    };
    assert_slope("dx", &x, &oracle::values(&dx), |x| loss(x, &gamma, &beta));
    assert_slope("dgamma", &gamma, &dgamma, |gamma| loss(&x, gamma, &beta));
    assert_slope("dbeta", &beta, &dbeta, |beta| loss(&x, &gamma, beta));
}
