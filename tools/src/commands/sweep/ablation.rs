//! What each term of a recipe contributed, from the finished trials of `limbeck sweep --ablate`.

use super::gather::Trials;
use super::state::SHIPPED;
use super::timing::Bench;
use crate::commands::BUILD;
use crate::commands::report::Document;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::report::ablation::{AblatedTrial, Contribution};
use limbeck::report::cells::{aligned, grouped, markdown};
use limbeck::report::{FinishedTrial, Machine};
use limbeck::stages::sweep::WHOLE;
use limbeck::{Error, files};
use serde_json::json;

/// What is wanted of an ablation.
pub struct AblationOptions<'a> {
    /// Whether files are timed in turns.
    pub timed: bool,
    /// JSON rather than a table.
    pub json: bool,
    /// A document that gets the table.
    pub into: Option<&'a Document>,
}

/// Answers all test texts with every finished trial's file, times the files in turns, if that was asked for, prints the table,
/// and keeps it as `ablation.json`.
///
/// # Errors
/// A file that cannot be read, or is damaged; a signal; a full disk.
pub fn report(bench: &Bench<'_>, trials: &Trials, wanted: AblationOptions<'_>) -> Result<(), Failure> {
    if trials.finished.iter().all(|trial| trial.setting != WHOLE) {
        let problem = "the trials of the whole recipe, which the others are compared with, are not finished";
        return Err(Error::file(bench.compute.out, problem, "go on with `limbeck sweep`").into());
    }
    let found = contributions(trials, &measure(bench, &trials.finished, wanted.timed)?);
    let machine = Machine::here(bench.compute.kernels, bench.compute.threads, BUILD);
    let name = &trials.plan.recipe.name;
    let value = json!({ "recipe": name, "machine": machine, "recipes": found, "unfinished": trials.notes });
    files::replace_bytes(&bench.compute.out.join("ablation.json"), format!("{value:#}\n").as_bytes())?;
    let mut lines = vec![Contribution::HEADINGS.map(str::to_owned)];
    lines.extend(found.iter().map(Contribution::cells));
    let texts = grouped(trials.finished[0].table.rows[0].texts);
    let origin = format!(
        "{machine}\n{name}, the files that are deployed on {texts} test texts; each recipe against the whole one; with one seed McNemar's \
         exact test over texts, with several 95 % intervals over seeds"
    );
    if let Some(document) = wanted.into {
        let table = format!("{}\n{}.\n", markdown(&lines), origin.replace('\n', ".\n"));
        document.put(&table)?;
    }
    let mut output = Output::new();
    if wanted.json {
        output.json(&value)?;
    } else {
        output.text(format!("{origin}\n\n{}", aligned(&lines)))?;
        for note in &trials.notes {
            output.text(format!("\n{note}"))?;
        }
        if !trials.notes.is_empty() {
            output.text("\n")?;
        }
    }
    output.flush()
}

/// What each finished trial's file answers, and how long it takes, in their order.
fn measure(bench: &Bench<'_>, finished: &[FinishedTrial], timed: bool) -> Result<Vec<AblatedTrial>, Failure> {
    let mut files = Vec::with_capacity(finished.len());
    for trial in finished {
        files.extend(bench.open(&trial.id, SHIPPED)?);
    }
    let mut right = Vec::with_capacity(finished.len());
    for (trial, file) in finished.iter().zip(&mut files) {
        right.push(bench.right(&trial.id, file)?);
    }
    let times = if timed { bench.milliseconds(&mut files)? } else { Vec::new() };
    let tried = finished.iter().zip(right).enumerate().map(|(number, (trial, right))| AblatedTrial {
        seed: trial.seed,
        right,
        file_bytes: files[number].model.file_bytes(),
        milliseconds: times.get(number).copied(),
    });
    Ok(tried.collect())
}

/// The whole recipe, then what each term contributed, in the sweep's order.
fn contributions(trials: &Trials, tried: &[AblatedTrial]) -> Vec<Contribution> {
    let of_setting = |name: &str| -> Vec<AblatedTrial> {
        let all = trials.finished.iter().zip(tried);
        all.filter(|(trial, _)| trial.setting == name).map(|(_, tried)| tried.clone()).collect()
    };
    let whole = of_setting(WHOLE);
    let mut names: Vec<&str> = vec![WHOLE];
    for trial in &trials.plan.trials {
        if !names.contains(&trial.setting.as_str()) {
            names.push(&trial.setting);
        }
    }
    names.iter().filter_map(|name| Contribution::of(name, &of_setting(name), &whole)).collect()
}
