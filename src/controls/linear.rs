//! The linear classifier: multinomial logistic regression on hashed features, by AdaGrad.
//!
//! For a text x with label y, `logits = W x + b`, and the loss is `-ln softmax(logits)[y] + λ/2 · Σ w²` over the weights
//! of the features that the text has: weights that no text asks for stay 0 and pay nothing. Its gradient is
//! `∂/∂w[j, c] = x[j] · (softmax(logits)[c] - [c = y]) + λ · w[j, c]`. A step divides each by the root of the sum of
//! its squares so far (Duchi, Hazan and Singer, 2011), so that rare words learn as fast as common ones.

use super::Features;
use crate::data::TokenSet;
use crate::train::order::shuffled;
use crate::train::progress::Progress;
use crate::{Error, Result};
use limbeck_kernels::random::mix;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// Added to the sum of squares, before any.
const START: f32 = 1e-6;

/// Texts between two looks at the flag that stops.
const BLOCK: usize = 1024;

/// How a linear classifier is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Features; what hashes to the same one is the same one. 1 or more.
    pub buckets: usize,
    /// Passes over the texts.
    pub epochs: usize,
    /// AdaGrad's step.
    pub learning_rate: f32,
    /// λ: what large weights cost.
    pub l2: f32,
    /// Of the order of the texts.
    pub seed: u64,
}

/// A linear classifier of texts, given as the ids of their words.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Names of the classes, in the order of the logits.
    pub(super) labels: Vec<String>,
    /// Number of features.
    pub(super) buckets: usize,
    /// `[buckets, classes]`, row-major.
    pub(super) weight: Vec<f32>,
    /// `[classes]`.
    pub(super) bias: Vec<f32>,
}

impl Linear {
    /// One that knows nothing yet.
    pub fn new(labels: &[String], buckets: usize) -> Linear {
        let classes = labels.len();
        Linear {
            labels: labels.to_vec(),
            buckets,
            weight: vec![0.0; buckets * classes],
            bias: vec![0.0; classes],
        }
    }

    /// Learns the texts `rows` of `texts`, whose ids are words. A function of its arguments, and of the platform's exponential.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn train(
        texts: &TokenSet,
        rows: Range<usize>,
        settings: &Settings,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<Linear> {
        let mut model = Linear::new(texts.labels(), settings.buckets);
        let mut squares = vec![START; model.weight.len() + model.bias.len()];
        let (mut features, mut logits) = (Features::default(), Vec::new());
        progress.begin("n-grams", (settings.epochs * rows.len()) as u64);
        for epoch in 0..settings.epochs {
            let order = shuffled(rows.len(), mix(mix(settings.seed) ^ epoch as u64));
            for block in order.chunks(BLOCK) {
                Error::if_stopped(stop)?;
                for text in block {
                    let text = rows.start + *text as usize;
                    features.refill(texts.tokens(text), settings.buckets);
                    model.step(&features, texts.label(text), settings, &mut squares, &mut logits);
                }
                progress.advance(block.len() as u64);
            }
        }
        progress.end();
        Ok(model)
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.labels.len()
    }

    /// Names of the classes, in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Number of features.
    pub fn buckets(&self) -> usize {
        self.buckets
    }

    /// Weights and biases, and how many of them are 0.
    pub fn parameters(&self) -> [u64; 2] {
        let all = || self.weight.iter().chain(&self.bias);
        [all().count() as u64, all().filter(|value| **value == 0.0).count() as u64]
    }

    /// Replaces `logits` by those of a text's features, `[classes]`.
    pub fn logits(&self, features: &Features, logits: &mut Vec<f32>) {
        logits.clear();
        logits.extend_from_slice(&self.bias);
        for (bucket, value) in features.iter() {
            let row = &self.weight[bucket * self.classes()..][..self.classes()];
            logits.iter_mut().zip(row).for_each(|(logit, weight)| *logit += value * weight);
        }
    }

    fn step(
        &mut self,
        features: &Features,
        label: usize,
        settings: &Settings,
        squares: &mut [f32],
        errors: &mut Vec<f32>,
    ) {
        self.logits(features, errors);
        softmax_less(errors, label);
        let (classes, of_bias) = (self.classes(), self.weight.len());
        let update = |value: &mut f32, square: &mut f32, gradient: f32| {
            *square += gradient * gradient;
            *value -= settings.learning_rate * gradient / square.sqrt();
        };
        for (bucket, value) in features.iter() {
            let at = bucket * classes;
            for (class, error) in errors.iter().enumerate() {
                let weight = &mut self.weight[at + class];
                let gradient = value * error + settings.l2 * *weight;
                update(weight, &mut squares[at + class], gradient);
            }
        }
        for (class, error) in errors.iter().enumerate() {
            update(&mut self.bias[class], &mut squares[of_bias + class], *error);
        }
    }
}

