//! The oracle of the row kernels: the most obvious loops, in f64. Sums come with the magnitude Σ|terms|
//! that produced them, from which tests derive what rounding may do.

pub mod attention;

use super::harness::EPS;

/// A value and the magnitude of the terms that were added up to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub value: f64,
    pub magnitude: f64,
}

impl Sum {
    pub fn add(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
    }
}

pub fn values(sums: &[Sum]) -> Vec<f64> {
    sums.iter().map(|sum| sum.value).collect()
}

/// Asserts |found − value| ≤ factor·ε·magnitude for every element, and that the factor leaves the bound
/// far below the magnitude, so that the assertion can fail.
pub fn assert_close(what: &str, found: &[f32], truth: &[Sum], factor: f64) {
    assert_eq!(found.len(), truth.len(), "{what}");
    assert!(factor * EPS < 1e-3, "{what}: a vacuous bound");
    for (i, (&found, truth)) in found.iter().zip(truth).enumerate() {
        let error = (f64::from(found) - truth.value).abs();
        let bound = factor * EPS * truth.magnitude + f64::from(f32::MIN_POSITIVE);
        assert!(error <= bound, "{what}[{i}]: {found} for {}, error {error:e} over {bound:e}", truth.value);
    }
}

/// Φ, by its Taylor series near 0 and by the continued fraction of the tail beyond (Abramowitz and
/// Stegun, 26.2.11 and 26.2.14).
pub fn normal_distribution(x: f64) -> f64 {
    let a = x.abs();
    let density = (-a * a / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let tail = if a < 4.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..200 {
            term *= a * a / (2 * n + 1) as f64;
            sum += term;
        }
        0.5 - density * sum
    } else {
        density / (1..=200).rev().fold(a, |fraction, n| a + n as f64 / fraction)
    };
    if x < 0.0 { tail } else { 1.0 - tail }
}

pub fn gelu(x: f64) -> f64 {
    x * normal_distribution(x)
}

pub fn gelu_slope(x: f64) -> f64 {
    normal_distribution(x) + x * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

pub fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().fold(f64::NEG_INFINITY, |max, x| max.max(*x));
    let powers: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// (mean, 1/√(variance + eps))
pub fn layer_norm_statistics(x: &[f64], eps: f64) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

pub fn layer_norm(x: &[f64], gamma: &[f64], beta: &[f64], eps: f64) -> Vec<f64> {
    let (mean, rstd) = layer_norm_statistics(x, eps);
    (0..x.len()).map(|i| (x[i] - mean) * rstd * gamma[i] + beta[i]).collect()
}

/// (dx, dgamma, dbeta) of one row.
pub fn layer_norm_gradients(
    dy: &[f64],
    x: &[f64],
    gamma: &[f64],
    mean: f64,
    rstd: f64,
) -> (Vec<Sum>, Vec<f64>, Vec<f64>) {
    let n = x.len() as f64;
    let x_hat: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
    let (mut sum, mut sum_x_hat) = (Sum::default(), Sum::default());
    for i in 0..x.len() {
        sum.add(dy[i] * gamma[i]);
        sum_x_hat.add(dy[i] * gamma[i] * x_hat[i]);
    }
    let dx = (0..x.len())
        .map(|i| {
            let mut dx = Sum::default();
            dx.add(rstd * dy[i] * gamma[i]);
            dx.value -= rstd * (sum.value + x_hat[i] * sum_x_hat.value) / n;
            dx.magnitude += rstd * (sum.magnitude + x_hat[i].abs() * sum_x_hat.magnitude) / n;
            dx
        })
        .collect();
    (dx, (0..x.len()).map(|i| dy[i] * x_hat[i]).collect(), dy.to_vec())
}
