//! The operations in f64, as plain loops over the texts of [`batch`].

use super::harness::{LENGTHS, TEXTS, batch};
use limbeck::models::config::Activation;

/// `erf(x)`, from the series of positive terms (Abramowitz and Stegun 7.1.6).
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

fn activate(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::Identity => z,
        Activation::Gelu => z * 0.5 * (1.0 + erf(z / 2.0_f64.sqrt())),
        Activation::Relu => z.max(0.0),
        Activation::Tanh => z.tanh(),
    }
}

/// `activation(x·Wᵀ + b)`.
pub fn linear(x: &[f64], w: &[f64], b: &[f64], rows: usize, activation: Activation) -> Vec<f64> {
    let (inputs, outputs) = (x.len() / rows, b.len());
    let mut y = Vec::new();
    for row in 0..rows {
        for output in 0..outputs {
            let products = (0..inputs).map(|i| x[row * inputs + i] * w[output * inputs + i]);
            y.push(activate(activation, b[output] + products.sum::<f64>()));
        }
    }
    y
}

pub fn norm(x: &[f64], gamma: &[f64], beta: &[f64], eps: f64) -> Vec<f64> {
    let size = gamma.len();
    let mut y = Vec::new();
    for row in x.chunks(size) {
        let mean = row.iter().sum::<f64>() / size as f64;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / size as f64;
        let rstd = 1.0 / (variance + eps).sqrt();
        y.extend((0..size).map(|i| (row[i] - mean) * rstd * gamma[i] + beta[i]));
    }
    y
}

/// Attention over the texts of [`batch`]; the factor on a probability is `dropout(text, head, query, key)`.
pub fn attention(
    [q, k, v]: [&[f64]; 3],
    [heads, size]: [usize; 2],
    first_only: bool,
    dropout: &dyn Fn(usize, usize, usize, usize) -> f64,
) -> Vec<f64> {
    attention_within([q, k, v], [heads, size], first_only, dropout, &|_, _, _| true)
}

/// As [`attention`], of a query to those keys of its text that `sees(text, query, key)`.
pub fn attention_within(
    [q, k, v]: [&[f64]; 3],
    [heads, size]: [usize; 2],
    first_only: bool,
    dropout: &dyn Fn(usize, usize, usize, usize) -> f64,
    sees: &dyn Fn(usize, usize, usize) -> bool,
) -> Vec<f64> {
    let (width, mut y, mut first) = (heads * size, Vec::new(), 0);
    for (text, length) in LENGTHS.into_iter().enumerate() {
        for query in 0..if first_only { 1 } else { length } {
            let row = if first_only { text } else { first + query };
            let mut context = vec![0.0; width];
            for head in 0..heads {
                let at = |x: &[f64], row: usize, i: usize| x[row * width + head * size + i];
                let dot = |key| (0..size).map(|i| at(q, row, i) * at(k, first + key, i)).sum::<f64>();
                let weight = |key| {
                    if sees(text, query, key) { (dot(key) / (size as f64).sqrt()).exp() } else { 0.0 }
                };
                let weights: Vec<f64> = (0..length).map(weight).collect();
                let all: f64 = weights.iter().sum();
                for (key, weight) in weights.iter().enumerate() {
                    let p = weight / all * dropout(text, head, query, key);
                    (0..size).for_each(|i| context[head * size + i] += p * at(v, first + key, i));
                }
            }
            y.extend(context);
        }
        first += length;
    }
    y
}

pub fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

pub fn embed(x: &[Vec<f64>], types: bool, hidden: usize) -> Vec<f64> {
    let (batch, mut sums) = (batch(), Vec::new());
    for text in 0..TEXTS {
        for (place, t) in batch.text(text).enumerate() {
            for i in 0..hidden {
                let word = x[0][batch.ids[t] as usize * hidden + i] + x[1][place * hidden + i];
                let of_type = |kind: u8| x[2][usize::from(kind) * hidden + i];
                sums.push(word + if types { of_type(batch.token_types[t]) } else { 0.0 });
            }
        }
    }
    let after = if types { 3 } else { 2 };
    norm(&sums, &x[after], &x[after + 1], 1e-3)
}
