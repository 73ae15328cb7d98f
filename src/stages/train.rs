//! The first stage: a pretrained encoder, or a new one, learns the classes.

use super::device::{self, on_device};
use super::{Corpus, Stage, StageContext, artifact, prune, quantize, teachers, training};
use crate::Result;
use crate::ops::Backend;

/// Trains the baseline.
///
/// # Errors
/// Bad input, divergence, a signal, a full disk.
pub(super) fn train(context: &StageContext<'_>) -> Result<()> {
    if !context.enter(Stage::Train)? {
        return Ok(());
    }
    device::check_early(context)?;
    on_device!(context, Stage::Train, |device| train_on(context, &device))
}

fn train_on<B: Backend>(context: &StageContext<'_>, device: &B) -> Result<()> {
    let (recipe, corpus) = (context.recipe, Corpus::open(context)?);
    let mut learner = artifact::start(context, device, &corpus.tokenizer, corpus.train.labels())?;
    let config = &learner.model.config;
    let prospect = prune::check(context, config, &corpus)?;
    quantize::check_early(recipe, config)?;
    let layers = [prospect.layers, config.layers.len()];
    teachers::check_early(context, &corpus, layers, prospect.tokenizer.as_ref())?;
    let warnings = recipe.idle_settings().into_iter().chain(corpus.warnings());
    warnings.for_each(|warning| context.progress.message(&warning));
    training::run(context, Stage::Train, &recipe.train, &corpus, &mut learner, None, None)?;
    artifact::finish(context, Stage::Train, &learner, &corpus, None)
}
