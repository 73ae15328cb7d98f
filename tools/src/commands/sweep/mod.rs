//! `limbeck sweep`: tries variants of a recipe; `limbeck sweep report`: what came out.
//!
//! ```text
//! DIR/sweep.toml         the sweep as one file
//! DIR/baselines/HASH/    a run of the train stage alone, for all trials that agree on it
//! DIR/trials/ID/         the run of a trial; its baseline is the shared one under a second name
//! DIR/trials/ID.json     what is tried there, and why it failed if it did
//! DIR/pareto.*           what `sweep report` makes of all that is finished; of an ablation, DIR/ablation.json
//! ```
//!
//! Processes share nothing but this directory, and need no order: each run's directory is held by whoever works in
//! it, artifacts appear whole, and a trial is finished when its `report.json` is there.

mod ablation;
mod directory;
mod gather;
mod pareto;
mod record;
mod report;
mod state;
mod timing;
mod trials;

use crate::cli::{self, Sweep, SweepCommand};
use crate::failure::Failure;
use crate::output::Output;
use crate::{progress, signals};
use gather::Trials;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::ranks::{Launch, SingleProcess};
use limbeck::report::Summary;
use limbeck::report::cells::aligned;
use limbeck::stages::{Progress, Recipe, StageContext, TrainingDevice, Trial};
use limbeck_kernels::Kernels;
use serde_json::{Value, json};
use state::{SHIPPED, State};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use timing::Bench;
use trials::Runner;

pub fn sweep(typed: &Sweep) -> Result<(), Failure> {
    if let Some(SweepCommand::Report(typed)) = &typed.command {
        return report::report(typed);
    }
    let (plan, part) = (typed.plan()?, typed.part()?);
    let out = typed.out(&plan);
    let mine: Vec<&Trial> =
        plan.trials.iter().enumerate().filter(|(number, _)| part(*number)).map(|(_, trial)| trial).collect();
    if typed.dry_run {
        return print(&out, &mine, typed.common.json).map(drop);
    }
    let kernels = Kernels::select()?;
    let (stop, progress) = (signals::stop_flag()?, progress::choose(typed.common.quiet));
    let (threads, progress) = (cli::threads(plan.recipe.threads), &*progress);
    set_threads(threads)?;
    let name = &plan.recipe.name;
    let launch = Launch::of_environment()?;
    if launch.size > 1 {
        let mend = "trials are independent: give each process --index and --of";
        return Err(Failure::Usage(format!("a sweep is not shared by {} ranks; {mend}", launch.size)));
    }
    let device = typed.common.training_device(launch.local_rank)?;
    let compute = Compute { out: &out, kernels, device: &device, threads, progress, stop: &stop };
    directory::enter(&compute, &plan)?;
    Runner { compute, name }.all(&mine)?;
    let trials = Trials::read(&out)?;
    if plan.ablation && trials.notes.is_empty() {
        let wanted = ablation::AblationOptions { timed: true, json: typed.common.json, into: None };
        ablation::report(&Bench { compute, recipe: &plan.recipe }, &trials, wanted)?;
    } else {
        let failed = print(&out, &mine, typed.common.json)?;
        if !failed.is_empty() {
            let heading = format!("{} of {} trials failed", failed.len(), mine.len());
            return Err(Failure::Trials([vec![heading], failed].concat()));
        }
    }
    gate(&Summary::of(&trials.finished, SHIPPED), typed.max_drop)
}

/// Prints how far trials are; a line for each that has failed is returned.
fn print(out: &Path, trials: &[&Trial], as_json: bool) -> Result<Vec<String>, Failure> {
    let states: Vec<State> = trials.iter().map(|trial| State::of(out, trial)).collect();
    let mut output = Output::new();
    if as_json {
        let all: Vec<Value> =
            trials.iter().zip(&states).map(|(trial, state)| state.json(out, trial)).collect();
        output.json(&json!({ "sweep": out, "trials": all }))?;
    } else {
        let mut lines = vec![["trial", "is", "accuracy %", "Δ points", "MiB"].map(str::to_owned)];
        lines.extend(trials.iter().zip(&states).map(|(trial, state)| state.cells(trial)));
        output.text(aligned(&lines))?;
    }
    output.flush()?;
    let failed = trials.iter().zip(&states).filter_map(|(trial, state)| match state {
        State::Failed(problem) => Some(format!("trial {}: {problem}", trial.id)),
        _ => None,
    });
    Ok(failed.collect())
}

/// Refuses to ship if no setting comes near enough to its baseline.
fn gate(summary: &Summary, max_drop: Option<f64>) -> Result<(), Failure> {
    let Some(allowed) = max_drop.filter(|max_drop| summary.smallest_within(*max_drop).is_none()) else {
        return Ok(());
    };
    let settings = summary.points.iter().filter(|point| !point.reference);
    let Some(best) = settings.max_by(|a, b| a.accuracy.difference.total_cmp(&b.accuracy.difference)) else {
        return Err(Failure::Gate(format!("no trial is finished; --max-drop is {allowed}")));
    };
    Err(Failure::Gate(format!(
        "the best setting, {}, is {:.2} points below its baseline; --max-drop is {allowed}",
        best.name,
        -100.0 * best.accuracy.difference
    )))
}

/// What every trial is computed with, and where.
#[derive(Clone, Copy)]
struct Compute<'a> {
    /// The sweep's directory.
    out: &'a Path,
    /// As in [`StageContext`], as are those that follow.
    kernels: Kernels,
    device: &'a TrainingDevice,
    threads: usize,
    progress: &'a dyn Progress,
    stop: &'a AtomicBool,
}

impl<'a> Compute<'a> {
    /// The stages of a recipe, in a run's directory.
    fn context(&self, recipe: &'a Recipe, out: &'a Path) -> StageContext<'a> {
        let Compute { kernels, device, threads, progress, stop, .. } = *self;
        StageContext {
            recipe,
            out,
            resume: true,
            kernels,
            device,
            threads,
            ranks: &SingleProcess,
            progress,
            stop,
        }
    }
}
