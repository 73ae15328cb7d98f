//! `limbeck sweep report`: the finished trials side by side, as a table, as JSON and as a picture.

use super::ablation::AblationOptions;
use super::gather::Trials;
use super::pareto::Found;
use super::state::SHIPPED;
use super::timing::Bench;
use super::{Compute, ablation, gate};
use crate::cli::{self, SweepReport};
use crate::commands::BUILD;
use crate::commands::report::Document;
use crate::failure::Failure;
use crate::output::Output;
use crate::{progress, signals};
use limbeck::Error;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::report::cells::{aligned, grouped, points};
use limbeck::report::{FinishedTrial, Machine, Summary, Timed};
use limbeck::stages::{Stage, TrainingDevice};
use limbeck_kernels::Kernels;
use std::collections::BTreeMap;

pub fn report(typed: &SweepReport) -> Result<(), Failure> {
    typed.common.cpu_only("sweep report")?;
    let (out, trials) = (&typed.sweep, Trials::read(&typed.sweep)?);
    let recipe = &trials.plan.recipe;
    let threads = cli::threads(typed.common.threads.unwrap_or(recipe.threads));
    set_threads(threads)?;
    let (stop, progress) = (signals::stop_flag()?, progress::choose(typed.common.quiet));
    let (kernels, progress) = (Kernels::select()?, &*progress);
    let compute = Compute { out, kernels, device: &TrainingDevice::Cpu, threads, progress, stop: &stop };
    let bench = Bench { compute, recipe };
    check(typed, &trials)?;
    // Before anything is measured.
    let document = document(typed, &trials)?;
    if !trials.plan.ablation {
        return compare(typed, &bench, &trials, document.as_ref());
    }
    let wanted =
        AblationOptions { timed: !typed.no_latency, json: typed.common.json, into: document.as_ref() };
    ablation::report(&bench, &trials, wanted)?;
    gate(&Summary::of(&trials.finished, SHIPPED), typed.max_drop)
}

/// Whether there is what is to be compared, and can be.
fn check(typed: &SweepReport, trials: &Trials) -> Result<(), Failure> {
    if trials.finished.is_empty() {
        let notes = trials.notes.first().map_or(String::new(), |note| format!(": {note}"));
        let mend = "go on with `limbeck sweep`";
        return Err(Error::file(&typed.sweep, format!("no trial is finished{notes}"), mend).into());
    }
    same_texts(typed, trials)?;
    let variant = typed.variant.as_str();
    if trials.plan.ablation && variant != SHIPPED {
        let problem = "--variant: an ablation compares what is deployed; leave it out";
        return Err(Failure::Usage(problem.into()));
    }
    let known: Vec<&str> = Stage::ALL.into_iter().skip(1).map(Stage::variant).collect();
    let mut rows = trials.finished.iter().flat_map(|trial| &trial.table.rows);
    if !known.contains(&variant) || !rows.any(|row| row.variant == variant) {
        let problem = format!("--variant {variant}: no trial has such a row; there are {}", known.join(", "));
        return Err(Failure::Usage(problem));
    }
    Ok(())
}

/// The document that gets the table, where one is asked for.
fn document(typed: &SweepReport, trials: &Trials) -> Result<Option<Document>, Failure> {
    let (name, variant) = (trials.plan.recipe.name.as_str(), typed.variant.as_str());
    let name = match (trials.plan.ablation, variant) {
        (true, _) => format!("{name}-ablation"),
        (false, SHIPPED) => name.to_owned(),
        (false, other) => format!("{name}-{other}"),
    };
    Ok(typed.into.as_deref().map(|path| Document::open(path, &name)).transpose()?)
}

