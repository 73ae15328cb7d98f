//! exp, tanh, GELU and ReLU.

use crate::harness::{EPS, Random, SIZES, assert_slope, rows, ulps, worst};
use crate::map;
use crate::oracle::{self, Sum, assert_close};

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
        let worst = worst(x.iter().zip(&y).map(|(x, y)| ulps(*y, f64::from(*x).exp())));
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
        let worst = worst(x.iter().zip(&y).map(|(x, y)| ulps(*y, f64::from(*x).tanh())));
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
        let (mut errors, mut slope_errors) = (Vec::new(), Vec::new());
        for ((&x, &y), &slope) in x.iter().zip(&y).zip(&slopes) {
            let truth = oracle::gelu(f64::from(x));
            let error = (f64::from(y) - truth).abs();
            errors.push(error / f64::from(x.abs().max(1.0)));
            // To the far end of the tail the error stays relative: that of e^(−x²/2) is x²·ε.
            let bound = (12.0 + f64::from(x * x)) * EPS * truth.abs() + f64::from(f32::MIN_POSITIVE);
            assert!(error <= bound, "{}: gelu({x}) = {y}, not {truth}", kernels.isa());
            slope_errors.push((f64::from(slope) - oracle::gelu_slope(f64::from(x))).abs());
            assert!(y == 0.0 || (y < 0.0) == (x < 0.0), "the sign of gelu({x}) = {y}");
            assert!(y.abs() <= x.abs(), "the size of gelu({x}) = {y}");
        }
        let (worst, worst_slope) = (worst(errors), worst(slope_errors));
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
            let mut random = Random::new(n as u64);
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
