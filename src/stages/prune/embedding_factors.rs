//! The narrower word table that a recipe leaves a network.

use crate::compress::embedding_factors::{factorize, most_useful};
use crate::models::ModelConfig;
use crate::ops::Backend;
use crate::stages::StageContext;
use crate::stages::recipe::tables::Prune;
use crate::train::Learner;
use crate::{Error, Result};

const KEY: &str = "prune.embedding_size";

/// Whether the recipe's size makes the word table of this network smaller, told before the first step.
///
/// # Errors
/// [`Error::Setting`] with the largest size that does.
pub fn check(settings: &Prune, config: &ModelConfig) -> Result<()> {
    let size = settings.embedding_size;
    if size == 0 || config.embedding_size == Some(size) {
        return Ok(());
    }
    if let Some(already) = config.embedding_size {
        let problem = format!("is {size}, and the model's word table has rows of {already} already");
        return Err(Error::setting(KEY, problem, "0, which leaves them"));
    }
    let (pieces, hidden) = (config.vocab, config.hidden);
    let most = most_useful(pieces, hidden);
    if size <= most {
        return Ok(());
    }
    let problem = format!(
        "is {size}, with which the word table of {pieces} pieces by {hidden} would become no smaller"
    );
    let mend =
        if most == 0 { "0: any size would make it larger".into() } else { format!("{most} or less, or 0") };
    Err(Error::setting(KEY, problem, mend))
}

/// Factors the word table as the recipe asks, if it does, and tells how much of it is left.
///
/// # Errors
/// As [`check`]; the device's.
pub fn apply<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>) -> Result<()> {
    let settings = &context.recipe.prune;
    let size = settings.embedding_size;
    check(settings, &learner.model.config)?;
    if size == 0 || learner.model.config.embedding_size.is_some() {
        return Ok(());
    }
    let (pieces, hidden) = (learner.model.config.vocab, learner.model.config.hidden);
    let energy = factorize(learner, size)?;
    context.progress.message(&format!(
        "prune: the word table, {pieces} by {hidden}, becomes {pieces} by {size} times {size} by {hidden}, which have \
         {:.1} % of its sum of squares",
        100.0 * energy
    ));
    context.check_stop()
}
