//! What few bits do to a model directory, on texts.

use super::recipe::tables::Train;
use super::{Recipe, artifact, corpus::test_texts};
use crate::backend::Cpu;
use crate::checkpoint::HfDirectory;
use crate::compress::sensitivity::{Looking, Sensitivity, measure};
use crate::nn::{ParamSpec, Role};
use crate::train::Progress;
use crate::{Error, Result};
use limbeck_kernels::Kernels;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Who waits for [`sensitivity`], and where it may keep tokens.
pub struct Waiting<'a> {
    /// Where token ids are kept.
    pub cache: &'a Path,
    /// Told how far it is.
    pub progress: &'a dyn Progress,
    /// Set by a signal.
    pub stop: &'a AtomicBool,
}

/// Measures every matrix and table of the model directory `model` on the first `count` texts of the recipe's test file.
///
/// # Errors
/// Whatever is wrong with the model or the texts; a signal.
pub fn sensitivity(
    model: &Path,
    recipe: &Recipe,
    count: usize,
    waiting: &Waiting<'_>,
) -> Result<Sensitivity> {
    if model.is_file() {
        let mend = "give the directory that it was made from: a run keeps it as distilled";
        return Err(Error::file(model, "what is rounded already has no noise to measure", mend));
    }
    let directory = HfDirectory::open(model)?;
    let config = &directory.config;
    let texts = test_texts(recipe, &directory.tokenizer()?, &config.labels, config.positions, waiting.cache)?;
    let mut learner = artifact::load(&Cpu::new(Kernels::select()?), model, &Train::default())?;
    let Waiting { progress, stop, .. } = *waiting;
    let looking = Looking { texts: &texts, count: count.min(texts.len()), blocks: true, progress, stop };
    measure(&mut learner, looking, is_rounded)
}

/// Whether few bits are for a parameter.
fn is_rounded(spec: &ParamSpec) -> bool {
    matches!(spec.role, Role::Weight | Role::Embedding) && !spec.is_empty()
}
