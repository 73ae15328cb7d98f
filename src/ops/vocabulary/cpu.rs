//! Losses over a vocabulary on the CPU: a row whole in one task, in f32 by the kernels' softmax, its sums in f64.

use super::VocabularyOps;
use crate::Result;
use crate::backend::Cpu;
use crate::ops::loss::{Distillation, Losses};
use crate::tensor::Tensor;
use limbeck_kernels::Kernels;
use rayon::prelude::*;

/// Cross-entropy and divergence of each row.
pub struct RowLosses {
    targets: Vec<u32>,
    terms: Vec<[f64; 2]>,
    how: Distillation,
    /// Of a row's gradient.
    scale: f64,
}

impl VocabularyOps for Cpu {
    /// 64 MiB: 549 rows of BERT's vocabulary, whose products take ten times as long as adding to the table's gradient does.
    const CHUNK: usize = 1 << 24;

    type RowLosses = RowLosses;

    fn row_losses(&self, targets: &[u32], how: Distillation, scale: f64) -> Result<RowLosses> {
        let scale = scale / targets.len().max(1) as f64;
        Ok(RowLosses { targets: targets.to_vec(), terms: vec![[0.0; 2]; targets.len()], how, scale })
    }

    fn logit_gradient(
        &self,
        mut logits: Tensor<Self>,
        mut teacher: Option<Tensor<Self>>,
        first: usize,
        losses: &mut RowLosses,
    ) -> Result<Tensor<Self>> {
        let (kernels, words) = (self.kernels(), logits.cols().max(1));
        let RowLosses { targets, terms, how, scale } = losses;
        let rows = logits.buffer_mut().par_chunks_mut(words).zip(&targets[first..]).zip(&mut terms[first..]);
        match &mut teacher {
            None => rows.for_each(|((s, target), terms)| {
                terms[0] = cross_entropy(kernels, s, *target as usize, *scale);
            }),
            Some(teacher) => {
                let rows = rows.zip(teacher.buffer_mut().par_chunks_mut(words));
                rows.for_each(|(((s, target), terms), t)| {
                    *terms = distilled(kernels, [s, t], *target as usize, *how, *scale);
                });
            }
        }
        Ok(logits)
    }

    fn mean_of_rows(&self, RowLosses { terms, how, .. }: RowLosses) -> Losses {
        let mean =
            |which: usize| terms.iter().map(|term| term[which]).sum::<f64>() / terms.len().max(1) as f64;
        Losses::new(mean(0), mean(1), f64::from(how.alpha))
    }
}

/// Replaces a row by its softmax; gives log Σ exp of what it was, by way of the largest probability, which cannot vanish.
fn softmax(kernels: Kernels, row: &mut [f32]) -> f64 {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    kernels.softmax_row(row);
    let largest = row.iter().copied().fold(0.0, f32::max);
    f64::from(highest) - f64::from(largest).ln()
}

/// `s` becomes `scale` times the gradient of its cross-entropy, which is given back.
fn cross_entropy(kernels: Kernels, s: &mut [f32], target: usize, scale: f64) -> f64 {
    let wanted = f64::from(s[target]);
    let loss = softmax(kernels, s) - wanted;
    if !loss.is_finite() {
        s.fill(f32::NAN);
        return loss;
    }
    kernels.scale(s, scale as f32);
    s[target] -= scale as f32;
    loss
}

/// `s` becomes `scale` times the gradient of the mixed loss, whose terms are given back; of `t` nothing is left.
fn distilled(
    kernels: Kernels,
    [s, t]: [&mut [f32]; 2],
    target: usize,
    how: Distillation,
    scale: f64,
) -> [f64; 2] {
    let Distillation { temperature, alpha } = how;
    let inverse = 1.0 / temperature;
    kernels.scale(t, inverse);
    let mut p = s.to_vec();
    kernels.scale(&mut p, inverse);
    let (of_s, mut q) = (softmax(kernels, &mut p), t.to_vec());
    let apart = softmax(kernels, &mut q) - of_s;
    let sum: f64 = (q.iter().zip(&*t).zip(&*s))
        .map(|((q, t), s)| f64::from(*q) * (f64::from(t - s * inverse) - apart))
        .sum();
    let squared = f64::from(temperature).powi(2);
    let loss = cross_entropy(kernels, s, target, scale * (1.0 - f64::from(alpha)));
    let slope = (scale * f64::from(alpha) * f64::from(temperature)) as f32;
    let terms = [loss, squared * sum];
    if terms.iter().any(|term| !term.is_finite()) {
        s.fill(f32::NAN);
        return terms;
    }
    for (ds, (p, q)) in s.iter_mut().zip(p.iter().zip(&q)) {
        *ds += slope * (p - q);
    }
    terms
}