/// Turns logits into the loss's gradient by them: probabilities, less 1 for the label.
fn softmax_less(logits: &mut [f32], label: usize) {
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    logits.iter_mut().for_each(|logit| *logit = (*logit - highest).exp());
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|value| *value /= sum);
    logits[label] -= 1.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::Words;
    use crate::data::Example;
    use crate::models::highest;
    use crate::train::progress::Silent;
    use limbeck_kernels::random::SplitMix64;

    const SETTINGS: Settings =
        Settings { buckets: 1 << 12, epochs: 4, learning_rate: 0.5, l2: 1e-6, seed: 3 };

    /// Texts of filler words; one word, or the order of two, says the class.
    fn texts(count: usize) -> TokenSet {
        let mut random = SplitMix64::new(5);
        let example = |i: usize| {
            let mut filler = || format!("w{}", random.below(50));
            let (a, b, c) = (filler(), filler(), filler());
            let key = ["yes", "no", "left right", "right left"][i % 4];
            Example { label: i % 4, text: format!("{a} {b} {key} {c}") }
        };
        let labels = ["a", "b", "c", "d"].map(str::to_owned);
        let examples: Vec<Example> = (0..count).map(example).collect();
        TokenSet::from_examples(&examples, &labels, &Words, 256)
    }

    fn trained(texts: &TokenSet, settings: &Settings) -> Linear {
        Linear::train(texts, 0..texts.len(), settings, &Silent, &AtomicBool::new(false)).unwrap()
    }

    fn right(model: &Linear, texts: &TokenSet) -> usize {
        let (mut features, mut logits) = (Features::default(), Vec::new());
        let is_right = |text: &usize| {
            features.refill(texts.tokens(*text), model.buckets());
            model.logits(&features, &mut logits);
            highest(&logits) == texts.label(*text)
        };
        (0..texts.len()).filter(is_right).count()
    }

    #[test]
    fn words_and_their_order_are_learnt() {
        let texts = texts(800);
        let model = trained(&texts, &SETTINGS);
        assert!(right(&model, &texts) >= 796, "{} of 800", right(&model, &texts));
        assert_eq!(trained(&texts, &SETTINGS), model, "the same every time");
        assert_ne!(trained(&texts, &Settings { seed: 4, ..SETTINGS }), model);
        let small = trained(&texts, &Settings { l2: 0.1, ..SETTINGS });
        let norm = |model: &Linear| model.weight.iter().map(|w| w * w).sum::<f32>();
        assert!(norm(&small) < 0.5 * norm(&model), "{} and {}", norm(&small), norm(&model));
        let [all, zeros] = model.parameters();
        assert!(all == 4 * (1 << 12) + 4 && zeros > 0 && zeros < all);
    }

    #[test]
    fn a_signal_stops_it() {
        let found = Linear::train(&texts(4), 0..4, &SETTINGS, &Silent, &AtomicBool::new(true));
        assert!(matches!(found, Err(Error::Interrupted { .. })));
    }

    /// In f64, written down from the formula.
    fn loss(model: &Linear, features: &Features, label: usize, l2: f64) -> f64 {
        let classes = model.classes();
        let mut logits: Vec<f64> = model.bias.iter().map(|bias| f64::from(*bias)).collect();
        let mut penalty = 0.0;
        for (bucket, value) in features.iter() {
            for (class, logit) in logits.iter_mut().enumerate() {
                let weight = f64::from(model.weight[bucket * classes + class]);
                *logit += f64::from(value) * weight;
                penalty += weight * weight;
            }
        }
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        sum.ln() - logits[label] + l2 / 2.0 * penalty
    }

    /// A first step of AdaGrad is `rate · g / √(g² + START)`, from which the gradient follows; the oracle's are central
    /// differences.
    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let labels = ["a", "b", "c"].map(str::to_owned);
        let mut model = Linear::new(&labels, 16);
        let mut random = SplitMix64::new(11);
        model.weight.iter_mut().chain(&mut model.bias).for_each(|value| *value = random.signed_unit());
        let mut features = Features::default();
        features.refill(&[3, 5, 5, 8, 13], 16);
        let settings = Settings { buckets: 16, epochs: 1, learning_rate: 1.0, l2: 0.05, seed: 0 };
        let squares = vec![START; 16 * 3 + 3];
        let (mut after, mut moved) = (model.clone(), squares.clone());
        after.step(&features, 1, &settings, &mut moved, &mut Vec::new());
        let gradients: Vec<f64> = (model.weight.iter().chain(&model.bias))
            .zip(after.weight.iter().chain(&after.bias))
            .zip(moved.iter().zip(&squares))
            .map(|((before, after), (square, start))| {
                let root = f64::from(*square - *start).max(0.0).sqrt();
                root.copysign(f64::from(before - after))
            })
            .collect();
        let step = 1e-3;
        let mut seen = 0;
        for (place, gradient) in gradients.iter().enumerate() {
            let at = |by: f32| {
                let mut shifted = model.clone();
                let weights = shifted.weight.len();
                *(if place < weights {
                    &mut shifted.weight[place]
                } else {
                    &mut shifted.bias[place - weights]
                }) += by;
                loss(&shifted, &features, 1, f64::from(settings.l2))
            };
            let expected = (at(step) - at(-step)) / (2.0 * f64::from(step));
            let touched = place >= 48 || features.iter().any(|(bucket, _)| bucket == place / 3);
            let expected = if touched { expected } else { 0.0 };
            // f32 rounds the shifts, by 2⁻²⁴ of about 1 in 10⁻³, and the sum of squares.
            assert!((gradient - expected).abs() <= 4e-4, "{place}: {gradient}, expected {expected}");
            seen += usize::from(gradient.abs() > 0.01);
        }
        assert!(seen > 10);
    }
}
