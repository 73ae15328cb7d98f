//! The hidden features that a recipe leaves a network.

use super::samples::for_samples;
use crate::compress::width::{WidthScores, narrow};
use crate::models::ModelConfig;
use crate::ops::Backend;
use crate::stages::recipe::tables::{Prune, WidthImportance};
use crate::stages::{Corpus, StageContext};
use crate::train::Learner;
use crate::{Error, Result};

/// How many hidden features stay.
fn left(settings: &Prune, hidden: usize) -> usize {
    hidden.saturating_sub((settings.hidden * hidden as f64).round() as usize).max(1)
}

/// The configuration of what the recipe leaves of this network's width, told before the first step.
///
/// # Errors
/// [`Error::Setting`] if the word table, or a factor, would be wider than the network.
pub fn check(settings: &Prune, config: &ModelConfig) -> Result<ModelConfig> {
    let hidden = left(settings, config.hidden);
    if let Some(rank) = config.ranks.iter().flatten().max().filter(|&&rank| rank > hidden) {
        let problem = format!(
            "leaves {hidden} of {} features, and the model has factors of rank {rank}",
            config.hidden
        );
        return Err(Error::setting("prune.hidden", problem, format!("leave {rank} or more")));
    }
    match config.embedding_size.filter(|&size| size >= hidden) {
        Some(size) if hidden < config.hidden => {
            let problem = format!(
                "leaves {hidden} of {} features, and the model's word table has rows of {size}",
                config.hidden
            );
            Err(Error::setting("prune.hidden", problem, format!("leave {} or more", size + 1)))
        }
        _ => Ok(ModelConfig { hidden, ..config.clone() }),
    }
}

/// Deletes hidden features as the recipe asks, if it does, and tells how many are left.
///
/// # Errors
/// As [`check`]; a signal.
pub fn apply<B: Backend>(
    context: &StageContext<'_>,
    learner: &mut Learner<B>,
    corpus: &Corpus,
) -> Result<()> {
    let settings = &context.recipe.prune;
    let (hidden, count) = (learner.model.config.hidden, check(settings, &learner.model.config)?.hidden);
    if count == hidden {
        return Ok(());
    }
    let scores = match settings.hidden_importance {
        WidthImportance::Gradient => {
            let mut scores = WidthScores::zeros(hidden);
            for_samples(context, corpus, 1, |examples| scores.add_gradients(learner, examples))?;
            scores
        }
        WidthImportance::Norm => WidthScores::norms(learner)?,
        WidthImportance::Random => WidthScores::random(hidden, context.recipe.seed),
    };
    narrow(learner, &scores, count)?;
    context.progress.message(&format!("prune: {count} of {hidden} hidden features stay"));
    context.check_stop()
}
