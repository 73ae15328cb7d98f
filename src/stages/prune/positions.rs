//! The positions that a recipe leaves a network.

use crate::compress::{Keep, delete};
use crate::models::ModelConfig;
use crate::ops::Backend;
use crate::stages::StageContext;
use crate::stages::recipe::tables::Prune;
use crate::train::Learner;
use crate::{Error, Result};

/// Whether a network has as many positions as the recipe leaves it, told before the first step.
///
/// # Errors
/// [`Error::Setting`] if not.
pub fn check(settings: &Prune, config: &ModelConfig) -> Result<()> {
    let (kept, all) = (settings.positions, config.positions);
    if kept > all {
        let problem = format!("is {kept}, and the model has {all}");
        return Err(Error::setting("prune.positions", problem, format!("{all} or less, or 0")));
    }
    Ok(())
}

/// Deletes the positions that no text of the recipe can reach, if it asks for that.
///
/// # Errors
/// As [`check`]; the device's.
pub fn apply<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>) -> Result<()> {
    let (settings, config) = (&context.recipe.prune, &learner.model.config);
    check(settings, config)?;
    let (positions, all) = (settings.positions, config.positions);
    if positions == 0 || positions == all {
        return Ok(());
    }
    delete(learner, &Keep { positions, ..Keep::all(&learner.model.config) })?;
    context.progress.message(&format!("prune: {positions} of {all} positions stay"));
    Ok(())
}
