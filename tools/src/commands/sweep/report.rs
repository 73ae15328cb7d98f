//! `limbeck sweep report`: the finished trials side by side, as a table, as JSON and as a picture.

use super::ablation::AblationOptions;
use super::gather::Trials;
use super::timing::Bench;
use super::{Compute, SHIPPED, ablation, gate};
use crate::cli::{self, SweepReport};
use crate::commands::BUILD;
use crate::commands::report::Document;
use crate::failure::Failure;
use crate::output::Output;
use crate::{progress, signals};
use limbeck::Error;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::files;
use limbeck::report::cells::{aligned, grouped, markdown, points};
use limbeck::report::picture::{escaped, svg};
use limbeck::report::{FinishedTrial, Machine, Summary, Timed};
use limbeck::stages::{Stage, TrainingDevice};
use limbeck_kernels::Kernels;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    if trials.finished.is_empty() {
        let notes = trials.notes.first().map_or(String::new(), |note| format!(": {note}"));
        let mend = "go on with `limbeck sweep`";
        return Err(Error::file(out, format!("no trial is finished{notes}"), mend).into());
    }
    same_texts(out, &trials)?;
    let (name, variant) = (trials.plan.recipe.name.as_str(), typed.variant.as_str());
    let name = match (trials.plan.ablation, variant) {
        (true, _) => format!("{name}-ablation"),
        (false, SHIPPED) => name.to_owned(),
        (false, other) => format!("{name}-{other}"),
    };
    if trials.plan.ablation && variant != SHIPPED {
        let problem = "--variant: an ablation compares what is deployed; leave it out";
        return Err(Failure::Usage(problem.into()));
    }
    // Before anything is measured.
    let document = typed.into.as_deref().map(|document| Document::open(document, &name)).transpose()?;
    if trials.plan.ablation {
        ablation::report(
            &bench,
            &trials,
            AblationOptions { timed: !typed.no_latency, json: typed.common.json, into: document.as_ref() },
        )?;
        return gate(&Summary::of(&trials.finished, SHIPPED), typed.max_drop);
    }
    let mut summary = Summary::of(&trials.finished, variant);
    if summary.points.iter().all(|point| point.reference) {
        let known: Vec<&str> = Stage::ALL.into_iter().skip(1).map(Stage::variant).collect();
        let problem = format!("--variant {variant}: no trial has such a row; there are {}", known.join(", "));
        return Err(Failure::Usage(problem));
    }
    if !typed.no_latency {
        time(&bench, variant, &trials.finished, &mut summary)?;
    }
    let machine = Machine::here(kernels, threads, BUILD);
    let found = Found { trials: &trials, variant, summary: &summary, machine: &machine };
    let chosen = typed.max_drop.and_then(|max_drop| summary.smallest_within(max_drop));
    let mut output = Output::new();
    if typed.common.json {
        output.json(&found.json())?;
    } else {
        output.text(format!("{}\n\n{}", found.origin(), aligned(&summary.lines())))?;
        for note in &trials.notes {
            output.text(format!("\n{note}"))?;
        }
        if let Some(chosen) = chosen {
            let points = points(chosen.accuracy.difference);
            let trials = chosen.trials.join(", ");
            output.text(format!("\nchosen: {} ({points} points): trials {trials}\n", chosen.name))?;
        }
    }
    output.flush()?;
    // What was measured has been shown, should the disk be full.
    let page = found.write(out)?;
    if let Some(document) = &document {
        document.put(&found.markdown())?;
    }
    if !typed.common.json {
        output.text(format!("\n{}\n", page.display()))?;
        output.flush()?;
    }
    gate(&summary, typed.max_drop)
}

