//! A text classifier in f64, one text at a time, straight from the formulas; and the same with the rounding of
//! dynamic int8, attention included. Slow, and written without the engine's operations.

use limbeck::models::config::{Activation, Pooling};
use limbeck::models::{Classifier, ModelConfig};
use limbeck::nn::{LayerNorm, Linear, ParamId, ParamSpec, Role};
use limbeck::{Result, Text};
use limbeck_kernels::random::SplitMix64;
use std::cell::RefCell;

type Rows = Vec<Vec<f64>>;

/// A network's values, rounded to int8 and back where asked.
pub struct Oracle {
    classifier: Classifier,
    specs: Vec<ParamSpec>,
    values: Vec<Vec<f64>>,
    int8: bool,
    /// Noise on what is about to be rounded.
    noise: Option<RefCell<SplitMix64>>,
}

impl Oracle {
    pub fn new(
        config: &ModelConfig,
        mut values: impl FnMut(&ParamSpec) -> Result<Vec<f32>>,
        int8: bool,
    ) -> Oracle {
        let (classifier, specs) = Classifier::new(config);
        let load = |spec: &ParamSpec| {
            let mut values: Vec<f64> = values(spec).unwrap().into_iter().map(f64::from).collect();
            if int8 && matches!(spec.role, Role::Weight | Role::Embedding) {
                values.chunks_mut(spec.cols.max(1)).for_each(round);
            }
            values
        };
        let values = specs.iter().map(load).collect();
        Oracle { classifier, specs, values, int8, noise: None }
    }

    /// The same, but that whatever is rounded to int8 is off before by up to 1e-6 of the largest value of its row, as sums
    /// in f32 are that go through a norm: what comes out says how far the roundings carry that.
    pub fn with_noise(self, seed: u64) -> Oracle {
        Oracle { noise: Some(RefCell::new(SplitMix64::new(seed))), ..self }
    }

    /// The same with something added to each element of one parameter.
    pub fn shifted(mut self, id: ParamId, by: impl Fn(usize) -> f64) -> Oracle {
        self.values[id.index()].iter_mut().enumerate().for_each(|(i, value)| *value += by(i));
        self
    }

    /// To int8 and back.
    fn round(&self, row: &mut [f64]) {
        if let Some(noise) = &self.noise {
            let mut noise = noise.borrow_mut();
            let largest = row.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
            row.iter_mut().for_each(|x| *x += 1e-6 * largest * f64::from(noise.signed_unit()));
        }
        round(row);
    }

    fn row(&self, id: ParamId, index: usize) -> &[f64] {
        let cols = self.specs[id.index()].cols;
        &self.values[id.index()][index * cols..(index + 1) * cols]
    }

    fn linear(&self, layer: &Linear, x: &Rows) -> Rows {
        self.project(layer, x, self.int8)
    }

    /// A layer that rounds what it reads, or not.
    fn project(&self, layer: &Linear, x: &Rows, rounds: bool) -> Rows {
        if let Some(down) = layer.first() {
            let x = self.project(&down, x, rounds);
            return self.project(&Linear { down: None, ..layer.clone() }, &x, rounds);
        }
        let apply = |x: &Vec<f64>| {
            let mut x = x.clone();
            if rounds {
                self.round(&mut x);
            }
            let output = |n: usize| {
                let sum: f64 = x.iter().zip(self.row(layer.weight, n)).map(|(x, w)| x * w).sum();
                activate(layer.activation, sum + layer.bias.map_or(0.0, |bias| self.row(bias, 0)[n]))
            };
            (0..layer.outputs).map(output).collect()
        };
        x.iter().map(apply).collect()
    }

    fn norm(&self, norm: &LayerNorm, x: Rows) -> Rows {
        let apply = |x: Vec<f64>| {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (variance + f64::from(norm.eps)).sqrt();
            let (gamma, beta) = (self.row(norm.gamma, 0), self.row(norm.beta, 0));
            x.iter()
                .zip(gamma.iter().zip(beta))
                .map(|(x, (gamma, beta))| (x - mean) * scale * gamma + beta)
                .collect()
        };
        x.into_iter().map(apply).collect()
    }

