//! The third stage: what is left of the network learns from the baseline.

use super::device::on_device;
use super::{Corpus, Stage, StageContext, artifact, quantize, teachers, training};
use crate::Result;
use crate::ops::Backend;

/// Distils the teacher into the pruned network.
///
/// # Errors
/// An earlier stage is missing, divergence, a signal, a full disk.
pub(super) fn distill(context: &StageContext<'_>) -> Result<()> {
    if !context.enter(Stage::Distill)? {
        return Ok(());
    }
    on_device!(context, Stage::Distill, |device| distill_on(context, &device))
}

fn distill_on<B: Backend>(context: &StageContext<'_>, device: &B) -> Result<()> {
    let pruned = context.need_whole(Stage::Prune)?;
    let (settings, whole) = (&context.recipe.distill.train, Corpus::open(context)?);
    let (logits, how) = teachers::teach(context, Stage::Distill, device, &whole)?;
    // Of a smaller vocabulary, where pruning left one.
    let corpus = context.ranks.first_then(|| whole.as_read_by_model(&pruned))?;
    artifact::check_texts(&pruned, &corpus)?;
    let mut learner = artifact::load(device, &pruned, settings)?;
    quantize::check(&context.recipe.quantize, &learner.model.config)?;
    teachers::distill_features(context, &corpus, &whole, &mut learner, settings)?;
    let teacher = Some((&logits[..], how));
    training::run(context, Stage::Distill, settings, &corpus, &mut learner, teacher, None)?;
    learner.assert_masks()?;
    artifact::finish(context, Stage::Distill, &learner, &corpus, None)
}
