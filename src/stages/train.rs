//! The first stage: a pretrained encoder, or a new one, learns the classes.

use super::device::on_device;
use super::{
    Corpus, Stage, StageContext, artifact, decoupling, factorization, prune, quantize, structure, teachers,
    training, vocabulary, width,
};
use crate::Result;
use crate::ops::Backend;

/// Trains the baseline.
///
/// # Errors
/// Bad input, divergence, a signal, a full disk.
pub fn train(context: &StageContext<'_>) -> Result<()> {
    if !context.enter(Stage::Train)? {
        return Ok(());
    }
    on_device!(context, &context.recipe.train, |device| train_on(context, &device))
}

fn train_on<B: Backend>(context: &StageContext<'_>, device: &B) -> Result<()> {
    let (recipe, corpus) = (context.recipe, Corpus::open(context)?);
    let pieces = vocabulary::check(context, &corpus)?;
    let mut learner = artifact::start(context, device, &corpus.tokenizer, corpus.train.labels())?;
    let narrower = width::check(context, &learner.model.config)?;
    factorization::check(context, &narrower, pieces)?;
    structure::check(context, &narrower)?;
    decoupling::check(context, prune::layers_left(&recipe.prune, learner.model.layers.len())?)?;
    if recipe.prune.rank == 0.0 && recipe.prune.embedding_size == 0 {
        // Factored matrices would have names that there are none of yet.
        quantize::check(&recipe.quantize, &learner.model.config)?;
    }
    teachers::check_early(context, &corpus, learner.model.layers.len())?;
    training::run(context, Stage::Train, &recipe.train, &corpus, &mut learner, None, None)?;
    artifact::finish(context, Stage::Train, &learner, &corpus, None)
}
