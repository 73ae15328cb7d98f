//! What a sweep's directory holds: the finished trials, and a line about each that is not.

use super::directory::SWEEP;
use super::record::{Record, trial_directory};
use super::state::{State, table_of};
use crate::failure::Failure;
use limbeck::Error;
use limbeck::report::FinishedTrial;
use limbeck::stages::Sweep;
use std::fs;
use std::path::Path;

/// All trials that have begun, also those that the sweep file no longer has.
pub struct Trials {
    /// The sweep file.
    pub plan: Sweep,
    /// In the order of the sweep file, then by name.
    pub finished: Vec<FinishedTrial>,
    /// What is not finished, and why.
    pub notes: Vec<String>,
}

impl Trials {
    /// Reads the directory of a sweep.
    ///
    /// # Errors
    /// It is none, or its `sweep.toml` is damaged.
    pub fn read(out: &Path) -> Result<Trials, Failure> {
        let file = out.join(SWEEP);
        if !file.exists() {
            let mend = "give the directory of a sweep (`limbeck sweep RECIPE --out DIR`)";
            return Err(Error::file(out, format!("there is no {SWEEP} in it"), mend).into());
        }
        let plan = Sweep::load(&file, &[])?;
        let (mut finished, mut notes) = (Vec::new(), Vec::new());
        for trial in &plan.trials {
            match State::of(out, trial) {
                State::Finished(table) => finished.push(FinishedTrial {
                    id: trial.id.clone(),
                    setting: trial.setting.clone(),
                    seed: trial.seed,
                    table: *table,
                }),
                State::Failed(problem) => notes.push(format!("trial {} failed: {problem}", trial.id)),
                state => notes.push(format!("trial {} is {}", trial.id, state.name())),
            }
        }
        if !plan.ablation {
            finished.extend(others(out, &plan));
        }
        Ok(Trials { plan, finished, notes })
    }
}

/// Finished trials of what the sweep file was before.
fn others(out: &Path, plan: &Sweep) -> Vec<FinishedTrial> {
    let entries = fs::read_dir(out.join("trials")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut ids: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
    ids.retain(|id| plan.trials.iter().all(|trial| trial.id != *id));
    ids.sort();
    let finished = |id: String| {
        let record = Record::load(out, &id).filter(|record| record.error.is_none() && record.id == id)?;
        let table = table_of(&trial_directory(out, &id)).ok()?;
        Some(FinishedTrial { id, setting: record.setting, seed: record.seed, table })
    };
    ids.into_iter().filter_map(finished).collect()
}