    fn attend(&self, query: Rows, key: Rows, value: Rows, [heads, size]: [usize; 2], rounds: bool) -> Rows {
        let mut context = vec![vec![0.0; heads * size]; query.len()];
        for head in 0..heads {
            let part = |rows: &Rows| -> Rows {
                rows.iter().map(|row| row[head * size..(head + 1) * size].to_vec()).collect()
            };
            let [mut query, mut key, mut value] = [&query, &key, &value].map(part);
            if rounds {
                query.iter_mut().chain(&mut key).for_each(|row| self.round(row));
                for feature in 0..size {
                    let mut column: Vec<f64> = value.iter().map(|row| row[feature]).collect();
                    self.round(&mut column);
                    value.iter_mut().zip(column).for_each(|(row, x)| row[feature] = x);
                }
            }
            for (query, context) in query.iter().zip(&mut context) {
                let scores: Vec<f64> = key.iter().map(|key| dot(query, key) / (size as f64).sqrt()).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let mut weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                if rounds {
                    weights.iter_mut().for_each(|weight| *weight = (254.0 * *weight).round_ties_even());
                }
                let sum: f64 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&value) {
                    let context = &mut context[head * size..(head + 1) * size];
                    context.iter_mut().zip(value).for_each(|(c, value)| *c += weight / sum * value);
                }
            }
        }
        context
    }

    /// The logits of a sentence.
    pub fn logits(&self, ids: &[u32]) -> Vec<f64> {
        self.logits_of(ids.into())
    }

    /// The logits of one text, whose second sentence is of type 1. In decoupled layers attention is block-diagonal.
    pub fn logits_of(&self, Text { ids, first }: Text<'_>) -> Vec<f64> {
        let tables = &self.classifier.embeddings;
        let words: Rows = ids.iter().map(|&id| self.row(tables.words, id as usize).to_vec()).collect();
        let words = tables.projection.as_ref().map_or(words.clone(), |layer| self.linear(layer, &words));
        let embed = |(place, word): (usize, &Vec<f64>)| {
            let mut row = add(word, self.row(tables.positions, place));
            if let Some(types) = tables.token_types {
                row = add(&row, self.row(types, usize::from(place >= first)));
            }
            row
        };
        let mut x = self.norm(&tables.norm, words.iter().enumerate().map(embed).collect());
        for (index, layer) in self.classifier.layers.iter().enumerate() {
            let attention = &layer.attention;
            // Of the last layer one row is read; its keys and values are never rounded, nor made of rounded rows.
            let last = index + 1 == self.classifier.layers.len();
            let absorbed = last && self.classifier.config.pooling != Pooling::Mean && attention.absorbs();
            let rounds = self.int8 && !absorbed;
            let query = self.linear(&attention.query, &x);
            let [key, value] =
                [&attention.key, &attention.value].map(|linear| self.project(linear, &x, rounds));
            let size = attention.attend.head_size;
            let sizes = [attention.attend.heads, size];
            let context = if index < self.classifier.config.decoupled {
                let [mut one, two] = [0..first, first..ids.len()].map(|sentence| {
                    let [query, key, value] =
                        [&query, &key, &value].map(|rows| rows[sentence.clone()].to_vec());
                    self.attend(query, key, value, sizes, rounds)
                });
                one.extend(two);
                one
            } else {
                self.attend(query, key, value, sizes, rounds)
            };
            let attended = self.linear(&attention.output, &context);
            x = self.norm(&layer.attention_norm, add_rows(&x, &attended));
            let y = self.linear(&layer.contract, &self.linear(&layer.expand, &x));
            x = self.norm(&layer.output_norm, add_rows(&x, &y));
        }
        let pooled = match self.classifier.config.pooling {
            Pooling::Mean => {
                let sum = x.iter().skip(1).fold(x[0].clone(), |sum, row| add(&sum, row));
                sum.iter().map(|sum| sum / x.len() as f64).collect()
            }
            Pooling::FirstToken | Pooling::Pooler => x[0].clone(),
        };
        let head = &self.classifier.head;
        let dense =
            head.dense.as_ref().map_or(vec![pooled.clone()], |dense| self.linear(dense, &vec![pooled]));
        self.linear(&head.classifier, &dense).remove(0)
    }
}

/// To 127 steps on either side of zero, and back.
fn round(row: &mut [f64]) {
    let largest = row.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    if largest > 0.0 {
        let scale = largest / 127.0;
        row.iter_mut().for_each(|x| *x = (*x / scale).round_ties_even() * scale);
    }
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn add_rows(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| add(a, b)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn activate(how: Activation, x: f64) -> f64 {
    match how {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x * 0.5 * (1.0 + erf(x / 2.0f64.sqrt())),
    }
}

/// Abramowitz and Stegun 7.1.6, whose terms all have one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}
