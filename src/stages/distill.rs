//! The third stage: what is left of the network learns from the baseline.

use super::{Corpus, Stage, StageContext, artifact, teachers, training};
use crate::Result;
use crate::train::forget_state;

/// Distils the teacher into the pruned network.
///
/// # Errors
/// An earlier stage is missing, divergence, a signal, a full disk.
pub fn distill(context: &StageContext<'_>) -> Result<()> {
    if !context.enter(Stage::Distill)? {
        return Ok(());
    }
    let pruned = context.need(Stage::Prune)?;
    let (settings, corpus) = (&context.recipe.distill.train, Corpus::open(context)?);
    let (logits, how) = teachers::teach(context, &corpus)?;
    let mut learner = artifact::load(&artifact::device(context, settings), &pruned, settings)?;
    teachers::look_inside(context, &corpus, None, &mut learner, settings)?;
    let teacher = Some((&logits[..], how));
    training::run(context, Stage::Distill, settings, &corpus, &mut learner, teacher, None)?;
    learner.assert_masks()?;
    let parents =
        [("texts", corpus.train.content_hash().to_owned()), ("pruned", artifact::weights_hash(&pruned)?)];
    let origin = artifact::origin(context, Stage::Distill, &parents);
    artifact::save(&context.artifact(Stage::Distill), &learner, &corpus.tokenizer, &origin)?;
    forget_state(&context.state(Stage::Distill))
}
