//! The table that every run ends with, for people and as `report.json`. Its first row is the baseline,
//! which the others are compared with.

use super::{Confusion, Latency, Machine, Paired};
use crate::{Result, files};
use serde_json::{Value, json};
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
    /// Batch 1, real lengths. None if it was not timed.
    pub latency: Option<Latency>,
}

/// The table, and what stands above it.
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

impl Report {
    /// `report.json`: fractions as fractions, bytes as bytes, latencies in milliseconds. What was not
    /// measured, or makes no sense for the baseline, is null.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_to_json(row)).collect();
        json!({
            "recipe": self.recipe,
            "rows": rows,
            "machine": self.machine,
            "seed": self.seed,
            "latency_threads": self.latency_threads,
        })
    }

    fn row_to_json(&self, row: &Row) -> Value {
        let interval = row.confusion.interval();
        let pair = row.against_baseline;
        json!({
            "variant": row.variant,
            "accuracy": row.confusion.accuracy(),
            "accuracy_low": interval.low,
            "accuracy_high": interval.high,
            "p_value": pair.map(Paired::p_value),
            "file_bytes": row.file_bytes,
            "parameters": row.parameters,
            "sparsity": row.sparsity,
            "latency_ms_p50": row.latency.map(|latency| latency.ms_p50),
            "latency_ms_p95": row.latency.map(|latency| latency.ms_p95),
            "latency_ms_p99": row.latency.map(|latency| latency.ms_p99),
            "speed_up": self.speed_up(row),
            "macro_f1": row.confusion.macro_f1(),
            "texts": row.confusion.total(),
            "only_baseline_right": pair.map(|pair| pair.only_first),
            "only_variant_right": pair.map(|pair| pair.only_second),
        })
    }

    /// Writes `report.json` at `path`, whole or not at all.
    ///
    /// # Errors
    /// What the operating system refuses; the old file, if any, is then unharmed.
    pub fn save(&self, path: &Path) -> Result<()> {
        files::replace_bytes(path, format!("{:#}\n", self.to_json()).as_bytes())
    }

    /// How many times faster than the baseline, by the medians.
    fn speed_up(&self, row: &Row) -> Option<f64> {
        let baseline = self.rows.first()?.latency?;
        Some(baseline.ms_p50 / row.latency?.ms_p50)
    }

    fn cells(&self, row: &Row) -> [String; 9] {
        let interval = row.confusion.interval();
        let accuracy = row.confusion.accuracy();
        let delta = row.against_baseline.map(|pair| {
            let baseline = self.rows[0].confusion.accuracy();
            format!("{:+.2} ({})", 100.0 * (accuracy - baseline), p_value(pair.p_value()))
        });
        let ms = |value: Option<f64>| value.map_or_else(dash, |ms| format!("{ms:.2}"));
        [
            row.variant.clone(),
            format!("{:.2} ({:.2}–{:.2})", 100.0 * accuracy, 100.0 * interval.low, 100.0 * interval.high),
            delta.unwrap_or_else(dash),
            format!("{:.2}", row.file_bytes as f64 / (1 << 20) as f64),
            grouped(row.parameters),
            format!("{:.1} %", 100.0 * row.sparsity),
            ms(row.latency.map(|latency| latency.ms_p50)),
            ms(row.latency.map(|latency| latency.ms_p95)),
            self.speed_up(row).map_or_else(dash, |ratio| format!("{ratio:.2}×")),
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.rows.first().map_or(0, |row| row.confusion.total());
        writeln!(f, "{}", self.machine)?;
        let (recipe, threads) = (&self.recipe, self.latency_threads);
        writeln!(
            f,
            "recipe {recipe}, seed {}, {} test texts; latency: batch 1, real lengths, threads {threads}",
            self.seed,
            grouped(texts)
        )?;
        writeln!(f)?;
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(|row| self.cells(row)));
        f.write_str(&aligned(&lines))
    }
}

fn dash() -> String {
    "–".into()
}

fn p_value(p: f64) -> String {
    if p < 0.0001 { "p < 0.0001".into() } else { format!("p = {p:.4}") }
}

/// Lines of cells as text: the first line is the heading, ruled off; all but the first column stand to the
/// right; every line ends in a newline.
pub fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let rule = widths.map(|width| "─".repeat(width)).join("  ");
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(&cells.collect::<Vec<_>>().join("  "));
        text.push('\n');
        if number == 0 {
            text.push_str(&rule);
            text.push('\n');
        }
    }
    text
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::machine::Build;
    use limbeck_kernels::Kernels;

    fn confusion(right: u64, wrong: u64) -> Confusion {
        let mut confusion = Confusion::new(2);
        (0..right).for_each(|_| confusion.record(0, 0));
        (0..wrong).for_each(|_| confusion.record(0, 1));
        confusion
    }

    fn report() -> Report {
        let build = Build { version: "0", commit: "abc", rustc: "rustc" };
        let latency = |ms| Latency { ms_p50: ms, ms_p95: 2.0 * ms, ms_p99: 3.0 * ms, ms_mean: ms, calls: 9 };
        let row = |variant: &str, right, pair, bytes, ms| Row {
            variant: variant.into(),
            confusion: confusion(right, 100 - right),
            against_baseline: pair,
            file_bytes: bytes,
            parameters: 1_234_567,
            sparsity: 0.25,
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
        let json = report().to_json();
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
        let text = report().to_string();
        assert!(text.contains("commit abc") && text.contains("seed 7") && text.contains("threads 1"));
        assert!(text.contains("84.00 (75.") && text.contains("-6.00 (p = 0.031"), "{text}");
        assert!(text.contains("1,234,567") && text.contains("4.00×") && text.contains("0.50"));
        let widths: Vec<usize> = text.lines().skip(4).map(|line| line.chars().count()).collect();
        assert!(widths.len() == 4 && widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn saving_writes_the_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        std::fs::write(&path, "old").unwrap();
        report().save(&path).unwrap();
        let read = std::fs::read_to_string(&path).unwrap();
        assert_eq!(read, format!("{:#}\n", report().to_json()));
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 66_955_010].map(grouped), ["0", "999", "1,000", "66,955,010"]);
    }
}
