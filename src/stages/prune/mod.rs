//! The second stage: whole layers, word pieces, hidden features, heads and feed-forward units are deleted, weights and
//! blocks of weights masked.
//!
//! Layers go first, at once; those that stay may come to share their parameters, and the first of them to read the sentences
//! of pairs apart. Then go word pieces, positions and hidden features. What is left of the word table, and of the
//! layers' matrices, is then factored: what follows reads the texts as the smaller vocabulary spells them, but for the baseline, which teaches as
//! it was taught. The rest goes at once, by scores measured on training texts; or in several events while the network learns
//! from the baseline (`prune.schedule = "cubic"`, or `"iterative"`, in rounds), which keeps more of its accuracy.

mod budget;
mod decoupling;
mod early;
mod embedding_factors;
mod layers;
mod matrix_factors;
mod positions;
mod samples;
mod sharing;
mod vocabulary;
mod width;

use super::device::on_device;
use super::recipe::tables::Schedule;
use super::{Corpus, Stage, StageContext, artifact, teachers, training};
use crate::Result;
use crate::compress::{self, EmptiedBlocks, Gradual, Rounds, delete_emptied};
use crate::ops::Backend;
use crate::train::{Callback, Learner};
pub use early::check;
use vocabulary::TrimmedCorpus;

/// Prunes the baseline.
///
/// # Errors
/// The baseline is missing, divergence, a signal, a full disk.
pub(super) fn prune(context: &StageContext<'_>) -> Result<()> {
    if !context.enter(Stage::Prune)? {
        return Ok(());
    }
    on_device!(context, Stage::Prune, |device| prune_on(context, &device))
}

fn prune_on<B: Backend>(context: &StageContext<'_>, device: &B) -> Result<()> {
    let baseline = context.need_whole(Stage::Train)?;
    let (settings, whole) = (&context.recipe.prune, Corpus::open(context)?);
    artifact::check_texts(&baseline, &whole)?;
    let mut learner = artifact::load(device, &baseline, &settings.train)?;
    let trimmed = reshape(context, &mut learner, &whole)?;
    let corpus = trimmed.as_ref().map_or(&whole, |trimmed| &trimmed.corpus);
    match settings.schedule {
        Schedule::Once => at_once(context, &mut learner, corpus)?,
        Schedule::Cubic | Schedule::Iterative => {
            while_training(context, device, &mut learner, corpus, &whole)?;
        }
    }
    matrix_factors::unfactor(context, &mut learner)?;
    learner.assert_masks()?;
    let layers = &learner.model.config.layers;
    let heads: Vec<usize> = layers.iter().map(|layer| layer.heads.len()).collect();
    let units: Vec<usize> = layers.iter().map(|layer| layer.intermediate).collect();
    context.progress.message(&format!("prune: heads left by layer {heads:?}, units {units:?}"));
    artifact::finish(context, Stage::Prune, &learner, corpus, trimmed.as_ref().map(TrimmedCorpus::record))
}

/// Gives a network the form in which parts of it then compete; [`check`] asks in this order whether it can. Returns the texts
/// as a smaller vocabulary reads them, if the recipe asks for one.
fn reshape<B: Backend>(
    context: &StageContext<'_>,
    learner: &mut Learner<B>,
    whole: &Corpus,
) -> Result<Option<TrimmedCorpus>> {
    layers::apply(context, learner, whole)?;
    sharing::apply(context, learner)?;
    decoupling::apply(context, learner)?;
    let trimmed = context.ranks.first_then(|| vocabulary::trim(context, whole))?;
    if let Some(trimmed) = &trimmed {
        trimmed.apply(learner)?;
    }
    positions::apply(context, learner)?;
    width::apply(context, learner, trimmed.as_ref().map_or(whole, |trimmed| &trimmed.corpus))?;
    embedding_factors::apply(context, learner)?;
    matrix_factors::apply(context, learner)?;
    Ok(trimmed)
}

/// Deletes and masks the whole budget, and trains nothing.
fn at_once<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>, corpus: &Corpus) -> Result<()> {
    let budget = budget::budget(&context.recipe.prune);
    let scores = samples::measure(context, learner, corpus, &budget)?;
    compress::prune(learner, &budget, &scores, (None, &EmptiedBlocks::default()), context.recipe.seed)?;
    if budget.blocks.fraction > 0.0 {
        delete_emptied(learner, budget.blocks.shape)?;
    }
    Ok(())
}

/// Deletes and masks the budget in several events, while the network learns from its teachers, who read the texts as `whole` has
/// them.
fn while_training<B: Backend>(
    context: &StageContext<'_>,
    device: &B,
    learner: &mut Learner<B>,
    corpus: &Corpus,
    whole: &Corpus,
) -> Result<()> {
    let settings = &context.recipe.prune;
    let (budget, events, seed) = (budget::budget(settings), settings.events, context.recipe.seed);
    let steps = training::steps(&settings.train, corpus.train_rows().len());
    let (logits, how) = teachers::teach(context, Stage::Prune, device, whole)?;
    teachers::distill_features(context, corpus, whole, learner, &settings.train)?;
    let config = &learner.model.config;
    let mut gradual = if settings.schedule == Schedule::Iterative {
        let rounds = Rounds::new(events, steps, settings.rewind, settings.rewind_to);
        Gradual::in_rounds(budget, rounds, config, seed)
    } else {
        Gradual::new(budget, events, steps, config, seed)
    };
    let (teacher, callback) = (Some((&logits[..], how)), Some(&mut gradual as &mut dyn Callback<B>));
    training::run(context, Stage::Prune, &settings.train, corpus, learner, teacher, callback)?;
    assert!(Callback::<B>::settled(&gradual), "all of the budget is gone");
    Ok(())
}
