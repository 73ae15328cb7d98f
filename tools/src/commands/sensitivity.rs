//! `limbeck sensitivity`: what few bits do to each matrix of a model.

use crate::cli::{self, DataOptions, Sensitivity};
use crate::failure::Failure;
use crate::output::Output;
use crate::{engine, progress};
use limbeck::backend::cpu::threads::set_threads;
use std::sync::atomic::AtomicBool;

pub fn sensitivity(typed: &Sensitivity) -> Result<(), Failure> {
    typed.common.cpu_only("sensitivity")?;
    set_threads(cli::threads(typed.common.threads.unwrap_or(0)))?;
    // Of a directory the training texts: what is chosen on the texts of the test is not tested by them.
    let data = if typed.data.is_dir() { typed.data.join("train.csv") } else { typed.data.clone() };
    let recipe = DataOptions { data, set: typed.set.clone() }.recipe()?;
    let progress = progress::choose(typed.common.quiet);
    // A signal ends this command as it ends others that have nothing to save.
    let never = AtomicBool::new(false);
    let found = engine::sensitivity(&typed.model, &recipe, typed.texts as usize, &*progress, &never)?;
    let mut output = Output::new();
    match (typed.common.json, typed.markdown) {
        (true, _) => output.json(&found)?,
        (_, true) => output.text(found.markdown())?,
        _ => output.text(found.text())?,
    }
    output.flush()
}
