//! The second stage: whole layers, word pieces, hidden features, heads and feed-forward units are deleted, weights and
//! blocks of weights masked.
//!
//! Layers go first, at once; those that stay may come to share their parameters, and the first of them to read the sentences of
//! pairs apart. Then go word pieces and hidden features. What is left of the word table, and of the layers' matrices, is then factored: what follows reads the texts as the smaller
//! vocabulary spells them, but for the baseline, which teaches as it was taught. The rest goes at once, by scores measured on
//! training texts; or in several events while the network learns from the baseline (`prune.schedule = "cubic"`, or
//! `"iterative"`, in rounds), which keeps more of its accuracy.

use super::device::on_device;
use super::recipe::tables::{Prune, Schedule, WeightImportance, WeightScope};
use super::{
    Corpus, Stage, StageContext, artifact, decoupling, factorization, structure, teachers, training,
    vocabulary, width,
};
use crate::compress::gradual::prune as apply;
use crate::compress::layers::{keep_layers, layer_gradients};
use crate::compress::{
    BlockBudget, BlockMatrices, BlockScope, Budget, Gone, Gradual, Importance, LayerImportance, Rounds,
    Scores, attention_scores, delete_emptied,
};
use crate::ops::Backend;
use crate::ops::blocks::BlockShape;
use crate::train::learner::gradients;
use crate::train::{Companion, Learner, Lesson};
use crate::{Batch, Error, Result};

/// Texts of a batch that importance is measured on.
const TEXTS: usize = 32;

/// Prunes the baseline.
///
/// # Errors
/// The baseline is missing, divergence, a signal, a full disk.
pub fn prune(context: &StageContext<'_>) -> Result<()> {
    if !context.enter(Stage::Prune)? {
        return Ok(());
    }
    on_device!(context, &context.recipe.prune.train, |device| prune_on(context, &device))
}

fn prune_on<B: Backend>(context: &StageContext<'_>, device: &B) -> Result<()> {
    let baseline = context.need(Stage::Train)?;
    let (settings, whole) = (&context.recipe.prune, Corpus::open(context)?);
    let mut learner = artifact::load(device, &baseline, &settings.train)?;
    layers(context, &mut learner, &whole)?;
    structure::share(context, &mut learner)?;
    decoupling::apply(context, &mut learner)?;
    let trimmed = context.ranks.first_then(|| vocabulary::trim(context, &whole))?;
    if let Some(trimmed) = &trimmed {
        trimmed.apply(&mut learner)?;
    }
    let corpus = trimmed.as_ref().map_or(&whole, |trimmed| &trimmed.corpus);
    width::apply(context, &mut learner, corpus)?;
    factorization::apply(context, &mut learner)?;
    structure::factorize(context, &mut learner)?;
    let budget = budget(settings);
    match settings.schedule {
        Schedule::Once => {
            let scores = measure(context, &learner, corpus, &budget)?;
            apply(&mut learner, &budget, &scores, (None, &Gone::default()), context.recipe.seed)?;
            if budget.blocks.fraction > 0.0 {
                delete_emptied(&mut learner, budget.blocks.shape)?;
            }
        }
        schedule => {
            let steps = training::steps(&settings.train, corpus.lessons().len());
            let (logits, how) = teachers::teach(context, device, &whole)?;
            teachers::look_inside(context, corpus, &whole, &mut learner, &settings.train)?;
            let (config, seed, events) = (&learner.model.config, context.recipe.seed, settings.events);
            let mut gradual = if schedule == Schedule::Iterative {
                let rounds = Rounds::new(events, steps, settings.rewind, settings.rewind_to);
                Gradual::in_rounds(budget, rounds, config, seed)
            } else {
                Gradual::new(budget, events, steps, config, seed)
            };
            let teacher = Some((&logits[..], how));
            training::run(
                context,
                Stage::Prune,
                &settings.train,
                corpus,
                &mut learner,
                teacher,
                Some(&mut gradual),
            )?;
            assert!(Companion::<B>::settled(&gradual), "all of the budget is gone");
        }
    }
    structure::fold(context, &mut learner)?;
    learner.assert_masks()?;
    let layers = &learner.model.config.layers;
    let heads: Vec<usize> = layers.iter().map(|layer| layer.heads.len()).collect();
    let units: Vec<usize> = layers.iter().map(|layer| layer.intermediate).collect();
    context.progress.message(&format!("prune: heads left by layer {heads:?}, units {units:?}"));
    artifact::finish(
        context,
        Stage::Prune,
        &learner,
        corpus,
        trimmed.as_ref().map(vocabulary::Trimmed::record),
    )
}

/// How many of a network's `count` layers stay.
///
/// # Errors
/// [`Error::Setting`] if one that is to stay does not exist.
pub fn layers_left(settings: &Prune, count: usize) -> Result<usize> {
    match settings.keep_layers.last() {
        None => Ok(count.saturating_sub((settings.layers * count as f64).round() as usize).max(1)),
        Some(last) if *last >= count => {
            let problem = format!("there is no layer {last}: the baseline has {count}, counted from 0");
            Err(Error::setting("prune.keep_layers", problem, format!("name layers below {count}")))
        }
        Some(_) => Ok(settings.keep_layers.len()),
    }
}

