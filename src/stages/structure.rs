//! Layers that share parameters, and factored matrices, as a recipe leaves them to a network.

use super::recipe::tables::Prune;
use super::{StageContext, prune};
use crate::compress::RankBudget;
use crate::compress::ranks::{self, Factored};
use crate::compress::sharing;
use crate::models::ModelConfig;
use crate::ops::Backend;
use crate::train::Learner;
use crate::{Error, Result};

const SHARE: &str = "prune.share";

/// Whether the layers of the baseline can share their parameters as the recipe says, told before the first step as far as that
/// can be known.
///
/// # Errors
/// [`Error::Setting`] with what stands in the way.
pub fn check(context: &StageContext<'_>, config: &ModelConfig) -> Result<()> {
    let settings = &context.recipe.prune;
    let left = prune::layers_left(settings, config.layers.len())?;
    if left == config.layers.len() {
        return check_sharing(settings, config);
    }
    // Which layers stay is not known yet, but how many.
    if settings.share > left {
        return Err(refused(settings.share, &format!("{left} of {} layers stay", config.layers.len())));
    }
    Ok(())
}

fn check_sharing(settings: &Prune, config: &ModelConfig) -> Result<()> {
    let problem = (settings.share > 0).then(|| sharing::problem(config, settings.share)).flatten();
    problem.map_or(Ok(()), |problem| Err(refused(settings.share, &problem)))
}

fn refused(share: usize, problem: &str) -> Error {
    Error::setting(
        SHARE,
        format!("is {share}, and {problem}"),
        "choose another number, or 0 to share nothing",
    )
}

/// Has layers share their parameters, if the recipe asks for it.
///
/// # Errors
/// As [`check`]; the device's.
pub fn share<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>) -> Result<()> {
    let settings = &context.recipe.prune;
    if settings.share == 0 {
        return Ok(());
    }
    check_sharing(settings, &learner.model.config)?;
    sharing::share(learner, settings.share, settings.share_start)?;
    let config = &learner.model.config;
    let owners: Vec<usize> = (0..config.layers.len()).map(|layer| config.owner(layer)).collect();
    context.progress.message(&format!("prune: layers use the parameters of layers {owners:?}"));
    Ok(())
}

/// Factors the encoder's matrices, if the recipe asks for it, and tells what became of them.
///
/// # Errors
/// The device's.
pub fn factorize<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>) -> Result<()> {
    let settings = &context.recipe.prune;
    if settings.rank == 0.0 {
        return Ok(());
    }
    let budget =
        RankBudget { fraction: settings.rank, scope: settings.rank_scope, matrices: settings.rank_matrices };
    let Factored { matrices: [factored, all], parameters: [before, after], energy } =
        ranks::factorize(learner, &budget)?;
    context.progress.message(&format!(
        "prune: {factored} of {all} matrices become two of lower rank, {before} parameters of all {after}; they have {:.1} % of their sums \
         of squares, and the others would not be smaller",
        100.0 * energy
    ));
    context.check_stop()
}

/// Multiplies factors that are no smaller than their product any more.
///
/// # Errors
/// The device's.
pub fn fold<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>) -> Result<()> {
    let whole = ranks::fold(learner)?;
    if whole > 0 {
        context
            .progress
            .message(&format!("prune: {whole} factored matrices are no smaller so, and become whole"));
    }
    Ok(())
}
