//! The layers that a recipe has each sentence of a pair pass alone.
//!
//! It happens in pruning, before anything is measured: the baseline, which teaches, goes on reading both sentences in every
//! layer, and what the others lose by that is learnt anew (Cao et al., arXiv:2005.00697).

use crate::models::{Classifier, ModelConfig};
use crate::ops::Backend;
use crate::stages::StageContext;
use crate::stages::recipe::tables::Prune;
use crate::train::Learner;
use crate::{Error, Result};

const KEY: &str = "prune.decouple";

/// Whether a network of so many layers can have as many decoupled as the recipe asks for, told before the first step.
///
/// # Errors
/// [`Error::Setting`] with the most that there can be.
pub fn check(settings: &Prune, layers: usize) -> Result<()> {
    let count = settings.decouple;
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
    let (settings, config) = (&context.recipe.prune, &learner.model.config);
    check(settings, config.layers.len())?;
    let count = settings.decouple;
    if count <= config.decoupled {
        return Ok(());
    }
    // The parameters are the same, in the same order.
    learner.model = Classifier::new(&ModelConfig { decoupled: count, ..config.clone() }).0;
    let layers = learner.model.layers.len();
    context.progress.message(&format!(
        "prune: in the first {count} of {layers} layers each sentence attends only to itself"
    ));
    Ok(())
}