/// Deletes whole layers, if the recipe asks for it.
fn layers<B: Backend>(context: &StageContext<'_>, learner: &mut Learner<B>, corpus: &Corpus) -> Result<()> {
    let settings = &context.recipe.prune;
    let count = learner.model.layers.len();
    let keep = layers_left(settings, count)?;
    if keep == count {
        return Ok(());
    }
    let keep = if settings.keep_layers.is_empty() {
        let mut scores = vec![0.0; count];
        if settings.layer_importance == LayerImportance::Gradient {
            for_samples(context, corpus, TEXTS, |lesson| layer_gradients(learner, lesson, &mut scores))?;
            let shown: Vec<String> = scores.iter().map(|score| format!("{score:.3}")).collect();
            context.progress.message(&format!("prune: scores of layers {}", shown.join(" ")));
        }
        settings.layer_importance.select(&scores, keep, context.recipe.seed)
    } else {
        settings.keep_layers.clone()
    };
    keep_layers(learner, &keep)?;
    let kept = learner.model.config.kept_layers();
    context
        .progress
        .message(&format!("prune: layers {kept:?} of {} stay", learner.model.config.original_layers()));
    Ok(())
}

/// Hands `each` the first `prune.samples` training texts, so many at a time.
///
/// # Errors
/// What `each` returns; a signal.
pub fn for_samples(
    context: &StageContext<'_>,
    corpus: &Corpus,
    at_a_time: usize,
    mut each: impl FnMut(&Lesson) -> Result<()>,
) -> Result<()> {
    let texts = context.recipe.prune.samples.min(corpus.lessons().len());
    context.progress.begin("importance", texts as u64);
    for first in (0..texts).step_by(at_a_time) {
        let mut batch = Batch::new();
        let rows = first..(first + at_a_time).min(texts);
        rows.clone().for_each(|text| batch.push(corpus.train.text(text), text as u64));
        let labels = rows.clone().map(|text| corpus.train.label(text)).collect();
        each(&Lesson { batch, labels, teacher: None })?;
        context.progress.advance(rows.len() as u64);
        context.check_stop()?;
    }
    context.progress.end();
    Ok(())
}

fn budget(prune: &Prune) -> Budget {
    let watched = prune.weights > 0.0 && prune.weight_importance != WeightImportance::Magnitude;
    Budget {
        heads: prune.heads,
        head_importance: prune.head_importance,
        head_scope: prune.head_scope.into(),
        units: prune.units,
        unit_importance: prune.unit_importance.into(),
        unit_scope: prune.unit_scope.into(),
        weights: if watched { 0.0 } else { prune.weights },
        classifier: prune.classifier,
        weight_scope: prune.weight_scope.into(),
        blocks: if watched { single_weights(prune) } else { blocks(prune) },
    }
}

/// Weights that are watched while the network trains: blocks of one weight.
fn single_weights(prune: &Prune) -> BlockBudget {
    BlockBudget {
        fraction: prune.weights,
        shape: BlockShape { outputs: 1, inputs: 1 },
        importance: prune.weight_importance.into(),
        scope: match prune.weight_scope {
            WeightScope::Global => BlockScope::Global,
            WeightScope::Matrix => BlockScope::Matrix,
        },
        matrices: BlockMatrices::FeedForward,
    }
}

fn blocks(prune: &Prune) -> BlockBudget {
    let [outputs, inputs] = prune.block_shape;
    BlockBudget {
        fraction: prune.blocks,
        shape: BlockShape { outputs, inputs },
        importance: prune.block_importance,
        scope: prune.block_scope,
        matrices: prune.block_matrices,
    }
}

/// Measures what the budget's importances need on the first `prune.samples` training texts, a batch at a time.
fn measure<B: Backend>(
    context: &StageContext<'_>,
    learner: &Learner<B>,
    corpus: &Corpus,
    budget: &Budget,
) -> Result<Scores> {
    let mut scores = budget.no_scores(&learner.model.config);
    let attention = budget.head_importance == Importance::Attention && budget.heads > 0.0;
    if !attention && !budget.needs_gradients() {
        return Ok(scores);
    }
    for_samples(context, corpus, TEXTS, |lesson| {
        let Learner { backend, model, params, .. } = learner;
        if attention {
            attention_scores(learner, &lesson.batch, &mut scores)?;
        }
        if budget.needs_gradients() {
            gradients(
                backend,
                model,
                params,
                lesson,
                None,
                Some(&mut |seen, batch, taps, grads| {
                    scores.add_gradients(seen.backend, seen.model, batch, taps, grads)
                }),
            )?;
        }
        Ok(())
    })?;
    Ok(scores)
}
