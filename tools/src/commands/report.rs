//! `limbeck report`: the table of a finished run as Markdown, by itself or between the markers of a document.
//!
//! The document's markers are `<!-- table:NAME begin -->` and `<!-- table:NAME end -->`, NAME being the recipe's
//! name. Tables in documents are made so, and never typed.

use crate::cli::Report;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::report::table::grouped;
use limbeck::{Error, files};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

pub fn report(typed: &Report) -> Result<(), Failure> {
    let path = typed.run.join("report.json");
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    let damaged = |problem: String| Error::file(&path, problem, "finish the run with `limbeck run --resume`");
    let json: Value = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let table = markdown(&json).ok_or_else(|| damaged("it is not the report of a run".to_owned()))?;
    match &typed.into {
        Some(document) => Ok(insert(document, json["recipe"].as_str().unwrap_or("unnamed"), &table)?),
        None => {
            let mut output = Output::new();
            output.text(table)?;
            output.flush()
        }
    }
}

/// The table; `None` if a number is missing.
fn markdown(report: &Value) -> Option<String> {
    let machine = &report["machine"];
    let baseline = &report["rows"][0];
    let mut table = String::from(
        "| variant | accuracy % (95 %) | Δ points (p) | MiB | parameters | sparsity | p50 ms | p95 ms | speed-up |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in report["rows"].as_array()? {
        let number = |key: &str| row[key].as_f64();
        let accuracy = number("accuracy")?;
        let delta = match number("p_value") {
            None => "–".to_owned(),
            Some(p) => format!("{:+.2} ({p:.4})", 100.0 * (accuracy - baseline["accuracy"].as_f64()?)),
        };
        let _ = writeln!(
            table,
            "| {} | {:.2} ({:.2}–{:.2}) | {delta} | {:.2} | {} | {:.1} % | {:.2} | {:.2} | {:.2}× |",
            row["variant"].as_str()?,
            100.0 * accuracy,
            100.0 * number("accuracy_low")?,
            100.0 * number("accuracy_high")?,
            number("file_bytes")? / f64::from(1 << 20),
            grouped(row["parameters"].as_u64()?),
            100.0 * number("sparsity")?,
            number("latency_ms_p50")?,
            number("latency_ms_p95")?,
            number("speed_up")?,
        );
    }
    let _ = write!(
        table,
        "\nRecipe `{}`, seed {}, {} test texts, all rows from one process, latencies interleaved (batch 1, real lengths, \
         {} thread). {}, {} logical CPUs, kernels {}; limbeck {}, commit {}, {}.\n",
        report["recipe"].as_str()?,
        report["seed"],
        grouped(baseline["texts"].as_u64()?),
        report["latency_threads"],
        machine["cpu"].as_str()?,
        machine["cpus"],
        machine["kernels"].as_str()?,
        machine["version"].as_str()?,
        machine["commit"].as_str()?,
        machine["rustc"].as_str()?,
    );
    Some(table)
}

/// Replaces what is between the markers of `name`.
fn insert(document: &Path, name: &str, table: &str) -> limbeck::Result<()> {
    let text = fs::read_to_string(document).map_err(Error::io("read", document))?;
    let (begin, end) = (format!("<!-- table:{name} begin -->"), format!("<!-- table:{name} end -->"));
    let place = text.find(&begin).map(|at| at + begin.len()).zip(text.find(&end));
    let Some((from, to)) = place.filter(|(from, to)| from <= to) else {
        let mend = format!("put the lines {begin} and {end} where the table shall stand");
        return Err(Error::file(document, "it has no markers for this table", mend));
    };
    let new = format!("{}\n{table}{}", &text[..from], &text[to..]);
    files::replace_bytes(document, new.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_replaces_what_is_between_its_markers() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("README.md");
        fs::write(&document, "a\n<!-- table:x begin -->\nold\n<!-- table:x end -->\nb\n").unwrap();
        insert(&document, "x", "new\n").unwrap();
        let expected = "a\n<!-- table:x begin -->\nnew\n<!-- table:x end -->\nb\n";
        assert_eq!(fs::read_to_string(&document).unwrap(), expected);
        let error = insert(&document, "y", "new\n").unwrap_err().to_string();
        assert!(error.contains("table:y"), "{error}");
    }

    #[test]
    fn a_report_without_rows_is_no_report() {
        assert_eq!(markdown(&serde_json::json!({ "rows": [] })), None);
        assert_eq!(markdown(&serde_json::json!({})), None);
    }
}
