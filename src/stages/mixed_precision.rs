//! What few bits do to each matrix of a network, and which of them it is worth.
//!
//! What `"auto"` chose is kept as [`CHOICE`] in the run's directory, with all that was measured. It is made once: training
//! for few bits and the file go by the same choice.

use super::recipe::tables::{EmbeddingKind, Layout, Train, WeightKind};
use super::{Corpus, Recipe, Stage, StageContext, artifact, corpus::test_texts};
use crate::backend::Cpu;
use crate::checkpoint::HfDirectory;
use crate::nn::{ParamSpec, Role};
use crate::quantize::mixed_precision::{largest, order};
use crate::quantize::sensitivity::{Scan, Sensitivity, measure};
use crate::quantize::{Exceptions, Form, Quantization};
use crate::ranks::SingleProcess;
use crate::train::evaluate::accuracy_unless;
use crate::train::{Learner, Progress};
use crate::{Error, Result, files};
use limbeck_kernels::Kernels;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// The file of a run that says what was chosen, and why.
const CHOICE: &str = "precision.json";

/// Who waits for [`sensitivity`], and where it may keep tokens.
pub struct ScanContext<'a> {
    /// Where token ids are kept.
    pub cache: &'a Path,
    /// Told how far it is.
    pub progress: &'a dyn Progress,
    /// Set by a signal.
    pub stop: &'a AtomicBool,
}

/// Measures every matrix and table of the model directory `model` on the first `count` texts of the file that the recipe
/// has as `data.test`: the command gives it training texts, for what is chosen on a test's texts is not tested by them.
///
/// # Errors
/// Whatever is wrong with the model or the texts; a signal.
pub fn sensitivity(
    model: &Path,
    recipe: &Recipe,
    count: usize,
    scan_context: &ScanContext<'_>,
) -> Result<Sensitivity> {
    if model.is_file() {
        let mend = "give the directory that it was made from: a run keeps it as distilled";
        return Err(Error::file(model, "what is rounded already has no noise to measure", mend));
    }
    let directory = HfDirectory::open(model)?;
    let config = &directory.config;
    let texts =
        test_texts(recipe, &directory.tokenizer()?, &config.labels, config.positions, scan_context.cache)?;
    let mut learner = artifact::load(&Cpu::new(Kernels::select()?), model, &Train::default())?;
    let ScanContext { progress, stop, .. } = *scan_context;
    let scan = Scan { texts: &texts, count: count.min(texts.len()), blocks: true, progress, stop };
    measure(&mut learner, scan, is_rounded)
}

/// Whether few bits are for a parameter.
fn is_rounded(spec: &ParamSpec) -> bool {
    matches!(spec.role, Role::Weight | Role::Embedding) && !spec.is_empty()
}

/// What was chosen, as far as it is read again.
#[derive(Deserialize)]
struct Chosen {
    made_from: String,
    int4: Vec<String>,
    order: Vec<String>,
}

impl Chosen {
    /// The choice that was kept, if it was made from this and is whole: the first of the order are in int4.
    fn open(path: &Path, made_from: &str) -> Option<Vec<String>> {
        let kept: Chosen = serde_json::from_slice(&files::read(path).ok()?).ok()?;
        (kept.made_from == made_from && kept.order.starts_with(&kept.int4)).then_some(kept.int4)
    }
}

/// What was chosen, and why.
#[derive(Serialize)]
struct Choice<'a> {
    /// A hash of all that decides it.
    made_from: &'a str,
    /// Matrices and tables that become int4; the others that could have are int8.
    int4: &'a [String],
    /// Accuracy of the network in f32 on the held-out rows.
    accuracy_f32: f64,
    /// How many of `order` were in int4, and the accuracy with those, as they were tried.
    tried: &'a [(usize, f64)],
    /// Least damage for each byte saved first.
    order: &'a [String],
    sensitivity: &'a Sensitivity,
}

/// What the recipe's network is quantized to: as the recipe says, and as was chosen where it says `"auto"`.
///
/// # Errors
/// An earlier stage is missing; whatever is wrong with the texts; a signal; a full disk.
pub(super) fn resolve(context: &StageContext<'_>) -> Result<Quantization> {
    // What one process decides asks the others nothing.
    let alone = StageContext { ranks: &SingleProcess, ..*context };
    context.ranks.first_then(|| resolve_alone(&alone))
}

