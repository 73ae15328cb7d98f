//! What came out of a sweep, as text, as JSON, and as a picture of accuracy against size and time.

use super::gather::Trials;
use super::state::SHIPPED;
use crate::failure::Failure;
use limbeck::files;
use limbeck::report::cells::{grouped, markdown};
use limbeck::report::picture::{escaped, svg};
use limbeck::report::{Machine, Summary};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What came out.
pub struct Found<'a> {
    /// All of the sweep.
    pub trials: &'a Trials,
    /// The row of their tables that is compared.
    pub variant: &'a str,
    /// The comparison.
    pub summary: &'a Summary,
    /// What timed their files.
    pub machine: &'a Machine,
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
    pub fn origin(&self) -> String {
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

    /// The table, and where it comes from.
    pub fn markdown(&self) -> String {
        let origin: String = self.origin().lines().map(|line| format!("{line}.\n")).collect();
        format!("{}\n{origin}", markdown(&self.summary.lines()))
    }

    /// All of it.
    pub fn json(&self) -> Value {
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
    pub fn write(&self, out: &Path) -> Result<PathBuf, Failure> {
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
