//! One pruning event: deletes heads and units and masks weights and blocks until the budget is reached.

use super::blocks::{self, BlockScores, EmptiedBlocks};
use super::budget::Budget;
use super::importance::{Importance, Scores, keep_within};
use super::magnitude;
use super::rebuild::delete;
use super::structure::Deletion;
use crate::Result;
use crate::ops::Backend;
use crate::train::Learner;

/// Prunes `learner` to `budget_now`: heads and units by gradient and attention scores `measured` before, blocks by
/// what was `watched` of them until now, some being `gone`; other kinds of scores are computed here. Moments of what stays
/// are kept.
/// Returns what was deleted, if anything was.
///
/// # Errors
/// The device's.
pub fn prune<B: Backend>(
    learner: &mut Learner<B>,
    budget_now: &Budget,
    measured: &Scores,
    (watched, gone): (Option<&BlockScores>, &EmptiedBlocks),
    seed: u64,
) -> Result<Option<Deletion>> {
    let config = &learner.model.config;
    let of_kind = |kind: Importance, learner: &Learner<B>| -> Result<Scores> {
        match kind {
            Importance::Gradient | Importance::Fisher | Importance::Attention => Ok(measured.clone()),
            Importance::BlockFisher => {
                let mut scores = measured.clone();
                scores.share_products(config);
                scores.heads = scores.order();
                Ok(scores.of_owners(config))
            }
            Importance::Norm => {
                Ok(Scores::norms(&learner.backend, &learner.model, &learner.params)?.of_owners(config))
            }
            Importance::Random => Ok(Scores::random(config, seed).of_owners(config)),
        }
    };
    let mut scores = of_kind(budget_now.head_importance, learner)?;
    scores.units = of_kind(budget_now.unit_importance, learner)?.units;
    let (heads, units) =
        ((budget_now.heads, budget_now.head_scope), (budget_now.units, budget_now.unit_scope));
    let deletion = delete(learner, &keep_within(&learner.model.config, &scores, heads, units))?;
    for (fraction, ids) in [
        (budget_now.weights, magnitude::matrices(&learner.model, budget_now.weight_matrices)),
        (budget_now.classifier, magnitude::head(&learner.model)),
    ] {
        if fraction > 0.0 {
            magnitude::mask(&learner.backend, &mut learner.params, &ids, fraction, budget_now.weight_scope)?;
        }
    }
    if budget_now.blocks.fraction > 0.0 {
        let Learner { backend, model, params, .. } = learner;
        blocks::mask(backend, model, params, &budget_now.blocks, watched, gone)?;
    }
    learner.optimizer.mask(&learner.backend, &learner.params)?;
    Ok(deletion)
}
