//! The row kernels on every row of the table, against the f64 oracle; the oracle against finite differences.

#[allow(dead_code, reason = "shared with the other row tests, each of which uses a part")]
mod harness;
#[allow(dead_code, reason = "shared with the other row tests, each of which uses a part")]
mod oracle;

use harness::{EPS, Guarded, Random, SIZES, assert_close, assert_slope, doubles, rows, ulps};
use limbeck_kernels::Kernels;
use limbeck_kernels::rows::{
    AdamW, AdamWStep, Dropout, LayerNormGradients, LayerNormSaved, quantized_stride,
};
use oracle::Sum;

/// A kernel of one slice in, one slice out.
fn map(x: &[f32], kernel: impl Fn(&[f32], &mut [f32])) -> Vec<f32> {
    let mut y = Guarded::new(x.len());
    kernel(x, y.inside());
    y.checked()
}

/// Every 4,001st f32 between `low` and `high`: every exponent, and millions of mantissas.
fn sweep(low: f32, high: f32) -> Vec<f32> {
    let magnitudes = (0..high.max(-low).to_bits()).step_by(4001).map(f32::from_bits);
    magnitudes.flat_map(|x| [x, -x]).filter(|x| (low..=high).contains(x)).collect()
}

#[test]
fn exp_is_within_2_ulp() {
    for kernels in rows() {
        let x = sweep(-106.0, 88.7);
        let y = map(&x, |x, y| kernels.exp(x, y));
        let worst = x.iter().zip(&y).map(|(x, y)| ulps(*y, f64::from(*x).exp())).fold(0.0, f64::max);
        println!("{}: exp within {worst:.3} ulp over {} values", kernels.isa(), x.len());
        assert!(worst <= 2.0, "{}: {worst} ulp", kernels.isa());
        let special = [0.0, -0.0, f32::NEG_INFINITY, -105.0, f32::MIN, 89.0, f32::MAX, f32::INFINITY];
        let y = map(&special, |x, y| kernels.exp(x, y));
        assert_eq!(y, [1.0, 1.0, 0.0, 0.0, 0.0, f32::INFINITY, f32::INFINITY, f32::INFINITY]);
        assert!(map(&[f32::NAN], |x, y| kernels.exp(x, y))[0].is_nan());
    }
}

#[test]
fn tanh_is_within_3_ulp() {
    for kernels in rows() {
        let x = sweep(-12.0, 12.0);
        let y = map(&x, |x, y| kernels.tanh_forward(x, y));
        let worst = x.iter().zip(&y).map(|(x, y)| ulps(*y, f64::from(*x).tanh())).fold(0.0, f64::max);
        println!("{}: tanh within {worst:.3} ulp over {} values", kernels.isa(), x.len());
        assert!(worst <= 3.0, "{}: {worst} ulp", kernels.isa());
        let y = map(&[f32::NEG_INFINITY, -50.0, 50.0, f32::INFINITY], |x, y| kernels.tanh_forward(x, y));
        assert_eq!(y, [-1.0, -1.0, 1.0, 1.0]);
        assert!(map(&[f32::NAN], |x, y| kernels.tanh_forward(x, y))[0].is_nan());
    }
}

