//! The whole layers that a recipe leaves a network.

use super::samples::{TEXTS, for_samples};
use crate::compress::LayerImportance;
use crate::compress::layers::{keep_layers, layer_gradients};
use crate::ops::Backend;
use crate::stages::recipe::tables::Prune;
use crate::stages::{Corpus, StageContext};
use crate::train::Learner;
use crate::{Error, Result};

/// How many of a network's `count` layers stay.
///
/// # Errors
/// [`Error::Setting`] if one that is to stay does not exist.
pub fn left(settings: &Prune, count: usize) -> Result<usize> {
    match settings.keep_layers.last() {
        None => Ok(count.saturating_sub((settings.layers * count as f64).round() as usize).max(1)),
        Some(last) if *last >= count => {
            let problem = format!("there is no layer {last}: the baseline has {count}, counted from 0");
            Err(Error::setting("prune.keep_layers", problem, format!("name layers below {count}")))
        }
        Some(_) => Ok(settings.keep_layers.len()),
    }
}

/// Deletes whole layers, if the recipe asks for it.
///
/// # Errors
/// As [`left`]; the device's; a signal.
pub fn apply<B: Backend>(
    context: &StageContext<'_>,
    learner: &mut Learner<B>,
    corpus: &Corpus,
) -> Result<()> {
    let settings = &context.recipe.prune;
    let count = learner.model.layers.len();
    let keep = left(settings, count)?;
    if keep == count {
        return Ok(());
    }
    let keep = if settings.keep_layers.is_empty() {
        let mut scores = vec![0.0; count];
        if settings.layer_importance == LayerImportance::Gradient {
            for_samples(context, corpus, TEXTS, |examples| layer_gradients(learner, examples, &mut scores))?;
            let shown: Vec<String> = scores.iter().map(|score| format!("{score:.3}")).collect();
            context.progress.message(&format!("prune: scores of layers {}", shown.join(" ")));
        }
        settings.layer_importance.select(&scores, keep, context.recipe.seed)
    } else {
        settings.keep_layers.clone()
    };
    keep_layers(learner, &keep)?;
    let kept = learner.model.config.kept_layers();
    context
        .progress
        .message(&format!("prune: layers {kept:?} of {} stay", learner.model.config.original_layers()));
    Ok(())
}
