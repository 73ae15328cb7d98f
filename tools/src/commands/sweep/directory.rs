//! A sweep's directory: whether it is one, and may be written to.

use super::Compute;
use super::record::trial_directory;
use super::state::State;
use crate::failure::Failure;
use limbeck::stages::{Stage, Sweep, Trial};
use limbeck::{Error, files};
use std::fs;

/// The sweep as one file, which makes a directory that of a sweep.
pub const SWEEP: &str = "sweep.toml";

/// Makes the directory a sweep's, and writes down of which.
///
/// # Errors
/// [`Error::Occupied`] if it holds something else, or trials that were made with other settings; a full disk.
pub fn enter(compute: &Compute<'_>, plan: &Sweep) -> Result<(), Failure> {
    refuse_other_trials(compute, plan)?;
    let out = compute.out;
    let file = out.join(SWEEP);
    let is_ours = |entry: fs::DirEntry| files::is_partial(&entry.file_name());
    if !file.exists() && fs::read_dir(out).is_ok_and(|entries| !entries.flatten().all(is_ours)) {
        let found = if out.join("run.json").exists() { "a run" } else { "files that are not of a sweep" };
        let mend = "choose another --out".to_owned();
        return Err(Error::Occupied { path: out.to_owned(), found: found.to_owned(), mend }.into());
    }
    if let Ok(other) = Sweep::load(&file, &[])
        && is_another(&other, plan)
        && other.trials.iter().any(|trial| matches!(State::of(out, trial), State::Finished(_)))
    {
        let kind = if other.ablation { "ablation" } else { "sweep" };
        let found = format!("finished trials of another {kind}, of {}", other.recipe.name);
        return Err(
            Error::Occupied { path: out.to_owned(), found, mend: "choose another --out".to_owned() }.into()
        );
    }
    if files::read(&file).ok().as_deref() != Some(plan.canonical().as_bytes()) {
        files::replace_bytes(&file, plan.canonical().as_bytes())?;
    }
    Ok(())
}

/// Whether two sweeps have nothing to do with each other. Of one whose recipe has changed the trials that it tries no more
/// would stand beside others in one table.
fn is_another(other: &Sweep, plan: &Sweep) -> bool {
    let identity = |sweep: &Sweep| sweep.recipe.identity(Stage::Quantize);
    let tried = |trial: &Trial| plan.trials.iter().any(|own| own.id == trial.id);
    (&other.recipe.name, other.ablation) != (&plan.recipe.name, plan.ablation)
        || identity(other) != identity(plan) && !other.trials.iter().all(tried)
}

/// Refuses to touch trials of the same names that are finished and were made with other settings.
fn refuse_other_trials(compute: &Compute<'_>, plan: &Sweep) -> Result<(), Failure> {
    let is_other = |trial: &&Trial| matches!(State::of(compute.out, trial), State::Other { finished: true });
    let Some(first) = plan.trials.iter().find(is_other) else { return Ok(()) };
    // The run's directory says how they differ.
    compute.context(&first.recipe, &trial_directory(compute.out, &first.id)).enter(Stage::Train)?;
    let found = format!("trials of other settings, as {}", first.id);
    let mend = "choose another --out, or repeat the settings in its sweep.toml".to_owned();
    Err(Error::Occupied { path: compute.out.to_owned(), found, mend }.into())
}
