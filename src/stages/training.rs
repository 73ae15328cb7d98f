//! What the three stages that train have in common.

use super::recipe::tables::Train;
use super::{Corpus, Stage, StageContext, artifact};
use crate::backend::Cpu;
use crate::checkpoint::{HfDirectory, check_complete};
use crate::models::Classifier;
use crate::ops::loss::Distillation;
use crate::ops::rounded::Rounding;
use crate::train::{Companion, Learner, Schedule, Trained, Training, teacher, train};
use crate::{Error, Result};
use std::path::Path;

/// The teacher that is this run's own first artifact.
const BASELINE: &str = "baseline";

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
        parent: parent_hash(context, stage, teacher.is_some())?,
        rows: corpus.lessons(),
        held_out: corpus.held_out(),
        teacher,
        rounding: (stage == Stage::Distill).then(|| rounding(context, steps)).flatten(),
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
    train(learner, &training, companion).map_err(|error| match error {
        Error::Diverged { step, loss, blame, .. } => {
            Error::Diverged { step, loss, blame, mend: mend_divergence(context, stage) }
        }
        other => other,
    })
}

/// What the student is rounded to, and from which of its steps on.
fn rounding(context: &StageContext<'_>, steps: u64) -> Option<(Rounding, u64)> {
    let rounded = (context.recipe.distill.quantized * steps as f64).round() as u64;
    let to = super::quantize::quantization(&context.recipe.quantize).rounding();
    (rounded > 0).then(|| (to, steps.saturating_sub(rounded)))
}

/// What to change after a divergence, by the stage's own keys, and how to go on.
fn mend_divergence(context: &StageContext<'_>, stage: Stage) -> String {
    let table = match stage {
        Stage::Train => "train",
        Stage::Prune => "prune.train",
        Stage::Distill => "distill.train",
        Stage::Quantize => unreachable!("it trains nothing"),
    };
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

/// The content hash of the weights that a stage starts from, empty for a new encoder, and of those of a given teacher:
/// the run's own is bound as the first artifact is.
fn parent_hash(context: &StageContext<'_>, stage: Stage, taught: bool) -> Result<String> {
    let model = &context.recipe.model.path;
    let mut hash = match stage.parent() {
        Some(parent) => artifact::weights_hash(&context.artifact(parent))?,
        None if model.is_empty() => String::new(),
        None => artifact::weights_hash(Path::new(model))?,
    };
    let teacher = &context.recipe.distill.teacher;
    if taught && teacher != BASELINE {
        hash += &format!(" taught by {}", artifact::weights_hash(Path::new(teacher)).map_err(of_teacher)?);
    }
    Ok(hash)
}

/// Whether the recipe's teacher, if it is none of the run's own networks, can teach: told before the first step rather
/// than after the first stage.
///
/// # Errors
/// Whatever is wrong with it, naming the key.
pub fn check_given_teacher(context: &StageContext<'_>, corpus: &Corpus) -> Result<()> {
    match context.recipe.distill.teacher.as_str() {
        BASELINE => Ok(()),
        path => check_teacher(Path::new(path), corpus, context.recipe.data.max_tokens).map_err(of_teacher),
    }
}

/// The logits of the recipe's teacher for all training texts, and how to learn from them.
///
/// # Errors
/// The teacher's logits would mean something else than the student's; and those of [`teacher::logits`].
pub fn teach(context: &StageContext<'_>, corpus: &Corpus) -> Result<(Vec<f32>, Distillation)> {
    let distill = &context.recipe.distill;
    let path = match distill.teacher.as_str() {
        BASELINE => context.need(Stage::Train)?,
        path => Path::new(path).to_owned(),
    };
    check_teacher(&path, corpus, context.recipe.data.max_tokens).map_err(of_teacher)?;
    let hash = artifact::weights_hash(&path)?;
    let load = || artifact::load(&artifact::device(context, &distill.train), &path, &distill.train);
    let cache = context.cache().join("teacher-logits.safetensors");
    let logits = teacher::logits(load, &hash, &corpus.train, &cache, context.progress, context.stop)?;
    Ok((logits, Distillation { temperature: distill.temperature as f32, alpha: distill.alpha as f32 }))
}

/// Whether a teacher reads the student's token ids and answers in the student's classes.
fn check_teacher(path: &Path, corpus: &Corpus, max_tokens: usize) -> Result<()> {
    let teacher = &HfDirectory::open(path)?;
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

/// What is wrong with a teacher's files, under the key that names it.
fn of_teacher(error: Error) -> Error {
    let key = "distill.teacher";
    match error {
        Error::File { path, line: None, problem, mend } => {
            Error::setting(key, format!("{}: {problem}", path.display()), mend)
        }
        Error::Tensor { path, tensor, problem, mend } => {
            Error::setting(key, format!("{}, tensor {tensor}: {problem}", path.display()), mend)
        }
        other => other,
    }
}
