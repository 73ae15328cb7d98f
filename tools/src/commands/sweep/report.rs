//! `limbeck sweep report`: the finished trials side by side, as a table, as JSON and as a picture.

use super::gather::Gathered;
use super::timing::Bench;
use super::{Compute, SHIPPED, ablation, gate};
use crate::cli::{self, SweepReport};
use crate::commands::BUILD;
use crate::failure::Failure;
use crate::output::Output;
use crate::{progress, signals};
use limbeck::Error;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::files;
use limbeck::report::cells::{aligned, grouped, points};
use limbeck::report::picture::{escaped, svg};
use limbeck::report::{Machine, Summary};
use limbeck_kernels::Kernels;
use serde_json::{Value, json};
use std::path::Path;

pub fn report(typed: &SweepReport) -> Result<(), Failure> {
    typed.common.check_device()?;
    let (out, gathered) = (&typed.sweep, Gathered::read(&typed.sweep)?);
    let recipe = &gathered.plan.recipe;
    let threads = cli::threads(typed.common.threads.unwrap_or(recipe.threads));
    set_threads(threads)?;
    let (stop, progress) = (signals::stop_flag()?, progress::choose(typed.common.quiet));
    let (kernels, progress) = (Kernels::select()?, &*progress);
    let compute = Compute { out, kernels, threads, progress, stop: &stop };
    let bench = Bench { compute, recipe };
    if gathered.finished.is_empty() {
        let notes = gathered.notes.first().map_or(String::new(), |note| format!(": {note}"));
        let mend = "go on with `limbeck sweep`";
        return Err(Error::file(out, format!("no trial is finished{notes}"), mend).into());
    }
    if gathered.plan.ablation {
        return ablation::report(&bench, &gathered, !typed.no_latency, typed.common.json);
    }
    let mut summary = Summary::of(&gathered.finished);
    if !typed.no_latency {
        time(&bench, &mut summary)?;
    }
    let machine = Machine::here(kernels, threads, BUILD);
    write(out, &gathered, &summary, &machine)?;
    let chosen = typed.max_drop.and_then(|max_drop| summary.smallest_within(max_drop));
    let mut output = Output::new();
    if typed.common.json {
        output.json(&to_json(&gathered, &summary, &machine))?;
    } else {
        output.text(format!("{}\n\n{}", origin(&gathered, &machine), aligned(&summary.lines())))?;
        for note in &gathered.notes {
            output.text(format!("\n{note}"))?;
        }
        if let Some(chosen) = chosen {
            let points = points(chosen.accuracy.difference);
            let trials = chosen.trials.join(", ");
            output.text(format!("\nchosen: {} ({points} points): trials {trials}\n", chosen.name))?;
        }
        output.text(format!("\n{}\n", out.join("pareto.html").display()))?;
    }
    output.flush()?;
    gate(&summary, typed.max_drop)
}

/// Times the files that may be on a front, the baseline among them, against each other.
fn time(bench: &Bench<'_>, summary: &mut Summary) -> Result<(), Failure> {
    let mut names: Vec<String> = summary.candidates().into_iter().map(str::to_owned).collect();
    let mut files = Vec::with_capacity(names.len() + 1);
    for id in &names {
        files.extend(bench.open(id, SHIPPED)?);
    }
    for point in summary.points.iter().filter(|point| point.reference) {
        // All its trials have the same; that of the first seed stands for it.
        if let Some(file) = bench.open(&point.trials[0], &point.name)? {
            files.push(file);
            names.push(point.name.clone());
        }
    }
    let times = bench.milliseconds(&mut files)?;
    summary.set_milliseconds(|name| {
        names.iter().zip(&times).find(|(other, _)| *other == name).map(|(_, ms)| *ms)
    });
    Ok(())
}

fn origin(gathered: &Gathered, machine: &Machine) -> String {
    let texts = gathered.finished[0].table.rows[0].texts;
    format!(
        "{machine}\n{}, {} trials, int8 files on {} test texts; intervals of 95 %: over seeds, or of one seed over texts",
        gathered.plan.recipe.name,
        gathered.finished.len(),
        grouped(texts)
    )
}

fn to_json(gathered: &Gathered, summary: &Summary, machine: &Machine) -> Value {
    json!({
        "recipe": gathered.plan.recipe.name,
        "machine": machine,
        "points": summary.points,
        "trials": gathered.finished.iter().map(|trial| json!({
            "id": trial.id, "setting": trial.setting, "seed": trial.seed, "rows": trial.table.rows,
        })).collect::<Vec<_>>(),
        "unfinished": gathered.notes,
    })
}

/// Writes `pareto.json`, `pareto.svg` and `pareto.html` into the sweep's directory.
fn write(out: &Path, gathered: &Gathered, summary: &Summary, machine: &Machine) -> Result<(), Failure> {
    let json = format!("{:#}\n", to_json(gathered, summary, machine));
    let title = format!("{}: accuracy against size and time", gathered.plan.recipe.name);
    let texts = grouped(gathered.finished[0].table.rows[0].texts);
    let subtitle =
        format!("int8 files of {} trials on {texts} test texts; {}", gathered.finished.len(), machine.cpu);
    let picture = svg(&title, &subtitle, &summary.panels());
    let page = page(&title, &picture, gathered, summary, machine);
    for (name, text) in [("pareto.json", &json), ("pareto.svg", &picture), ("pareto.html", &page)] {
        files::replace_bytes(&out.join(name), text.as_bytes())?;
    }
    Ok(())
}

const PAGE: &str = "\
body{font:14px/1.5 system-ui,sans-serif;color:#222;background:#fff;margin:2em auto;max-width:900px;padding:0 1em}\
svg{max-width:100%;height:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child{text-align:left}\
.front{font-weight:600}";

/// The picture and the table as one page that needs nothing else.
fn page(title: &str, picture: &str, gathered: &Gathered, summary: &Summary, machine: &Machine) -> String {
    let line = |tag: &str, class: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr{class}>{cells}</tr>\n")
    };
    let lines = summary.lines();
    let mut rows = line("th", "", &lines[0]);
    for (point, cells) in summary.points.iter().zip(&lines[1..]) {
        let front = point.front_of_bytes || point.front_of_milliseconds;
        rows += &line("td", if front { " class=\"front\"" } else { "" }, cells);
    }
    let paragraph = |text: &str| format!("<p>{}</p>\n", escaped(text));
    let notes: String = gathered.notes.iter().map(|note| paragraph(note)).collect();
    let origin: String = origin(gathered, machine).lines().map(paragraph).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>{PAGE}</style>\n\
         {picture}<table>\n{rows}</table>\n{origin}{notes}</html>\n",
        escaped(title)
    )
}
