//! The training texts that importance is measured on.

use crate::compress::{Budget, Importance, Scores, attention_scores};
use crate::ops::Backend;
use crate::stages::{Corpus, StageContext};
use crate::train::learner::gradients;
use crate::train::{Examples, Learner};
use crate::{Batch, Result};

/// Texts of a batch that importance is measured on.
pub const TEXTS: usize = 32;

/// Hands `each` the first `prune.samples` training texts, so many at a time.
///
/// # Errors
/// What `each` returns; a signal.
pub fn for_samples(
    context: &StageContext<'_>,
    corpus: &Corpus,
    at_a_time: usize,
    mut each: impl FnMut(&Examples) -> Result<()>,
) -> Result<()> {
    let texts = context.recipe.prune.samples.min(corpus.train_rows().len());
    context.progress.begin("importance", texts as u64);
    for first in (0..texts).step_by(at_a_time) {
        let mut batch = Batch::new();
        let rows = first..(first + at_a_time).min(texts);
        rows.clone().for_each(|text| batch.push(corpus.train.text(text), text as u64));
        let labels = rows.clone().map(|text| corpus.train.label(text)).collect();
        each(&Examples { batch, labels, teacher: None })?;
        context.progress.advance(rows.len() as u64);
        context.check_stop()?;
    }
    context.progress.end();
    Ok(())
}

/// Measures what the budget's importances need on the first `prune.samples` training texts, a batch at a time.
///
/// # Errors
/// The device's; a signal.
pub fn measure<B: Backend>(
    context: &StageContext<'_>,
    learner: &Learner<B>,
    corpus: &Corpus,
    budget: &Budget,
) -> Result<Scores> {
    let mut scores = budget.no_scores(&learner.model.config);
    let attention = budget.head_importance == Importance::Attention && budget.heads > 0.0;
    if !attention && !budget.needs_gradients() {
        return Ok(scores);
    }
    for_samples(context, corpus, TEXTS, |examples| {
        let Learner { backend, model, params, .. } = learner;
        if attention {
            attention_scores(learner, &examples.batch, &mut scores)?;
        }
        if budget.needs_gradients() {
            gradients(
                backend,
                model,
                params,
                examples,
                None,
                Some(&mut |seen, batch, taps, grads| {
                    scores.add_gradients(seen.backend, seen.model, batch, taps, grads)
                }),
            )?;
        }
        Ok(())
    })?;
    Ok(scores)
}
