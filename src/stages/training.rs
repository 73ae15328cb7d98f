//! What the three stages that train have in common.

use super::recipe::tables::Train;
use super::{Corpus, Stage, StageContext, artifact};
use crate::backend::Cpu;
use crate::checkpoint::{HfDirectory, check_complete};
use crate::models::Classifier;
use crate::ops::loss::Distillation;
use crate::train::{Companion, Learner, Schedule, Trained, Training, teacher, train};
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
pub fn run(
    context: &StageContext<'_>,
    stage: Stage,
    settings: &Train,
    corpus: &Corpus,
    learner: &mut Learner<Cpu>,
    teacher: Option<(&[f32], Distillation)>,
    companion: Option<&mut dyn Companion<Cpu>>,
) -> Result<Trained> {
    let steps = steps(settings, corpus.lessons().len());
    let training = Training {
        stage: stage.name(),
        texts: &corpus.train,
        parent: parent_hash(context, stage)?,
        rows: corpus.lessons(),
        held_out: corpus.held_out(),
        teacher,
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
        progress: context.progress,
        stop: context.stop,
    };
    train(learner, &training, companion)
}

/// The content hash of the weights that a stage starts from; empty for a new encoder.
fn parent_hash(context: &StageContext<'_>, stage: Stage) -> Result<String> {
    let model = &context.recipe.model.path;
    match stage.parent() {
        Some(parent) => artifact::weights_hash(&context.artifact(parent)),
        None if model.is_empty() => Ok(String::new()),
        None => artifact::weights_hash(Path::new(model)),
    }
}

/// The logits of the recipe's teacher for all training texts, and how to learn from them.
///
/// # Errors
/// The teacher's logits would mean something else than the student's; and those of [`teacher::logits`].
pub fn teach(context: &StageContext<'_>, corpus: &Corpus) -> Result<(Vec<f32>, Distillation)> {
    let distill = &context.recipe.distill;
    let path = match distill.teacher.as_str() {
        "baseline" => context.need(Stage::Train)?,
        path => Path::new(path).to_owned(),
    };
    check_teacher(&HfDirectory::open(&path)?, corpus, context.recipe.data.max_tokens)?;
    let hash = artifact::weights_hash(&path)?;
    let load = || artifact::load(&artifact::device(context, &distill.train), &path, &distill.train);
    let cache = context.cache().join("teacher-logits.safetensors");
    let logits = teacher::logits(load, &hash, &corpus.train, &cache, context.progress, context.stop)?;
    Ok((logits, Distillation { temperature: distill.temperature as f32, alpha: distill.alpha as f32 }))
}

/// Whether a teacher reads the student's token ids and answers in the student's classes.
fn check_teacher(teacher: &HfDirectory, corpus: &Corpus, max_tokens: usize) -> Result<()> {
    let config = &teacher.config;
    let refused = |problem: String, mend: &str| Err(Error::setting("distill.teacher", problem, mend));
    if config.labels != corpus.train.labels() {
        return refused(
            format!("its classes are {:?}, those of the data {:?}", config.labels, corpus.train.labels()),
            "give a model that was trained on this task, with the same names in the same order",
        );
    }
    check_complete(teacher, &Classifier::new(config).1)?;
    if teacher.tokenizer()?.content_hash() != corpus.tokenizer.content_hash() {
        return refused(
            "its tokenizer is not that of the model, whose token ids it would misread".to_owned(),
            "give a teacher of the same vocabulary",
        );
    }
    if max_tokens > config.positions {
        return refused(
            format!("it reads {} tokens, and data.max_tokens is {max_tokens}", config.positions),
            "lower data.max_tokens, or give another teacher",
        );
    }
    Ok(())
}
