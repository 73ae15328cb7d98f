//! Accuracy of a network in training, on texts it does not learn from.

use super::learner::Learner;
use crate::data::TokenSet;
use crate::models::highest;
use crate::ops::Backend;
use crate::{Batch, Error, Result};
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// Texts that are run together: enough to fill two cores, few enough that memory stays small.
const TEXTS: usize = 64;

/// Runs `rows` of `texts` through the network, a batch at a time: `each` is given the first text of the batch
/// and the batch's logits, `[texts, classes]`.
///
/// # Errors
/// The device's, and those of `each`.
pub fn for_logits<B: Backend>(
    learner: &Learner<B>,
    texts: &TokenSet,
    rows: Range<usize>,
    mut each: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let mut batch = Batch::new();
    for first in rows.clone().step_by(TEXTS) {
        batch.clear();
        for text in first..(first + TEXTS).min(rows.end) {
            batch.push(texts.text(text), text as u64);
        }
        each(first, &learner.logits(&batch)?)?;
    }
    Ok(())
}

/// The fraction of `rows` that the network puts in the right class.
///
/// # Errors
/// The device's.
pub fn accuracy<B: Backend>(learner: &Learner<B>, texts: &TokenSet, rows: Range<usize>) -> Result<f64> {
    accuracy_unless(&AtomicBool::new(false), learner, texts, rows)
}

/// As [`accuracy`], unless `stop` is set.
///
/// # Errors
/// [`Error::Interrupted`]; the device's.
pub fn accuracy_unless<B: Backend>(
    stop: &AtomicBool,
    learner: &Learner<B>,
    texts: &TokenSet,
    rows: Range<usize>,
) -> Result<f64> {
    let mut right = 0;
    let classes = learner.model.config.labels.len();
    for_logits(learner, texts, rows.clone(), |first, logits| {
        for (i, logits) in logits.chunks(classes).enumerate() {
            right += usize::from(highest(logits) == texts.label(first + i));
        }
        Error::if_stopped(stop)
    })?;
    Ok(right as f64 / rows.len().max(1) as f64)
}