#[test]
fn gelu_matches_the_oracle_and_keeps_sign_and_magnitude() {
    for kernels in rows() {
        let x = sweep(-20.0, 20.0);
        let y = map(&x, |x, y| kernels.gelu_forward(x, y));
        let slopes = map(&x, |x, dx| kernels.gelu_backward(x, &vec![1.0; x.len()], dx));
        let (mut worst, mut worst_slope) = (0.0f64, 0.0f64);
        for ((&x, &y), &slope) in x.iter().zip(&y).zip(&slopes) {
            let truth = oracle::gelu(f64::from(x));
            let error = (f64::from(y) - truth).abs();
            worst = worst.max(error / f64::from(x.abs().max(1.0)));
            // To the far end of the tail the error stays relative: that of e^(−x²/2) is x²·ε.
            let bound = (12.0 + f64::from(x * x)) * EPS * truth.abs() + f64::from(f32::MIN_POSITIVE);
            assert!(error <= bound, "{}: gelu({x}) = {y}, not {truth}", kernels.isa());
            let slope_error = (f64::from(slope) - oracle::gelu_slope(f64::from(x))).abs();
            worst_slope = worst_slope.max(slope_error);
            assert!(y == 0.0 || (y < 0.0) == (x < 0.0), "the sign of gelu({x}) = {y}");
            assert!(y.abs() <= x.abs(), "the size of gelu({x}) = {y}");
        }
        println!(
            "{}: gelu within {worst:.2e}·max(1, |x|), its slope within {worst_slope:.2e}",
            kernels.isa()
        );
        assert!(worst <= 2e-7 && worst_slope <= 3e-7);
        let special = [f32::NEG_INFINITY, f32::MIN, -0.0, 0.0, f32::MAX, f32::INFINITY];
        let y = map(&special, |x, y| kernels.gelu_forward(x, y));
        assert_eq!(y, [0.0, 0.0, 0.0, 0.0, f32::MAX, f32::INFINITY]);
        let slopes = map(&special, |x, dx| kernels.gelu_backward(x, &[1.0; 6], dx));
        assert_eq!(slopes, [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]);
        assert!(map(&[f32::NAN], |x, y| kernels.gelu_forward(x, y))[0].is_nan());
        assert!(map(&[f32::NAN], |x, dx| kernels.gelu_backward(x, &[1.0], dx))[0].is_nan());
    }
}

#[test]
fn activation_slopes_of_the_oracle_are_slopes() {
    let x: Vec<f64> = (-40..=40).map(|i| f64::from(i) * 0.11 + 0.003).collect();
    let slopes: Vec<f64> = x.iter().map(|&x| oracle::gelu_slope(x)).collect();
    assert_slope("gelu", &x, &slopes, |x| x.iter().map(|&x| oracle::gelu(x)).sum());
    let slopes: Vec<f64> = x.iter().map(|&x| 1.0 - x.tanh().powi(2)).collect();
    assert_slope("tanh", &x, &slopes, |x| x.iter().map(|x| x.tanh()).sum());
    let slopes: Vec<f64> = x.iter().map(|&x| if x > 0.0 { 1.0 } else { 0.0 }).collect();
    assert_slope("relu", &x, &slopes, |x| x.iter().map(|x| x.max(0.0)).sum());
}

#[test]
fn activation_backwards_match_their_slopes_at_every_size() {
    for kernels in rows() {
        for n in SIZES {
            let mut random = Random(n as u64);
            let (x, dy) = (random.normals(n), random.normals(n));
            let gradient = |slope: &dyn Fn(f64) -> f64| -> Vec<Sum> {
                let terms = x.iter().zip(&dy).map(|(&x, &dy)| f64::from(dy) * slope(f64::from(x)));
                terms.zip(&dy).map(|(value, &dy)| Sum { value, magnitude: f64::from(dy.abs()) }).collect()
            };
            let dx = map(&x, |x, dx| kernels.gelu_backward(x, &dy, dx));
            assert_close("gelu", &dx, &gradient(&oracle::gelu_slope), 6.0);
            let y = map(&x, |x, y| kernels.tanh_forward(x, y));
            let dx = map(&y, |y, dx| kernels.tanh_backward(y, &dy, dx));
            assert_close("tanh", &dx, &gradient(&|x| 1.0 - x.tanh().powi(2)), 10.0);
            let y = map(&x, |x, y| kernels.relu_forward(x, y));
            assert!(x.iter().zip(&y).all(|(x, y)| *y == x.max(0.0)));
            let dx = map(&y, |y, dx| kernels.relu_backward(y, &dy, dx));
            let truth: Vec<f32> = x.iter().zip(&dy).map(|(&x, &dy)| if x > 0.0 { dy } else { 0.0 }).collect();
            assert_eq!(dx, truth);
        }
        assert!(map(&[f32::NAN], |x, y| kernels.relu_forward(x, y))[0].is_nan());
    }
}

