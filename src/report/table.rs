//! The table that every run ends with. Its first row is the baseline, which the others are compared with.
//!
//! ```text
//! Report (answers, latencies) ──► Table (figures) ⇄ report.json
//!                                   └──► text for a terminal, Markdown for a document
//! ```

use super::cells::{
    accuracy, aligned, dash, grouped, markdown, mib, milliseconds, more, p_value, points, share, times,
};
use super::{Confusion, Latency, Machine, Paired};
use crate::stages::Control;
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// One variant of the model, measured on the bytes of its file.
#[derive(Clone, Debug)]
pub struct Row {
    /// `baseline`, `pruned`, `distilled`, `int8`, …
    pub variant: String,
    /// Its answers to the test texts.
    pub confusion: Confusion,
    /// Where it differs from the baseline, the baseline being the first of the pair. None for the baseline.
    pub against_baseline: Option<Paired>,
    /// Bytes of the files that were evaluated.
    pub file_bytes: u64,
    /// Parameters that the file holds; what was deleted is not among them.
    pub parameters: u64,
    /// Fraction of those parameters that are zero.
    pub sparsity: f64,
    /// Tokens of the test texts, as it reads them.
    pub tokens: u64,
    /// SHA-256 of the test texts and their classes, if it is known.
    pub texts_hash: Option<String>,
    /// Batch 1, real lengths. None if it was not timed.
    pub latency: Option<Latency>,
}

/// What was measured, and where.
#[derive(Clone, Debug)]
pub struct Report {
    /// Name of the recipe.
    pub recipe: String,
    /// Where it was measured.
    pub machine: Machine,
    /// The run's seed.
    pub seed: u64,
    /// Threads that the latencies were measured with.
    pub latency_threads: usize,
    /// Baseline first.
    pub rows: Vec<Row>,
}

/// A row of the table, in figures: fractions as fractions, bytes as bytes, latencies in milliseconds. What was not
/// measured, or makes no sense for the baseline, is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowMetrics {
    /// `baseline`, `pruned`, `distilled`, `int8`, …
    pub variant: String,
    /// Of all test texts, those that were classified rightly.
    pub accuracy: f64,
    /// Lower end of its 95 % interval.
    pub accuracy_low: f64,
    /// Upper end of its 95 % interval.
    pub accuracy_high: f64,
    /// Of McNemar's exact test against the baseline.
    pub p_value: Option<f64>,
    /// As in [`Row`].
    pub file_bytes: u64,
    /// As in [`Row`].
    pub parameters: u64,
    /// As in [`Row`].
    pub sparsity: f64,
    /// Median latency.
    pub latency_ms_p50: Option<f64>,
    /// 95th percentile of the latencies.
    pub latency_ms_p95: Option<f64>,
    /// 99th percentile of the latencies.
    pub latency_ms_p99: Option<f64>,
    /// How many times faster than the baseline, by the medians.
    pub speed_up: Option<f64>,
    /// Mean of the classes' F1.
    pub macro_f1: f64,
    /// Test texts.
    pub texts: u64,
    /// As in [`Row`]; older reports do not say.
    #[serde(default)]
    pub tokens: Option<u64>,
    /// As in [`Row`]; older reports do not say.
    #[serde(default)]
    pub texts_hash: Option<String>,
    /// Texts that only the baseline gets right.
    pub only_baseline_right: Option<u64>,
    /// Texts that only this variant gets right.
    pub only_variant_right: Option<u64>,
}

/// What `report.json` holds: the table in figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Name of the recipe.
    pub recipe: String,
    /// Baseline first; never empty.
    pub rows: Vec<RowMetrics>,
    /// Where it was measured.
    pub machine: Machine,
    /// The run's seed.
    pub seed: u64,
    /// Threads that the latencies were measured with.
    pub latency_threads: usize,
}

impl Report {
    /// The figures of all rows.
    pub fn table(&self) -> Table {
        Table {
            recipe: self.recipe.clone(),
            rows: self.rows.iter().map(|row| self.figures(row)).collect(),
            machine: self.machine.clone(),
            seed: self.seed,
            latency_threads: self.latency_threads,
        }
    }

    fn figures(&self, row: &Row) -> RowMetrics {
        let interval = row.confusion.interval();
        let pair = row.against_baseline;
        let baseline = self.rows.first().and_then(|baseline| baseline.latency);
        RowMetrics {
            variant: row.variant.clone(),
            accuracy: row.confusion.accuracy(),
            accuracy_low: interval.low,
            accuracy_high: interval.high,
            p_value: pair.map(Paired::p_value),
            file_bytes: row.file_bytes,
            parameters: row.parameters,
            sparsity: row.sparsity,
            latency_ms_p50: row.latency.map(|latency| latency.ms_p50),
            latency_ms_p95: row.latency.map(|latency| latency.ms_p95),
            latency_ms_p99: row.latency.map(|latency| latency.ms_p99),
            speed_up: baseline.zip(row.latency).map(|(baseline, latency)| baseline.ms_p50 / latency.ms_p50),
            macro_f1: row.confusion.macro_f1(),
            texts: row.confusion.total(),
            tokens: Some(row.tokens),
            texts_hash: row.texts_hash.clone(),
            only_baseline_right: pair.map(|pair| pair.only_first),
            only_variant_right: pair.map(|pair| pair.only_second),
        }
    }
}

