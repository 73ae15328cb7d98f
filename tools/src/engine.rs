//! Where the command line meets the library: opening models, reading texts, running stages.
//!
//! Commands are written against the few functions here, so that what a model file is, or how a stage keeps
//! its artifacts, is decided in one place.

use crate::cli::Format;
use limbeck::report::Inspection;
use limbeck::report::measure::{Subject, Texts};
use limbeck::stages::{self, Recipe, Stage, StageContext};
use limbeck::{Error, Result};
use limbeck_kernels::Kernels;
use std::path::Path;

/// A model that reads text.
pub trait TextModel: Subject {
    /// Names of the classes, in the order of the logits.
    fn labels(&self) -> &[String];
    /// Longest text it can read, in tokens.
    fn positions(&self) -> usize;
    /// Token ids of `text`, with `[CLS]` and `[SEP]`, cut to `max_tokens`.
    fn encode(&self, text: &str, max_tokens: usize) -> Vec<u32>;
}

/// Opens a Hugging Face directory or a `.limbeck` file.
pub fn open(model: &Path, _kernels: Kernels, _threads: usize) -> Result<Box<dyn TextModel>> {
    Err(absent(&model.display().to_string()))
}

/// The test texts of `recipe`, as `model` reads them.
pub fn texts(_recipe: &Recipe, _model: &dyn TextModel) -> Result<Box<dyn Texts>> {
    Err(absent("data"))
}

/// What `model` is made of, timed on a text of `seq` tokens.
pub fn inspect(model: &Path, _seq: usize, _kernels: Kernels) -> Result<Inspection> {
    Err(absent(&model.display().to_string()))
}

/// Writes `model` to `out`, which must not exist.
pub fn export(model: &Path, _out: &Path, _format: Format) -> Result<()> {
    Err(absent(&model.display().to_string()))
}

/// Runs one stage.
pub fn stage(stage: Stage, context: &StageContext<'_>) -> Result<()> {
    match stage {
        Stage::Train => stages::train(context),
        Stage::Prune => stages::prune(context),
        Stage::Distill => stages::distill(context),
        Stage::Quantize => Err(absent(stage.name())),
    }
}

/// Opens the artifacts of all stages, baseline first, each under its name in the table.
pub fn variants(_context: &StageContext<'_>, _threads: usize) -> Result<Vec<(String, Box<dyn TextModel>)>> {
    Err(absent("run"))
}

fn absent(what: &str) -> Error {
    Error::setting(what, "this build has no engine behind the command line", "build a later commit")
}
