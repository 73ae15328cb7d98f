//! Losses on logits, with their gradients: cross-entropy, and distillation from a teacher's logits.
//!
//! Logits are few (texts × classes), so losses are computed in f64; the CPU does it here, and a GPU by itself, so that a step
//! need not wait for the host between its halves.
//!
//! ```text
//! cross-entropy   L = mean over texts of -log softmax(s)[label]              ds = (softmax(s) - onehot) / texts
//! distillation    L = T² · mean over texts of KL(softmax(t/T) ‖ softmax(s/T))
//!                                                            ds = T · (softmax(s/T) - softmax(t/T)) / texts
//! ```
//!
//! (Hinton, Vinyals and Dean, arXiv:1503.02531; the mean over texts is PyTorch's `batchmean`, and T² keeps the
//! gradient's size when T changes.) Mixed, `alpha·distillation + (1 - alpha)·cross-entropy`.

#[cfg(feature = "cuda")]
mod cuda;

#[cfg(feature = "cuda")]
pub use cuda::Pending;

use crate::Result;
use crate::backend::{Cpu, Device};
use crate::tensor::Tensor;

/// How a student learns from a teacher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// T, above 0.
    pub temperature: f32,
    /// Weight of the distillation loss; the rest is cross-entropy.
    pub alpha: f32,
}

/// A loss and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// The sum that is minimized.
    pub total: f64,
    /// Mean cross-entropy.
    pub cross_entropy: f64,
    /// The distillation term, T² included, before alpha; 0 without a teacher.
    pub distillation: f64,
    /// By the logits: `[texts, classes]`.
    pub gradient: Vec<f32>,
}

/// What a loss is, and is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// The sum that is minimized.
    pub total: f64,
    /// Mean cross-entropy.
    pub cross_entropy: f64,
    /// The distillation term, T² included, before alpha; 0 without a teacher.
    pub distillation: f64,
}

impl Losses {
    /// Both terms, weighed.
    pub(in crate::ops) fn new(cross_entropy: f64, distillation: f64, alpha: f64) -> Losses {
        let total = alpha * distillation + (1.0 - alpha) * cross_entropy;
        Losses { total, cross_entropy, distillation }
    }
}

/// Losses on a device.
pub trait LossOps: Device {
    /// A loss that the host need not know yet.
    type Pending;

    /// The loss of `logits` (`[texts, classes]`) against labels (`[texts]`) and, if there is one, a teacher's logits
    /// (`[texts, classes]`); and `scale` times its gradient by the logits. Rows of logits behind those of texts that have a label
    /// do not count, and their gradient is zero.
    ///
    /// # Errors
    /// The device's.
    fn loss(
        &self,
        logits: &Tensor<Self>,
        labels: &[usize],
        teacher: Option<(&[f32], Distillation)>,
        scale: f64,
    ) -> Result<(Self::Pending, Tensor<Self>)>;

    /// Starts an asynchronous copy to the host, ordered after the work launched so far: later launches may reuse the memory.
    /// Does nothing where the host has the value already.
    ///
    /// # Errors
    /// The device's.
    fn start_losses_readback(&self, _pending: &mut Self::Pending) -> Result<()> {
        Ok(())
    }

    /// What it is: waits for the device.
    ///
    /// # Errors
    /// The device's: something that was launched has failed.
    fn losses(&self, pending: Self::Pending) -> Result<Losses>;
}

impl LossOps for Cpu {
    type Pending = Losses;

    fn loss(
        &self,
        logits: &Tensor<Self>,
        labels: &[usize],
        teacher: Option<(&[f32], Distillation)>,
        scale: f64,
    ) -> Result<(Losses, Tensor<Self>)> {
        let known = &logits.buffer()[..labels.len() * logits.cols()];
        let Loss { total, cross_entropy, distillation, mut gradient } = mixed(known, labels, teacher);
        if scale != 1.0 {
            gradient.iter_mut().for_each(|slope| *slope = (f64::from(*slope) * scale) as f32);
        }
        gradient.resize(logits.shape().len(), 0.0);
        let gradient = Tensor::upload(self, &gradient, logits.shape())?;
        Ok((Losses { total, cross_entropy, distillation }, gradient))
    }

    fn losses(&self, pending: Losses) -> Result<Losses> {
        Ok(pending)
    }
}

/// Mean cross-entropy of `logits` (`[texts, classes]`) against `labels` (`[texts]`).
pub fn cross_entropy(logits: &[f32], labels: &[usize]) -> Loss {
    mixed(logits, labels, None)
}

/// `alpha·T²·KL + (1 - alpha)·cross-entropy`, with the teacher's logits (`[texts, classes]`).
pub fn distillation(logits: &[f32], labels: &[usize], teacher: &[f32], how: Distillation) -> Loss {
    assert_eq!(logits.len(), teacher.len(), "a teacher's logit for each of the student's");
    mixed(logits, labels, Some((teacher, how)))
}

