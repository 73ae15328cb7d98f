//! The encoder's matrices as products of thinner ones, as a recipe leaves them to a network.

use crate::Result;
use crate::compress::RankBudget;
use crate::compress::matrix_factors::{self, FactorizationReport};
use crate::ops::Backend;
use crate::stages::StageContext;
use crate::train::Learner;

/// Factors the encoder's matrices, if the recipe asks for it, and tells what became of them.
///
/// # Errors
/// The device's.
pub fn apply<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>) -> Result<()> {
    let settings = &context.recipe.prune;
    if settings.rank == 0.0 {
        return Ok(());
    }
    let budget =
        RankBudget { fraction: settings.rank, scope: settings.rank_scope, matrices: settings.rank_matrices };
    let FactorizationReport { matrices: [factored, all], parameters: [before, after], energy } =
        matrix_factors::factorize(learner, &budget)?;
    let others = match all - factored {
        0 => String::new(),
        others => format!("; {others} would not be smaller so"),
    };
    context.progress.message(&format!(
        "prune: {factored} of {all} matrices become two of lower rank, {before} parameters {after}, with {:.1} % of the sums of squares{others}",
        100.0 * energy
    ));
    context.check_stop()
}

/// Multiplies factors that are no smaller than their product any more.
///
/// # Errors
/// The device's.
pub fn unfactor<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>) -> Result<()> {
    let whole = matrix_factors::unfactor(learner)?;
    if whole > 0 {
        context
            .progress
            .message(&format!("prune: {whole} factored matrices are no smaller so, and become whole"));
    }
    Ok(())
}
