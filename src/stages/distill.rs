//! The third stage: what is left of the network learns from the baseline.

use super::{Corpus, Stage, StageContext, artifact, quantize, teachers, training, vocabulary};
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
    let (settings, whole) = (&context.recipe.distill.train, Corpus::open(context)?);
    let (logits, how) = teachers::teach(context, &whole)?;
    // Of a smaller vocabulary, where pruning left one.
    let own = vocabulary::corpus_of(&pruned, &whole)?;
    let corpus = own.as_ref().unwrap_or(&whole);
    let mut learner = artifact::load(&artifact::device(context, settings), &pruned, settings)?;
    quantize::check(&context.recipe.quantize, &learner.model.config)?;
    teachers::look_inside(context, corpus, &whole, &mut learner, settings)?;
    let teacher = Some((&logits[..], how));
    training::run(context, Stage::Distill, settings, corpus, &mut learner, teacher, None)?;
    learner.assert_masks()?;
    let parents =
        [("texts", corpus.train.content_hash().to_owned()), ("pruned", artifact::weights_hash(&pruned)?)];
    let origin = artifact::origin(context, Stage::Distill, &parents);
    artifact::save(&context.artifact(Stage::Distill), &learner, &corpus.tokenizer, &origin)?;
    forget_state(&context.state(Stage::Distill))
}
