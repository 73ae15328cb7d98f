//! What the three stages that train have in common.

use super::recipe::tables::Train;
use super::{Corpus, Stage, StageContext, artifact, mixed_precision, teachers};
use crate::ops::Backend;
use crate::ops::loss::Distillation;
use crate::ops::rounded::Rounding;
use crate::train::{Callback, Learner, Schedule, Training, TrainingOutcome, train};
use crate::{Error, Result};
use std::path::Path;

/// Optimizer steps of a training over `texts` texts; at least one if it is to train at all.
pub fn steps(settings: &Train, texts: usize) -> u64 {
    match settings.steps {
        0 if settings.epochs == 0.0 => 0,
        0 => ((settings.epochs * texts.div_ceil(settings.batch) as f64).round() as u64).max(1),
        steps => steps,
    }
}

/// Runs a training of `stage`.
///
/// # Errors
/// Those of [`train`].
pub fn run<B: Backend>(
    context: &StageContext<'_>,
    stage: Stage,
    settings: &Train,
    corpus: &Corpus,
    learner: &mut Learner<B>,
    teacher: Option<(&[f32], Distillation)>,
    callback: Option<&mut dyn Callback<B>>,
) -> Result<TrainingOutcome> {
    let steps = steps(settings, corpus.train_rows().len());
    let training = Training {
        stage: stage.name(),
        texts: &corpus.train,
        parent: parent_hash(context, stage, teacher.is_some())?,
        rows: corpus.train_rows(),
        held_out: corpus.held_out(),
        teacher,
        rounding: if stage == Stage::Distill { rounding(context, steps)? } else { None },
        batch: settings.batch,
        schedule: Schedule {
            learning_rate: settings.learning_rate,
            warmup: (settings.warmup * steps as f64).round() as u64,
            steps,
        },
        evaluate_every: settings.evaluate_every,
        checkpoint_every: settings.checkpoint_every,
        patience: settings.patience,
        keep_best: settings.keep_best,
        seed: context.recipe.seed,
        state: context.state(stage),
        metrics: context.metrics(),
        resume: context.resume,
        ranks: context.ranks,
        progress: context.progress,
        stop: context.stop,
    };
    train(learner, &training, callback).map_err(|error| match error {
        Error::Diverged { step, loss, blame, .. } => {
            Error::Diverged { step, loss, blame, mend: mend_divergence(context, stage) }
        }
        other => other,
    })
}

/// What the student is rounded to, and from which of its steps on.
fn rounding(context: &StageContext<'_>, steps: u64) -> Result<Option<(Rounding, u64)>> {
    let rounded = (context.recipe.distill.quantized * steps as f64).round() as u64;
    if rounded == 0 {
        return Ok(None);
    }
    Ok(Some((mixed_precision::resolve(context)?.rounding(), steps.saturating_sub(rounded))))
}

/// What to change after a divergence, by the stage's own keys, and how to go on.
fn mend_divergence(context: &StageContext<'_>, stage: Stage) -> String {
    let (table, _) = context.recipe.training(stage).expect("it trains");
    let mut mend = format!("lower {table}.learning_rate, or raise {table}.warmup, and go on with --resume");
    if stage != Stage::Train {
        mend += ", which keeps the stages before";
    }
    // Gone on from, it would diverge again.
    let state = context.state(stage);
    if state.exists() {
        mend += &format!("; remove {} first", state.display());
    }
    mend
}

/// The content hash of the weights that a stage starts from, empty for a new encoder, and of those of given teachers.
fn parent_hash(context: &StageContext<'_>, stage: Stage, taught: bool) -> Result<String> {
    let model = &context.recipe.model.path;
    let mut hash = match stage.parent() {
        Some(parent) => artifact::weights_hash(&context.artifact(parent))?,
        None if model.is_empty() => String::new(),
        None => artifact::weights_hash(Path::new(model))?,
    };
    if taught {
        hash += &teachers::hashes(context)?;
    }
    Ok(hash)
}