#[test]
fn softmax_matches_the_oracle_sums_to_1_and_ignores_a_shift() {
    for kernels in rows() {
        for n in SIZES {
            let mut x = Random(n as u64).normals(n);
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
fn layer_norm(kernels: Kernels, x: &[f32], gamma: &[f32], beta: &[f32], rows: usize) -> [Vec<f32>; 3] {
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
            let mut random = Random(h as u64);
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
    let mut random = Random(5);
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

#[test]
fn sums_and_scalings() {
    for kernels in rows() {
        for n in SIZES {
            let mut random = Random(n as u64);
            let (x, y) = (random.normals(n), random.normals(n));
            let mut out = Guarded::of(&y);
            kernels.add(&x, out.inside());
            let truth: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            assert_eq!(out.checked(), truth);
            let mut out = Guarded::of(&x);
            kernels.scale(out.inside(), 0.3);
            assert_eq!(out.checked(), x.iter().map(|x| x * 0.3).collect::<Vec<_>>());

            let truth: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let error = (kernels.sum_squares(&x) - truth).abs();
            assert!(error <= truth * f64::EPSILON * (n as f64 + 8.0));

            for rows in [0, 1, 7, 8, 9, 20] {
                let dy = random.normals(rows * n);
                let start = random.normals(n);
                let mut db = Guarded::of(&start);
                kernels.column_sums(&dy, db.inside());
                let truth: Vec<Sum> = (0..n)
                    .map(|j| {
                        let mut sum = Sum::default();
                        sum.add(f64::from(start[j]));
                        (0..rows).for_each(|i| sum.add(f64::from(dy[i * n + j])));
                        sum
                    })
                    .collect();
                assert_close("column sums", &db.checked(), &truth, rows as f64 + 1.0);
            }
        }
        // Squares that overflow or vanish in f32.
        assert_eq!(kernels.sum_squares(&[1e30; 20]), 20.0 * f64::from(1e30f32).powi(2));
        assert_eq!(kernels.sum_squares(&[1e-30; 3]), 3.0 * f64::from(1e-30f32).powi(2));
        assert!(kernels.sum_squares(&[1.0, f32::NAN]).is_nan());
    }
}

#[test]
fn embedding_rows() {
    for kernels in rows() {
        for hidden in SIZES.into_iter().filter(|h| *h > 0) {
            let mut random = Random(hidden as u64);
            let table = random.normals(7 * hidden);
            let ids = [6, 0, 3, 3];
            let mut out = Guarded::new(4 * hidden);
            kernels.gather_rows(&table, &ids, out.inside());
            let out = out.checked();
            let dy = random.normals(4 * hidden);
            let mut dtable = Guarded::of(&table);
            kernels.scatter_add_rows(&dy, &ids, dtable.inside());
            let dtable = dtable.checked();
            let mut truth = table.clone();
            for (row, &id) in ids.iter().enumerate() {
                for j in 0..hidden {
                    assert_eq!(out[row * hidden + j], table[id as usize * hidden + j]);
                    truth[id as usize * hidden + j] += dy[row * hidden + j];
                }
            }
            assert_eq!(dtable, truth);

            let q: Vec<i8> = (0..hidden).map(|_| (random.next() >> 56) as u8 as i8).collect();
            for accumulate in [false, true] {
                let start = random.normals(hidden);
                let mut out = Guarded::of(&start);
                kernels.dequantize_row(&q, 0.017, out.inside(), accumulate);
                let truth: Vec<f32> = (0..hidden)
                    .map(|i| f32::from(q[i]).mul_add(0.017, if accumulate { start[i] } else { 0.0 }))
                    .collect();
                assert_eq!(out.checked(), truth);
            }
        }
        kernels.gather_rows(&[1.0, 2.0], &[], &mut []);
        kernels.scatter_add_rows(&[], &[], &mut [1.0, 2.0]);
    }
}

#[test]
#[should_panic]
fn an_id_beyond_the_table_panics() {
    Kernels::available().next().expect("a row").gather_rows(&[0.0; 6], &[2], &mut [0.0; 3]);
}

#[test]
fn quantized_rows_are_within_half_a_step() {
    for kernels in rows() {
        for k in SIZES {
            let x = Random(k as u64).normals(3 * k);
            let stride = quantized_stride(k);
            let mut bytes = vec![7u8; 3 * stride + 16];
            let mut scales = Guarded::new(3);
            kernels.quantize_rows(&x, k, &mut bytes[8..8 + 3 * stride], scales.inside());
            assert!(bytes[..8].iter().chain(&bytes[8 + 3 * stride..]).all(|b| *b == 7), "wrote outside");
            let scales = scales.checked();
            for (r, scale) in scales.iter().enumerate() {
                let (q, padding) = bytes[8 + r * stride..][..stride].split_at(k);
                assert!(padding.iter().all(|b| *b == 128));
                let x = &x[r * k..][..k];
                let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                assert_eq!(*scale, if k == 0 { 1.0 } else { max / 127.0 });
                for (&q, &x) in q.iter().zip(x) {
                    let exact = f64::from(x) * f64::from(127.0 / max);
                    assert_eq!(i32::from(q) - 128, exact.round_ties_even() as i32);
                    let step = f64::from(*scale);
                    let error = (f64::from(i32::from(q) - 128) * step - f64::from(x)).abs();
                    assert!(error <= step * (0.5 + 127.0 * 3.0 * EPS), "{x} became {q}·{scale}");
                }
            }
        }
        // (row, scale, every byte or only the first)
        let quantize = |x: &[f32]| {
            let (mut bytes, mut scale) = (vec![7u8; quantized_stride(x.len())], [7.0]);
            kernels.quantize_rows(x, x.len(), &mut bytes, &mut scale);
            (bytes, scale[0])
        };
        for zeros in [[0.0f32; 21], [-0.0; 21], [1e-40; 21]] {
            let (bytes, scale) = quantize(&zeros);
            assert!(scale == 1.0 && bytes.iter().all(|b| *b == 128));
        }
        for (at, poison) in [(0, f32::NAN), (20, f32::NAN), (3, f32::INFINITY), (17, f32::NEG_INFINITY)] {
            let mut x = [1.0; 21];
            x[at] = poison;
            let (bytes, scale) = quantize(&x);
            assert!(scale.is_nan() && bytes.iter().all(|b| *b == 128));
        }
        assert_eq!(quantize(&[f32::MAX, f32::MIN, 0.0]).0, [255, 1, 128, 128]);
        // Ties go to the even integer.
        assert_eq!(
            quantize(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5]).0,
            [255, 128, 130, 130, 128, 126, 126, 132]
        );
    }
}

#[test]
fn dropout_is_a_function_of_key_and_index() {
    let n = 100_000;
    for kernels in rows() {
        let factors = |key: u64, first: u64, rate: f32, n: usize| {
            let mut x = Guarded::of(&vec![1.0; n]);
            kernels.dropout(x.inside(), Dropout { key, first, rate });
            x.checked()
        };
        for rate in [0.1f32, 0.5, 0.9] {
            let kept = 1.0 / (1.0 - rate);
            let a = factors(1, 0, rate, n);
            let b = factors(2, 0, rate, n);
            assert!(a.iter().all(|x| *x == 0.0 || *x == kept));
            let fraction = |hits: usize, of: usize, expected: f64, what: &str| {
                let deviation = (expected * (1.0 - expected) / of as f64).sqrt();
                let found = hits as f64 / of as f64;
                assert!((found - expected).abs() <= 5.0 * deviation, "{what}: {found} for {expected}");
            };
            let q = f64::from(rate);
            fraction(a.iter().filter(|x| **x == 0.0).count(), n, q, "dropped");
            let both = a.iter().zip(&b).filter(|(a, b)| **a == 0.0 && **b == 0.0).count();
            fraction(both, n, q * q, "dropped under two keys");
            for lag in [1, 2, 16, 64, 768] {
                let pairs = a.iter().zip(&a[lag..]).filter(|(a, b)| **a == 0.0 && **b == 0.0).count();
                fraction(pairs, n - lag, q * q, "dropped together");
            }
            let far = factors(1, 1 << 32, rate, n);
            let both = a.iter().zip(&far).filter(|(a, b)| **a == 0.0 && **b == 0.0).count();
            fraction(both, n, q * q, "dropped 2³² apart");
        }
        // Any piece of a stream is that piece, across the middle of the index too.
        for start in [0, 5, (1 << 32) - 50, u64::from(u32::MAX) - 15] {
            let whole = factors(9, start, 0.3, 200);
            for (skip, n) in [(0, 200), (1, 17), (33, 100), (199, 1), (7, 0)] {
                assert_eq!(factors(9, start + skip, 0.3, n), whole[skip as usize..][..n]);
            }
        }
        let mut x = Random(1).normals(50);
        let before = x.clone();
        kernels.dropout(&mut x, Dropout { key: 1, first: 0, rate: 0.0 });
        assert_eq!(x, before);
    }
}

#[test]
fn adamw_follows_pytorch_and_keeps_pruned_weights_at_0() {
    for kernels in rows() {
        for n in SIZES {
            let mut random = Random(n as u64);
            let mask: Vec<u8> = (0..n).map(|_| u8::from(random.unit() < 0.7)).collect();
            for mask in [None, Some(&mask[..])] {
                let start = random.normals(n);
                let (mut w, mut m, mut v) =
                    (Guarded::of(&start), Guarded::of(&vec![0.0; n]), Guarded::of(&vec![0.0; n]));
                let mut truth: Vec<[f64; 3]> = start.iter().map(|&w| [f64::from(w), 0.0, 0.0]).collect();
                for t in 1..=20 {
                    let mut g = random.normals(n);
                    if let Some(mask) = mask {
                        // A pruned weight must shrug off even this.
                        g.iter_mut()
                            .zip(mask)
                            .filter(|(_, kept)| **kept == 0)
                            .for_each(|(g, _)| *g = f32::NAN);
                    }
                    let step = AdamWStep {
                        learning_rate: 2e-3,
                        beta1: 0.9,
                        beta2: 0.999,
                        eps: 1e-8,
                        weight_decay: 0.01,
                        clip_scale: 0.5,
                        bias_correction1: 1.0 - 0.9f64.powi(t),
                        bias_correction2: 1.0 - 0.999f64.powi(t),
                    };
                    let tensors = AdamW { w: w.inside(), m: m.inside(), v: v.inside(), g: &g, mask };
                    kernels.adamw(tensors, &step);
                    for ([w, m, v], g) in truth.iter_mut().zip(&g) {
                        let g = 0.5 * f64::from(*g);
                        *w *= 1.0 - 2e-3 * 0.01;
                        *m = 0.9 * *m + 0.1 * g;
                        *v = 0.999 * *v + 0.001 * g * g;
                        let root = v.sqrt() / step.bias_correction2.sqrt() + 1e-8;
                        *w -= 2e-3 * (*m / step.bias_correction1) / root;
                    }
                }
                let (w, m, v) = (w.checked(), m.checked(), v.checked());
                for i in 0..n {
                    if mask.is_some_and(|mask| mask[i] == 0) {
                        assert!([w[i], m[i], v[i]].iter().all(|x| x.to_bits() == 0));
                        continue;
                    }
                    let [true_w, true_m, true_v] = truth[i];
                    // Four roundings a step, of values that m and v forget or that w's size bounds.
                    assert!((f64::from(m[i]) - true_m).abs() <= 40.0 * EPS);
                    assert!((f64::from(v[i]) - true_v).abs() <= 80.0 * EPS * true_v);
                    let bound = 20.0 * EPS * (2.0 * f64::from(start[i].abs()) + 0.1);
                    assert!((f64::from(w[i]) - true_w).abs() <= bound, "w[{i}]: {} for {true_w}", w[i]);
                }
            }
        }
    }
}

/// The bits of every float kernel's results for one size.
fn results(kernels: Kernels, n: usize) -> Vec<(&'static str, Vec<u32>)> {
    let mut random = Random(n as u64 + 77);
    let rows = 3;
    let [mut x, dy] = [(); 2].map(|()| random.normals(rows * n));
    // Some of every size, denormals among them.
    x.iter_mut().step_by(7).for_each(|x| *x *= 1e-39);
    x.iter_mut().step_by(5).for_each(|x| *x *= 20.0);
    let [gamma, beta] = [(); 2].map(|()| random.normals(n));
    let mut out: Vec<(&'static str, Vec<u32>)> = Vec::new();
    let mut keep = |name, values: &[f32]| out.push((name, values.iter().map(|x| x.to_bits()).collect()));

    keep("exp", &map(&x, |x, y| kernels.exp(x, y)));
    keep("gelu_forward", &map(&x, |x, y| kernels.gelu_forward(x, y)));
    keep("gelu_backward", &map(&x, |x, y| kernels.gelu_backward(x, &dy, y)));
    keep("relu_forward", &map(&x, |x, y| kernels.relu_forward(x, y)));
    keep("relu_backward", &map(&x, |x, y| kernels.relu_backward(x, &dy, y)));
    keep("tanh_forward", &map(&x, |x, y| kernels.tanh_forward(x, y)));
    keep("tanh_backward", &map(&x, |x, y| kernels.tanh_backward(x, &dy, y)));
    let mut y = x.clone();
    kernels.softmax_row(&mut y);
    keep("softmax_row", &y);
    let [y, mean, rstd] = layer_norm(kernels, &x, &gamma, &beta, rows);
    for (name, values) in [("layer_norm_forward", &y), ("mean", &mean), ("rstd", &rstd)] {
        keep(name, values);
    }
    let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], gamma.clone(), beta.clone());
    let mut into = LayerNormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta };
    kernels.layer_norm_backward(&dy, &x, &gamma, &mean, &rstd, &mut into);
    for (name, values) in [("layer_norm dx", &dx), ("dgamma", &dgamma), ("dbeta", &dbeta)] {
        keep(name, values);
    }
    let mut y = dy.clone();
    kernels.add(&x, &mut y);
    keep("add", &y);
    kernels.scale(&mut y, 0.7);
    keep("scale", &y);
    kernels.dropout(&mut y, Dropout { key: 3, first: u64::from(u32::MAX) - 20, rate: 0.3 });
    keep("dropout", &y);
    let mut db = beta.clone();
    kernels.column_sums(&dy.repeat(5), &mut db);
    keep("column_sums", &db);
    let squares = kernels.sum_squares(&x).to_bits();
    keep("sum_squares", &[f32::from_bits(squares as u32), f32::from_bits((squares >> 32) as u32)]);
    let (mut bytes, mut scales) = (vec![0; rows * quantized_stride(n)], [0.0; 3]);
    kernels.quantize_rows(&x, n, &mut bytes, &mut scales);
    keep("quantize_rows", &bytes.iter().map(|b| f32::from(*b)).chain(scales).collect::<Vec<_>>());
    let q: Vec<i8> = bytes.iter().map(|b| b.wrapping_sub(128).cast_signed()).take(n).collect();
    let mut y = gamma.clone();
    kernels.dequantize_row(&q, 0.013, &mut y, true);
    keep("dequantize_row", &y);
    let (mut w, mut m, mut v) = (x.clone(), dy.clone(), x.iter().map(|x| x * x).collect::<Vec<_>>());
    let step = AdamWStep {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        clip_scale: 0.3,
        bias_correction1: 0.1,
        bias_correction2: 0.001,
    };
    kernels.adamw(AdamW { w: &mut w, m: &mut m, v: &mut v, g: &dy, mask: None }, &step);
    for (name, values) in [("adamw w", &w), ("adamw m", &m), ("adamw v", &v)] {
        keep(name, values);
    }
    out
}

#[test]
fn every_row_gives_the_same_bits() {
    let rows = rows();
    for n in SIZES {
        let reference = results(rows[0], n);
        for &kernels in &rows[1..] {
            for ((name, found), (_, reference)) in results(kernels, n).iter().zip(&reference) {
                assert!(found == reference, "{name}/{n}: {} differs from {}", kernels.isa(), rows[0].isa());
            }
        }
    }
}