impl Table {
    /// Reads a `report.json`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] if it is not the report of a run.
    pub fn load(path: &Path) -> Result<Table> {
        let text = files::read(path)?;
        let damaged =
            |problem: String| Error::file(path, problem, "finish the run with `limbeck run --resume`");
        let table: Table = serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("it is not the report of a run: {error}")))?;
        if table.rows.is_empty() {
            return Err(damaged("the report has no rows".to_owned()));
        }
        Ok(table)
    }

    /// Writes `report.json` at `path`, whole or not at all.
    ///
    /// # Errors
    /// What the operating system refuses; the old file, if any, is then unharmed.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("numbers and texts are JSON");
        files::replace_bytes(path, format!("{text}\n").as_bytes())
    }

    /// The table in Markdown, and below it where it was measured.
    pub fn markdown(&self) -> String {
        let text = markdown(&self.lines());
        let origin: Vec<String> = self.origin().lines().map(|line| format!("{line}.")).collect();
        format!("{text}\n{}\n", origin.join("\n"))
    }

    /// Where the figures come from: two lines of the machine, one of the run, and one of smaller vocabularies if there
    /// are any.
    fn origin(&self) -> String {
        let texts = self.rows.first().map_or(0, |row| row.texts);
        let Table { recipe, seed, latency_threads: threads, machine, .. } = self;
        let latency = format!("latency: batch 1, real lengths, variants interleaved, threads {threads}");
        let mut origin =
            format!("{machine}\nrecipe {recipe}, seed {seed}, {} test texts; {latency}", grouped(texts));
        let longer = self.longer();
        if !longer.is_empty() {
            origin += &format!("\ntokens of the test texts against the baseline's: {}", longer.join(", "));
        }
        origin
    }

    /// The variants that read another number of tokens than the baseline, as `pruned +1.8 %`.
    fn longer(&self) -> Vec<String> {
        let Some(baseline) = self.rows.first().and_then(|row| row.tokens) else { return Vec::new() };
        // The linear control reads words, which are another thing.
        let rows = self.rows.iter().filter(|row| row.variant != Control::NGrams.variant());
        let others = rows.filter_map(|row| Some((row, row.tokens.filter(|&tokens| tokens != baseline)?)));
        others
            .map(|(row, tokens)| {
                format!("{} {}", row.variant, more(tokens as f64 / baseline.max(1) as f64 - 1.0))
            })
            .collect()
    }

    fn lines(&self) -> Vec<[String; 9]> {
        let cells = self.rows.iter().map(|row| self.cells(row));
        [HEADINGS.map(str::to_owned)].into_iter().chain(cells).collect()
    }

    fn cells(&self, row: &RowMetrics) -> [String; 9] {
        let difference = row.accuracy - self.rows[0].accuracy;
        [
            row.variant.clone(),
            accuracy(row.accuracy, row.accuracy_low, row.accuracy_high),
            dash(row.p_value, |p| format!("{} ({})", points(difference), p_value(p))),
            mib(row.file_bytes as f64),
            grouped(row.parameters),
            share(row.sparsity),
            dash(row.latency_ms_p50, milliseconds),
            dash(row.latency_ms_p95, milliseconds),
            dash(row.speed_up, times),
        ]
    }
}