/// One teacher's logits for several: at this temperature their softmax is the mean of the others' softmaxes, each as
/// often as its weight says; weights add up to 1. `[texts, classes]`, as those of each teacher.
pub fn mean_teacher(teachers: &[Vec<f32>], weights: &[f64], classes: usize, temperature: f32) -> Vec<f32> {
    assert_eq!(teachers.len(), weights.len(), "a weight for each teacher");
    let (len, t) = (teachers.first().map_or(0, Vec::len), f64::from(temperature));
    let mut mean = Vec::with_capacity(len);
    for row in (0..len).step_by(classes.max(1)) {
        let logs: Vec<Vec<f64>> =
            teachers.iter().map(|logits| log_softmax(&logits[row..row + classes], t)).collect();
        for class in 0..classes {
            let terms: Vec<f64> =
                logs.iter().zip(weights).map(|(log, weight)| log[class] + weight.ln()).collect();
            let highest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = terms.iter().map(|term| (term - highest).exp()).sum();
            mean.push((t * (highest + sum.ln())) as f32);
        }
    }
    mean
}

fn mixed(logits: &[f32], labels: &[usize], teacher: Option<(&[f32], Distillation)>) -> Loss {
    let texts = labels.len();
    let classes = logits.len().checked_div(texts).unwrap_or(0);
    let alpha = teacher.map_or(0.0, |(_, how)| f64::from(how.alpha));
    let (mut cross_entropy, mut divergence) = (0.0, 0.0);
    let mut gradient = Vec::with_capacity(logits.len());
    for (text, (row, &label)) in logits.chunks(classes.max(1)).zip(labels).enumerate() {
        let log_p = log_softmax(row, 1.0);
        cross_entropy -= log_p[label];
        let mut ds: Vec<f64> = log_p.iter().map(|log_p| (1.0 - alpha) * log_p.exp()).collect();
        ds[label] -= 1.0 - alpha;
        if let Some((teacher, how)) = teacher {
            let t = f64::from(how.temperature);
            let log_q = log_softmax(&teacher[text * classes..(text + 1) * classes], t);
            for ((ds, log_p), log_q) in ds.iter_mut().zip(log_softmax(row, t)).zip(log_q) {
                divergence += t * t * log_q.exp() * (log_q - log_p);
                *ds += alpha * t * (log_p.exp() - log_q.exp());
            }
        }
        gradient.extend(ds.into_iter().map(|ds| (ds / texts as f64) as f32));
    }
    let mean = |sum: f64| if texts == 0 { 0.0 } else { sum / texts as f64 };
    let Losses { total, cross_entropy, distillation } =
        Losses::new(mean(cross_entropy), mean(divergence), alpha);
    Loss { total, cross_entropy, distillation, gradient }
}

/// `log softmax(row / temperature)`.
fn log_softmax(row: &[f32], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = row.iter().map(|&s| f64::from(s) / temperature).collect();
    let highest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scaled.iter().map(|s| (s - highest).exp()).sum();
    let log_sum = highest + sum.ln();
    scaled.into_iter().map(|s| s - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [0.3, -1.2, 2.0, 0.1, 0.4, -0.7];
    const TEACHER: [f32; 6] = [1.0, 0.5, -0.5, 3.0, -2.0, 0.25];
    const LABELS: [usize; 2] = [2, 0];

    fn check_gradient(loss: impl Fn(&[f32]) -> Loss) {
        let gradient = loss(&LOGITS).gradient;
        for i in 0..LOGITS.len() {
            let at = |step: f32| {
                let mut logits = LOGITS;
                logits[i] += step;
                (f64::from(logits[i]), loss(&logits).total)
            };
            let ((x1, y1), (x0, y0)) = (at(1.0 / 1024.0), at(-1.0 / 1024.0));
            let numeric = (y1 - y0) / (x1 - x0);
            assert!((numeric - f64::from(gradient[i])).abs() <= 1e-6, "{i}: {numeric} {}", gradient[i]);
        }
    }

    #[test]
    fn cross_entropy_gradient_matches_finite_differences() {
        check_gradient(|logits| cross_entropy(logits, &LABELS));
    }

    #[test]
    fn distillation_gradient_matches_finite_differences() {
        let how = Distillation { temperature: 4.0, alpha: 0.7 };
        check_gradient(|logits| distillation(logits, &LABELS, &TEACHER, how));
    }

    #[test]
    fn several_teachers_are_the_mean_of_their_probabilities() {
        let (weights, t) = ([0.25, 0.75], 3.0);
        let mean = mean_teacher(&[LOGITS.to_vec(), TEACHER.to_vec()], &weights, 3, t);
        for row in [0..3, 3..6] {
            let p = |logits: &[f32]| -> Vec<f64> {
                let exp: Vec<f64> = logits[row.clone()].iter().map(|s| f64::from(s / t).exp()).collect();
                exp.iter().map(|e| e / exp.iter().sum::<f64>()).collect()
            };
            for ((found, a), b) in p(&mean).into_iter().zip(p(&LOGITS)).zip(p(&TEACHER)) {
                assert!((found - (weights[0] * a + weights[1] * b)).abs() <= 1e-6, "{found} {a} {b}");
            }
        }
    }

    #[test]
    fn a_student_that_equals_its_teacher_has_nothing_to_learn_from_it() {
        let how = Distillation { temperature: 2.0, alpha: 1.0 };
        let loss = distillation(&TEACHER, &LABELS, &TEACHER, how);
        assert_eq!(loss.distillation, 0.0);
        assert!(loss.gradient.iter().all(|ds| *ds == 0.0));
    }
}
