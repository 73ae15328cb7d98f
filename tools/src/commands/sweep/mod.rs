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
mod gather;
mod record;
mod report;
mod timing;
mod trials;

use super::stages::REPORT;
use crate::cli::{self, Sweep, SweepCommand};
use crate::failure::Failure;
use crate::output::Output;
use crate::{progress, signals};
use gather::Trials;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::ranks::{Launch, SingleProcess};
use limbeck::report::cells::{aligned, dash, mib, percent, points};
use limbeck::report::{Summary, Table};
use limbeck::stages::{self, Progress, Recipe, StageContext, TrainingDevice, Trial};
use limbeck::{Error, files};
use limbeck_kernels::Kernels;
use record::Record;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use timing::Bench;
use trials::Runner;

/// The sweep as one file, which makes a directory that of a sweep.
const SWEEP: &str = "sweep.toml";

/// The row of a run's table that a trial stands or falls by.
const SHIPPED: &str = stages::Stage::Quantize.variant();

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
    refuse_others(&compute, &plan)?;
    enter(&out, &plan)?;
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

/// Refuses to touch a directory in which trials of the same names are finished that were made with other settings.
fn refuse_others(compute: &Compute<'_>, plan: &stages::Sweep) -> Result<(), Failure> {
    let is_other = |trial: &&Trial| matches!(State::of(compute.out, trial), State::Other { finished: true });
    let Some(first) = plan.trials.iter().find(is_other) else { return Ok(()) };
    // The run's directory says how they differ.
    compute.context(&first.recipe, &trial_directory(compute.out, &first.id)).enter(stages::Stage::Train)?;
    let found = format!("trials of other settings, as {}", first.id);
    let mend = "choose another --out, or repeat the settings in its sweep.toml".to_owned();
    Err(Error::Occupied { path: compute.out.to_owned(), found, mend }.into())
}

/// Makes the directory a sweep's, and writes down of which.
fn enter(out: &Path, plan: &stages::Sweep) -> Result<(), Failure> {
    let file = out.join(SWEEP);
    let is_ours = |entry: fs::DirEntry| files::is_partial(&entry.file_name());
    if !file.exists() && fs::read_dir(out).is_ok_and(|entries| !entries.flatten().all(is_ours)) {
        let found = if out.join("run.json").exists() { "a run" } else { "files that are not of a sweep" };
        let mend = "choose another --out".to_owned();
        return Err(Error::Occupied { path: out.to_owned(), found: found.to_owned(), mend }.into());
    }
    if let Ok(other) = stages::Sweep::load(&file, &[])
        && (&other.recipe.name, other.ablation) != (&plan.recipe.name, plan.ablation)
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

/// The directory of a trial's run.
fn trial_directory(out: &Path, id: &str) -> PathBuf {
    out.join("trials").join(id)
}

/// What a trial's run measured.
fn table_of(directory: &Path) -> limbeck::Result<Table> {
    Table::load(&directory.join(REPORT))
}

/// How far a trial is, as its directory says.
enum State {
    Finished(Box<Table>),
    Failed(String),
    /// What is there was made with other settings.
    Other {
        finished: bool,
    },
    Begun,
    New,
}

impl State {
    fn of(out: &Path, trial: &Trial) -> State {
        let directory = trial_directory(out, &trial.id);
        match Record::load(out, &trial.id) {
            Some(record) if !record.is_of(trial) => {
                return State::Other { finished: record.error.is_none() && table_of(&directory).is_ok() };
            }
            Some(Record { error: Some(error), .. }) => return State::Failed(error),
            _ => {}
        }
        match table_of(&directory) {
            Ok(table) => State::Finished(Box::new(table)),
            Err(_) if directory.join("run.json").exists() => State::Begun,
            Err(_) => State::New,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            State::Finished(_) => "finished",
            State::Failed(_) => "failed",
            State::Other { .. } => "of other settings",
            State::Begun => "begun",
            State::New => "not begun",
        }
    }

    fn cells(&self, trial: &Trial) -> [String; 5] {
        let figures = match self {
            State::Finished(table) => shipped(table).map(|row| {
                let difference = row.accuracy - table.rows[0].accuracy;
                [percent(row.accuracy), points(difference), mib(row.file_bytes as f64)]
            }),
            _ => None,
        };
        let [accuracy, points, mib] = figures.unwrap_or_else(|| std::array::from_fn(|_| dash(None, percent)));
        [trial.id.clone(), self.name().to_owned(), accuracy, points, mib]
    }

    fn json(&self, out: &Path, trial: &Trial) -> Value {
        let settings: serde_json::Map<String, Value> =
            trial.settings.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let (mut accuracy, mut baseline, mut bytes) = (Value::Null, Value::Null, Value::Null);
        if let State::Finished(table) = self
            && let Some(row) = shipped(table)
        {
            (accuracy, bytes) = (json!(row.accuracy), json!(row.file_bytes));
            baseline = json!(table.rows[0].accuracy);
        }
        let error = if let State::Failed(error) = self { json!(error) } else { Value::Null };
        json!({
            "id": trial.id, "setting": trial.setting, "seed": trial.seed, "settings": settings,
            "directory": trial_directory(out, &trial.id), "state": self.name(), "error": error,
            "accuracy": accuracy, "baseline_accuracy": baseline, "file_bytes": bytes,
        })
    }
}

/// The row of the file that is deployed.
fn shipped(table: &Table) -> Option<&limbeck::report::table::RowMetrics> {
    table.rows.iter().find(|row| row.variant == SHIPPED)
}