/// Headings of the table; all but the first column stand to the right.
const HEADINGS: [&str; 9] = [
    "variant",
    "accuracy % (95 %)",
    "Δ points (p)",
    "MiB",
    "parameters",
    "sparsity",
    "p50 ms",
    "p95 ms",
    "speed-up",
];

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\n{}", self.origin(), aligned(&self.lines()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::machine::Build;
    use limbeck_kernels::Kernels;
    use serde_json::{Value, json};
    use std::fs;

    fn confusion(right: u64, wrong: u64) -> Confusion {
        let mut confusion = Confusion::new(2);
        (0..right).for_each(|_| confusion.record(0, 0));
        (0..wrong).for_each(|_| confusion.record(0, 1));
        confusion
    }

    fn report() -> Report {
        let build = Build { version: "0".into(), commit: "abc".into(), rustc: "rustc".into() };
        let latency = |ms| Latency { ms_p50: ms, ms_p95: 2.0 * ms, ms_p99: 3.0 * ms, ms_mean: ms, calls: 9 };
        let row = |variant: &str, right, pair, bytes, ms| Row {
            variant: variant.into(),
            confusion: confusion(right, 100 - right),
            against_baseline: pair,
            file_bytes: bytes,
            parameters: 1_234_567,
            sparsity: 0.25,
            tokens: 4000,
            texts_hash: Some("5e".to_owned()),
            latency: ms,
        };
        let pair = Paired { only_first: 6, only_second: 0 };
        Report {
            recipe: "test".into(),
            machine: Machine::here(Kernels::select().unwrap(), 2, build),
            seed: 7,
            latency_threads: 1,
            rows: vec![
                row("baseline", 90, None, 1 << 21, Some(latency(8.0))),
                row("int8", 84, Some(pair), 1 << 19, Some(latency(2.0))),
            ],
        }
    }

    #[test]
    fn json_holds_every_key_that_readers_rely_on() {
        let json = serde_json::to_value(report().table()).unwrap();
        let (baseline, int8) = (&json["rows"][0], &json["rows"][1]);
        assert_eq!(json["seed"], 7);
        assert_eq!(json["machine"]["threads"], 2);
        assert_eq!((&baseline["variant"], &baseline["p_value"]), (&json!("baseline"), &Value::Null));
        assert_eq!(int8["accuracy"], 0.84);
        assert!(
            int8["accuracy_low"].as_f64().unwrap() < 0.84 && int8["accuracy_high"].as_f64().unwrap() > 0.84
        );
        assert!((int8["p_value"].as_f64().unwrap() - 0.03125).abs() <= 1e-12);
        assert_eq!((&int8["file_bytes"], &int8["parameters"]), (&json!(1 << 19), &json!(1_234_567)));
        assert_eq!((&int8["sparsity"], &int8["speed_up"]), (&json!(0.25), &json!(4.0)));
        assert_eq!((&int8["latency_ms_p50"], &int8["latency_ms_p95"]), (&json!(2.0), &json!(4.0)));
    }

    #[test]
    fn text_is_aligned_and_names_its_machine() {
        let text = report().table().to_string();
        assert!(text.contains("commit abc") && text.contains("seed 7") && text.contains("threads 1"));
        assert!(text.contains("84.00 (75.") && text.contains("-6.00 (p = 0.031"), "{text}");
        assert!(text.contains("1,234,567") && text.contains("4.00×") && text.contains("0.50"));
        let widths: Vec<usize> = text.lines().skip(4).map(|line| line.chars().count()).collect();
        assert!(widths.len() == 4 && widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn what_reads_other_tokens_is_named_below_the_table() {
        let mut report = report();
        assert!(!report.table().markdown().contains("tokens"));
        report.rows[1].tokens = 4100;
        let line = "tokens of the test texts against the baseline's: int8 +2.5 %";
        assert!(report.table().markdown().ends_with(&format!("{line}.\n")), "{}", report.table().markdown());
        assert!(report.table().to_string().contains(&format!("\n{line}\n\n")));
        // A report of before says nothing of tokens.
        let old = RowMetrics { tokens: None, texts_hash: None, ..report.table().rows[0].clone() };
        let mut table = report.table();
        table.rows[0] = old;
        assert!(!table.to_string().contains("tokens of"));
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, "old").unwrap();
        report().table().save(&path).unwrap();
        // serde_json reads a float to its last bit or the next: what is printed of it is the same.
        let (read, saved) = (Table::load(&path).unwrap(), report().table());
        assert_eq!((read.to_string(), &read.machine), (saved.to_string(), &saved.machine));
        for (text, problem) in [("{}", "missing field"), ("", "EOF")] {
            fs::write(&path, text).unwrap();
            let error = Table::load(&path).unwrap_err().to_string();
            assert!(error.contains("not the report of a run") && error.contains(problem), "{error}");
        }
        Table { rows: Vec::new(), ..report().table() }.save(&path).unwrap();
        assert!(Table::load(&path).unwrap_err().to_string().contains("no rows"));
    }

    /// A tiny p is not written as zero, and what was not timed is a dash, in text and in Markdown.
    #[test]
    fn markdown_has_the_cells_of_the_text() {
        let mut report = report();
        report.rows[1].against_baseline = Some(Paired { only_first: 60, only_second: 0 });
        report.rows[1].latency = None;
        let table = report.table();
        let (markdown, text) = (table.markdown(), table.to_string());
        let lines: Vec<&str> = markdown.lines().collect();
        assert_eq!(lines[1], "|---|--:|--:|--:|--:|--:|--:|--:|--:|");
        assert!(
            lines[3].starts_with("| int8 | 84.00 (75.") && lines[3].ends_with("| – | – | – |"),
            "{markdown}"
        );
        for cell in lines[3].split('|').map(str::trim).chain(["-6.00 (p < 0.0001)", "commit abc", "seed 7"]) {
            assert!(markdown.contains(cell) && text.contains(cell), "{cell:?} in\n{markdown}\n{text}");
        }
    }
}
