//! The layers that a recipe has each sentence of a pair pass alone.
//!
//! It happens in pruning, before anything is measured: the baseline, which teaches, goes on reading both sentences in every
//! layer, and what the others lose by that is learnt anew (Cao et al., arXiv:2005.00697).

use super::StageContext;
use crate::models::{Classifier, ModelConfig};
use crate::ops::Backend;
use crate::train::Learner;
use crate::{Error, Result};

const KEY: &str = "prune.decouple";

/// Whether a network of so many layers can have as many decoupled as the recipe asks for, told before the first step.
///
/// # Errors
/// [`Error::Setting`] with the most that there can be.
pub fn check(context: &StageContext<'_>, layers: usize) -> Result<()> {
    let count = context.recipe.prune.decouple;
    if count == 0 || count < layers {
        return Ok(());
    }
    let problem = format!("is {count}, of {layers} layers; the last one has to read both sentences");
    Err(Error::setting(KEY, problem, format!("{} or less", layers - 1)))
}

/// Decouples as many layers as the recipe asks for, unless as many already are.
///
/// # Errors
/// As [`check`].
pub fn apply<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>) -> Result<()> {
    let (count, config) = (context.recipe.prune.decouple, &learner.model.config);
    check(context, config.layers.len())?;
    if count <= config.decoupled {
        return Ok(());
    }
    // The parameters are the same, in the same order.
    learner.model = Classifier::new(&ModelConfig { decoupled: count, ..config.clone() }).0;
    let layers = learner.model.layers.len();
    context.progress.message(&format!("prune: each sentence passes {count} of {layers} layers alone"));
    Ok(())
}