/// Compares the trials of a sweep: prints the table, and writes what is drawn of it.
fn compare(
    typed: &SweepReport,
    bench: &Bench<'_>,
    trials: &Trials,
    document: Option<&Document>,
) -> Result<(), Failure> {
    let variant = typed.variant.as_str();
    let mut summary = Summary::of(&trials.finished, variant);
    if !typed.no_latency {
        time(bench, variant, &trials.finished, &mut summary)?;
    }
    let machine = Machine::here(bench.compute.kernels, bench.compute.threads, BUILD);
    let found = Found { trials, variant, summary: &summary, machine: &machine };
    let mut output = Output::new();
    print(typed, &found, &mut output)?;
    // What was measured has been shown, should the disk be full.
    let page = found.write(&typed.sweep)?;
    if let Some(document) = document {
        document.put(&found.markdown())?;
    }
    if !typed.common.json {
        output.text(format!("\n{}\n", page.display()))?;
        output.flush()?;
    }
    gate(&summary, typed.max_drop)
}

fn print(typed: &SweepReport, found: &Found<'_>, output: &mut Output) -> Result<(), Failure> {
    if typed.common.json {
        output.json(&found.json())?;
        return output.flush();
    }
    output.text(format!("{}\n\n{}", found.origin(), aligned(&found.summary.lines())))?;
    for note in &found.trials.notes {
        output.text(format!("\n{note}"))?;
    }
    if let Some(chosen) = typed.max_drop.and_then(|max_drop| found.summary.smallest_within(max_drop)) {
        let (points, trials) = (points(chosen.accuracy.difference), chosen.trials.join(", "));
        output.text(format!("\nchosen: {} ({points} points): trials {trials}\n", chosen.name))?;
    }
    output.flush()
}

/// Refuses to compare what was measured on other texts.
fn same_texts(typed: &SweepReport, trials: &Trials) -> Result<(), Failure> {
    let first = trials.finished.first().expect("some are finished");
    let texts = |trial: &FinishedTrial| trial.table.rows[0].texts;
    let refuse = |problem: String| {
        let mend = "remove those of one kind from trials/: they cannot be compared";
        Err(Error::file(&typed.sweep, problem, mend).into())
    };
    // Texts may be drawn from the seed, as the demo's are; older reports do not say which they were.
    let mut of_seed: BTreeMap<u64, (&str, &str)> = BTreeMap::new();
    for trial in &trials.finished {
        if texts(trial) != texts(first) {
            let [of_first, of_trial] = [first, trial].map(|trial| grouped(texts(trial)));
            return refuse(format!(
                "trial {} was measured on {of_first} test texts, and trial {} on {of_trial}",
                first.id, trial.id
            ));
        }
        let Some(hash) = &trial.table.rows[0].texts_hash else { continue };
        let (other, known) = *of_seed.entry(trial.seed).or_insert((&trial.id, hash));
        if known != hash {
            return refuse(format!("trials {other} and {} were measured on other test texts", trial.id));
        }
    }
    Ok(())
}

/// Times the files, the baseline among them, against each other: of many trials those that may be on a front.
fn time(
    bench: &Bench<'_>,
    variant: &str,
    finished: &[FinishedTrial],
    summary: &mut Summary,
) -> Result<(), Failure> {
    // A trial and its row, under the name that its point looks for. All trials of a reference have the same file: the first
    // stands for it.
    let candidates =
        summary.candidates().into_iter().map(|id| (id.to_owned(), id.to_owned(), variant.to_owned()));
    let references = summary
        .timed_references()
        .map(|point| (point.name.clone(), point.trials[0].clone(), point.variant.clone()));
    let (mut names, mut files) = (Vec::new(), Vec::new());
    for (name, id, variant) in candidates.chain(references).collect::<Vec<_>>() {
        let Some(file) = bench.open(&id, &variant)? else { continue };
        let trial = finished.iter().find(|trial| trial.id == id).expect("a point is of finished trials");
        let baseline = bench.multiply_adds_of_baseline(trial)?;
        let fewer = baseline.zip(file.multiply_adds()).map(|(all, left)| all as f64 / left.max(1) as f64);
        names.push((name, fewer));
        files.push(file);
    }
    let times = bench.milliseconds(&mut files)?;
    summary.set_timed(|name| {
        let number = names.iter().position(|(other, _)| other == name)?;
        Some(Timed { milliseconds: times[number], times_fewer_multiply_adds: names[number].1 })
    });
    Ok(())
}
