//! What becomes of the logits.

use super::Scan;
use super::ratios::rounded;
use crate::formats::Form;
use crate::models::probabilities as of_logits;
use crate::nn::ParamId;
use crate::ops::Backend;
use crate::tensor::Tensor;
use crate::train::Learner;
use crate::train::evaluate::for_logits;
use crate::{Error, Result};

/// The probabilities of all texts, `[texts, classes]`.
pub(super) fn probabilities<B: Backend>(learner: &Learner<B>, scan: &Scan<'_>) -> Result<Vec<f32>> {
    let classes = learner.model.config.labels.len();
    let mut all = Vec::with_capacity(scan.count * classes);
    for_logits(learner, scan.texts, 0..scan.count, |_, logits| {
        logits.chunks(classes).for_each(|logits| all.extend(of_logits(logits)));
        Error::if_stopped(scan.stop)
    })?;
    Ok(all)
}

/// The mean divergence from the `exact` probabilities with one parameter in int4, all else in f32. The parameter is as it
/// was afterwards, even after an error.
pub(super) fn divergence_without<B: Backend>(
    learner: &mut Learner<B>,
    scan: &Scan<'_>,
    id: ParamId,
    exact: &[f32],
) -> Result<f64> {
    let kept = learner.params.value(id).clone();
    let values = rounded(Form::Int4, &learner.params.get(id).spec, &kept.download(&learner.backend)?);
    *learner.params.value_mut(id).0 = Tensor::upload(&learner.backend, &values, kept.shape())?;
    let found = probabilities(learner, scan);
    *learner.params.value_mut(id).0 = kept;
    Ok(divergence(exact, &found?) / scan.count.max(1) as f64)
}

/// `Σ p·ln(p / p̂)`, in nats. What is too small for a float counts as the smallest that is none.
pub(super) fn divergence(exact: &[f32], found: &[f32]) -> f64 {
    let least = f64::from(f32::MIN_POSITIVE);
    let terms = exact.iter().zip(found).map(|(&p, &q)| {
        let (p, q) = (f64::from(p), f64::from(q).max(least));
        if p > 0.0 { p * (p / q).ln() } else { 0.0 }
    });
    terms.sum()
}
