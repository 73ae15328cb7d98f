//! The layers that a recipe has share their parameters.

use crate::compress::sharing;
use crate::models::ModelConfig;
use crate::ops::Backend;
use crate::stages::StageContext;
use crate::stages::recipe::tables::Prune;
use crate::train::Learner;
use crate::{Error, Result};

const KEY: &str = "prune.share";

/// Whether the layers of a network, of which `left` stay, can share their parameters as the recipe says, told before the first
/// step as far as that can be known.
///
/// # Errors
/// [`Error::Setting`] with what stands in the way.
pub fn check(settings: &Prune, config: &ModelConfig, left: usize) -> Result<()> {
    let (share, layers) = (settings.share, config.layers.len());
    let problem = match share {
        0 => None,
        _ if left == layers => sharing::problem(config, share),
        // Which layers stay is not known yet, but how many.
        _ => (share > left).then(|| format!("{left} of {layers} layers stay")),
    };
    problem.map_or(Ok(()), |problem| {
        let mend = "choose another number, or 0 to share nothing";
        Err(Error::setting(KEY, format!("is {share}, and {problem}"), mend))
    })
}

/// Has layers share their parameters, if the recipe asks for it.
///
/// # Errors
/// As [`check`]; the device's.
pub fn apply<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>) -> Result<()> {
    let settings = &context.recipe.prune;
    if settings.share == 0 {
        return Ok(());
    }
    check(settings, &learner.model.config, learner.model.config.layers.len())?;
    sharing::share(learner, settings.share, settings.share_start)?;
    let config = &learner.model.config;
    let owners: Vec<usize> = (0..config.layers.len()).map(|layer| config.owner(layer)).collect();
    context.progress.message(&format!("prune: layers use the parameters of layers {owners:?}"));
    Ok(())
}