fn resolve_alone(context: &StageContext<'_>) -> Result<Quantization> {
    let recipe = context.recipe;
    let asked = recipe.quantize.quantization();
    if !recipe.quantize.chooses() {
        return Ok(asked);
    }
    // Who is trained for it must know it before.
    let (stage, source) = match recipe.distill.quantized > 0.0 {
        true => (Stage::Distill, context.need(Stage::Prune)?),
        false => (Stage::Quantize, context.need(Stage::Distill)?),
    };
    let made_from = format!("{} {}", artifact::weights_hash(&source)?, context.recipe_hash(stage));
    let made_from = files::sha256(made_from.as_bytes());
    let path = context.out.join(CHOICE);
    let int4 = match Chosen::open(&path, &made_from) {
        Some(int4) => int4,
        None => choose(context, &source, &asked, (&path, &made_from))?,
    };
    Ok(with_int4(&asked, &int4))
}

/// A quantization with these parameters in int4.
fn with_int4(asked: &Quantization, int4: &[String]) -> Quantization {
    let given = asked.exceptions.iter().map(|(name, form)| (name.to_owned(), form));
    let exceptions = given.chain(int4.iter().map(|name| (name.clone(), Form::Int4))).collect();
    Quantization { exceptions: Exceptions::new(exceptions), ..asked.clone() }
}

/// Chooses on training texts, and keeps what was chosen as the file of that name.
fn choose(
    context: &StageContext<'_>,
    source: &Path,
    asked: &Quantization,
    (path, made_from): (&Path, &str),
) -> Result<Vec<String>> {
    let settings = &context.recipe.quantize;
    let whole = Corpus::open(context)?;
    let corpus = whole.as_read_by_model(source)?;
    let mut learner = artifact::load(&Cpu::new(context.kernels), source, &Train::default())?;
    let scan = Scan {
        texts: &corpus.train,
        count: settings.samples.min(corpus.train_rows().len()),
        blocks: settings.layout != Layout::Dense,
        progress: context.progress,
        stop: context.stop,
    };
    let is_free = |spec: &ParamSpec| {
        let open = match spec.role {
            Role::Weight => settings.weights == WeightKind::Auto,
            Role::Embedding => settings.embeddings == EmbeddingKind::Auto,
            Role::Bias | Role::Gamma | Role::Beta => false,
        };
        open && !spec.is_empty() && asked.exceptions.form(&spec.name).is_none()
    };
    let sensitivity = measure(&mut learner, scan, is_free)?;
    let order: Vec<String> = order(&sensitivity).iter().map(|parameter| parameter.name.clone()).collect();
    let accuracy = |learner: &mut Learner<Cpu>, form: Option<Quantization>| {
        learner.params.round(form.map(|form| form.rounding()));
        accuracy_unless(context.stop, learner, &corpus.train, corpus.held_out())
    };
    let exact = accuracy(&mut learner, None)?;
    // Fractions of the same rows: what differs by less than a text is equal.
    let least = exact - settings.budget / 100.0 - 1e-9;
    let mut tried = vec![(0, accuracy(&mut learner, Some(asked.clone()))?)];
    let count = largest(order.len(), |count| {
        let found = accuracy(&mut learner, Some(with_int4(asked, &order[..count])))?;
        tried.push((count, found));
        Ok(found >= least)
    })?;
    let int4 = &order[..count];
    let (order, tried) = (&order[..], &tried[..]);
    let choice = Choice { made_from, int4, accuracy_f32: exact, tried, order, sensitivity: &sensitivity };
    tell(context, &choice, least);
    let text = serde_json::to_string_pretty(&choice).expect("numbers and texts are JSON");
    files::replace_bytes(path, format!("{text}\n").as_bytes())?;
    Ok(int4.to_vec())
}

/// Says what was chosen, where the budget allows an accuracy of `least`.
fn tell(context: &StageContext<'_>, choice: &Choice<'_>, least: f64) {
    let Choice { int4, accuracy_f32, tried, order, sensitivity, .. } = choice;
    let saved = sensitivity.parameters.iter().filter(|parameter| int4.contains(&parameter.name));
    let saved: usize = saved.map(|parameter| parameter.saved()).sum();
    let with =
        tried.iter().find(|(count, _)| *count == int4.len()).map_or(*accuracy_f32, |(_, found)| *found);
    context.progress.message(&format!(
        "precision: {} of {} matrices and tables that int4 makes smaller become int4, which saves {saved} bytes; held-out \
         accuracy {:.2} %, in f32 {:.2} %, budget {} points",
        int4.len(),
        order.len(),
        100.0 * with,
        100.0 * accuracy_f32,
        context.recipe.quantize.budget,
    ));
    if with < least {
        context.progress.message(&format!(
            "precision: even with none of these in int4, held-out accuracy is more than quantize.budget = {} points below f32's",
            context.recipe.quantize.budget
        ));
    }
    let others = &order[int4.len()..];
    if !others.is_empty() {
        context.progress.message(&format!("precision: int8 are {}", others.join(", ")));
    }
}