/// Refuses to compare what was measured on other texts.
fn same_texts(out: &Path, trials: &Trials) -> Result<(), Failure> {
    let first = trials.finished.first().expect("some are finished");
    let texts = |trial: &FinishedTrial| trial.table.rows[0].texts;
    let refuse = |problem: String| {
        let mend = "remove those of one kind from trials/: they cannot be compared";
        Err(Error::file(out, problem, mend).into())
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

/// What came out.
struct Found<'a> {
    trials: &'a Trials,
    variant: &'a str,
    summary: &'a Summary,
    machine: &'a Machine,
}

impl Found<'_> {
    /// `int8 files of 12 trials on 7,600 test texts`.
    fn what(&self) -> String {
        let finished = &self.trials.finished;
        let texts = grouped(finished[0].table.rows[0].texts);
        format!("{} files of {} trials on {texts} test texts", self.variant, finished.len())
    }

    /// Those that ran the trials, each once.
    fn machines(&self) -> Vec<&Machine> {
        let mut machines: Vec<&Machine> = Vec::new();
        for trial in &self.trials.finished {
            if !machines.contains(&&trial.table.machine) {
                machines.push(&trial.table.machine);
            }
        }
        machines
    }

    /// The machines that ran the trials, the one that timed their files together if it is another, and what was compared.
    fn origin(&self) -> String {
        let machines = self.machines();
        let mut origin: String = machines.iter().map(|machine| format!("{machine}\n")).collect();
        let timed = self.summary.points.iter().any(|point| point.milliseconds.is_some());
        if timed && machines != [self.machine] {
            origin += &format!("p50 ms: {}\n", self.machine);
        }
        let (name, what) = (&self.trials.plan.recipe.name, self.what());
        origin += &format!(
            "{name}, {what}; intervals of 95 %: over seeds, or of one seed over texts\n\
             speed-up: over the baseline, as each run timed both in turns"
        );
        if timed {
            origin += "; p50 ms: all files in turns in one process\n\
                       fewer mult-adds: than the baseline, for a text of mean length as each reads it; zero blocks not counted";
            if !self.trials.plan.recipe.data.second_columns.is_empty() {
                origin += ", and a pair as one text";
            }
        }
        origin
    }

    fn markdown(&self) -> String {
        let origin: String = self.origin().lines().map(|line| format!("{line}.\n")).collect();
        format!("{}\n{origin}", markdown(&self.summary.lines()))
    }

    fn json(&self) -> Value {
        json!({
            "recipe": self.trials.plan.recipe.name,
            "machine": self.machine,
            "machines_of_trials": self.machines(),
            "variant": self.variant,
            "points": self.summary.points,
            "trials": self.trials.finished.iter().map(|trial| json!({
                "id": trial.id, "setting": trial.setting, "seed": trial.seed, "rows": trial.table.rows,
            })).collect::<Vec<_>>(),
            "unfinished": self.trials.notes,
        })
    }

    /// Writes `pareto.json`, `pareto.svg` and `pareto.html` into the sweep's directory, or of another variant than int8
    /// `pareto-pruned.json` and so on; returns the page.
    fn write(&self, out: &Path) -> Result<PathBuf, Failure> {
        let stem = if self.variant == SHIPPED { "pareto".into() } else { format!("pareto-{}", self.variant) };
        let title = format!("{}: accuracy against size and time", self.trials.plan.recipe.name);
        let mut cpus: Vec<&str> = self.machines().iter().map(|machine| machine.cpu.as_str()).collect();
        cpus.dedup();
        let subtitle = format!("{}; {}", self.what(), cpus.join(", "));
        let picture = svg(&title, &subtitle, &self.summary.panels());
        let page = out.join(format!("{stem}.html"));
        files::replace_bytes(&out.join(format!("{stem}.json")), format!("{:#}\n", self.json()).as_bytes())?;
        files::replace_bytes(&out.join(format!("{stem}.svg")), picture.as_bytes())?;
        files::replace_bytes(&page, self.page(&title, &picture).as_bytes())?;
        Ok(page)
    }

    /// The picture and the table as one page that needs nothing else.
    fn page(&self, title: &str, picture: &str) -> String {
        let line = |tag: &str, class: &str, cells: &[String]| {
            let cells: String =
                cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
            format!("<tr{class}>{cells}</tr>\n")
        };
        let lines = self.summary.lines();
        let mut rows = line("th", "", &lines[0]);
        for (point, cells) in self.summary.points.iter().zip(&lines[1..]) {
            let front = point.front_of_bytes || point.front_of_milliseconds;
            rows += &line("td", if front { " class=\"front\"" } else { "" }, cells);
        }
        let paragraph = |text: &str| format!("<p>{}</p>\n", escaped(text));
        let notes: String = self.trials.notes.iter().map(|note| paragraph(note)).collect();
        let origin: String = self.origin().lines().map(paragraph).collect();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>{PAGE}</style>\n\
         {picture}<table>\n{rows}</table>\n{origin}{notes}</html>\n",
            escaped(title)
        )
    }
}

const PAGE: &str = "\
body{font:14px/1.5 system-ui,sans-serif;color:#222;background:#fff;margin:2em auto;max-width:900px;padding:0 1em}\
svg{max-width:100%;height:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child{text-align:left}\
.front{font-weight:600}";
