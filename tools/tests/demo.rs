//! The demo from end to end through the binary: the table's four rows, and the commands that read what it left.
//! One small run is shared by all tests.

mod common;

use common::{call, fed, limbeck, succeeded};
use limbeck::data::demo;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const SMALL: [&str; 8] = [
    "--set",
    "data.limit=2000",
    "--set",
    "data.test_limit=100",
    "--set",
    "bench.texts=10",
    "--set",
    "bench.repeat=1",
];

const ARTIFACTS: [&str; 4] = ["baseline", "pruned", "distilled", "int8.limbeck"];

/// And the controls, in the order of the rows.
const CONTROLS: [&str; 2] = ["int8-baseline.limbeck", "ngrams.safetensors"];

/// Standard output of a call that succeeds.
fn said(arguments: &[&str], input: &str) -> String {
    let [printed, _] = succeeded(fed(&mut limbeck(arguments), input));
    printed
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The directory of the run, and what it printed as JSON.
static RUN: LazyLock<(PathBuf, Value)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    let _ = fs::remove_dir_all(&folder);
    let run = [&["run", "--quiet", "--json", "--out", folder.to_str().unwrap()][..], &SMALL].concat();
    let printed = parsed(&said(&run, ""));
    (folder, printed)
});

fn path(name: &str) -> String {
    RUN.0.join(name).to_str().unwrap().to_owned()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"))
}

/// What tells `eval` where texts and labels stand in [`notes`].
const COLUMNS: [&str; 4] = ["--set", "data.text_columns=[\"text\"]", "--set", "data.label_column=\"label\""];

/// Notes like those that the run was tested on, which it has not seen, as a table and one by one.
fn notes() -> (String, demo::Demo) {
    let demo = demo::generate(99, 0, 60);
    let mut table = String::new();
    for note in &demo.test {
        let _ = writeln!(table, "{}", json!({ "text": note.text, "label": demo.labels[note.label] }));
    }
    (table, demo)
}

#[test]
fn the_demo_measures_four_variants_and_two_controls() {
    let (folder, printed) = &*RUN;
    let report = parsed(&fs::read_to_string(folder.join("report.json")).unwrap());
    assert_eq!(report["recipe"], "demo");
    // Another test measures again; its times differ.
    let rows = printed["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["variant"].as_str().unwrap()).collect();
    assert_eq!(names, ["baseline", "pruned", "distilled", "int8", "int8 baseline", "n-grams"]);
    for (row, saved) in rows.iter().zip(report["rows"].as_array().unwrap()) {
        for key in ["variant", "accuracy", "macro_f1", "parameters", "file_bytes", "p_value"] {
            assert_eq!(row[key], saved[key], "{key}");
        }
        assert_eq!(row["texts"], 100);
        let [low, accuracy, high] = ["accuracy_low", "accuracy", "accuracy_high"].map(|key| number(row, key));
        assert!(0.0 < low && low < accuracy && accuracy < high && high <= 1.0, "{row}");
        assert!(accuracy > 0.5, "four topics, and it has learnt some: {row}");
        let [p50, p95] = ["latency_ms_p50", "latency_ms_p95"].map(|key| number(row, key));
        assert!(0.0 < p50 && p50 <= p95, "{row}");
    }
    assert!(rows[0]["p_value"].is_null() && number(&rows[0], "speed_up") == 1.0);
    assert!(rows[1..].iter().all(|row| (0.0..=1.0).contains(&number(row, "p_value"))));
    // Sizes are those of the files, and each stage does its work.
    for (row, artifact) in rows.iter().zip(ARTIFACTS.into_iter().chain(CONTROLS)) {
        let file = folder.join(artifact);
        let weights = if file.is_dir() { file.join("model.safetensors") } else { file };
        assert_eq!(row["file_bytes"], fs::metadata(weights).unwrap().len(), "{artifact}");
    }
    let parameters: Vec<f64> = rows.iter().map(|row| number(row, "parameters")).collect();
    assert!(parameters[1] < 0.7 * parameters[0] && parameters[1..4].iter().all(|&n| n == parameters[1]));
    assert_eq!(parameters[4], parameters[0], "nothing is deleted from the control");
    assert!(number(&rows[3], "file_bytes") < 0.5 * number(&rows[2], "file_bytes"));
}

#[test]
fn a_gate_that_is_not_met_exits_with_3() {
    let out = path("");
    let before: Vec<Vec<u8>> = [path("int8.limbeck"), path("baseline/model.safetensors")]
        .iter()
        .map(|file| fs::read(file).unwrap())
        .collect();
    // The stages are done, so only the table is made again. No accuracy is 101 points better than another.
    let run = [&["run", "--quiet", "--resume", "--out", &out][..], &SMALL].concat();
    let refused = call(&[&run[..], &["--max-drop=-101"]].concat());
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{errors}");
    assert!(errors.contains("points below the baseline; --max-drop is -101"), "{errors}");
    let table = String::from_utf8(refused.stdout).unwrap();
    assert!(ARTIFACTS.iter().all(|name| table.contains(name.trim_end_matches(".limbeck"))), "{table}");
    assert!(call(&[&run[..], &["--max-drop=100"]].concat()).status.success());
    let after =
        [path("int8.limbeck"), path("baseline/model.safetensors")].map(|file| fs::read(file).unwrap());
    assert!(before == after, "what a gate refuses is kept");

    let data = RUN.0.join("gate.jsonl");
    fs::write(&data, notes().0).unwrap();
    let (int8, baseline) = (path("int8.limbeck"), path("baseline"));
    let eval = ["eval", &int8, "--against", &baseline, "--quiet", "--data", data.to_str().unwrap()];
    let eval = [&eval[..], &COLUMNS].concat();
    assert_eq!(call(&[&eval[..], &["--max-drop=-101"]].concat()).status.code(), Some(3));
    assert_eq!(call(&[&eval[..], &["--max-drop=100"]].concat()).status.code(), Some(0));
}

#[test]
fn eval_counts_what_predict_answers() {
    let (table, demo) = notes();
    let notes = &demo.test;
    let data = RUN.0.join("notes.jsonl");
    fs::write(&data, table).unwrap();
    let data = data.to_str().unwrap();
    let lines: String = notes.iter().map(|note| format!("{}\n", note.text)).collect();
    // The linear control reads texts like any other.
    for artifact in ARTIFACTS.into_iter().chain([CONTROLS[1]]).map(path) {
        let answers: Vec<Value> = said(&["predict", &artifact], &lines).lines().map(parsed).collect();
        assert_eq!(answers.len(), notes.len());
        for answer in &answers {
            let of = |key: &str| -> Vec<f64> {
                answer[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
            };
            let (logits, probabilities) = (of("logits"), of("probabilities"));
            assert_eq!((logits.len(), probabilities.len()), (4, 4));
            assert!((probabilities.iter().sum::<f64>() - 1.0).abs() <= 1e-6, "{answer}");
            let label = demo.labels.iter().position(|label| answer["label"] == **label).unwrap();
            for other in 0..4 {
                assert!(logits[other] <= logits[label] && probabilities[other] <= probabilities[label]);
            }
        }
        // Texts as arguments are the same texts.
        let [first, second] = [&notes[0].text, &notes[1].text];
        let typed = said(&["predict", &artifact, first, second], "");
        assert_eq!(typed.lines().map(parsed).collect::<Vec<_>>(), answers[..2]);

        let eval = [&["eval", &artifact, "--data", data, "--quiet", "--json"][..], &COLUMNS].concat();
        let seen = parsed(&said(&eval, ""));
        let names = seen["labels"].as_array().unwrap();
        let mut confusion = vec![vec![0; 4]; 4];
        let class = |name: &Value| names.iter().position(|other| other == name).unwrap();
        for (note, answer) in notes.iter().zip(&answers) {
            confusion[class(&json!(demo.labels[note.label]))][class(&answer["label"])] += 1;
        }
        assert_eq!((&seen["texts"], &seen["confusion"]), (&json!(60), &json!(confusion)), "{artifact}");
        let right = (0..4).map(|class| confusion[class][class]).sum::<usize>() as f64 / 60.0;
        assert!((number(&seen, "accuracy") - right).abs() <= 1e-12);
        assert!(right > 0.5, "{artifact} has learnt something: {right}");
    }
    let (int8, baseline) = (path("int8.limbeck"), path("baseline"));
    let eval = ["eval", &int8, "--against", &baseline, "--data", data, "--quiet", "--json"];
    let pair = parsed(&said(&[&eval[..], &COLUMNS].concat(), ""));
    let (gained, lost) = (number(&pair, "only_model_right"), number(&pair, "only_against_right"));
    let difference = 60.0 * (number(&pair, "accuracy") - number(&pair["against"], "accuracy"));
    assert!((gained - lost - difference).abs() <= 1e-9, "{pair}");
}

#[test]
fn report_prints_the_rows_and_puts_them_into_a_document() {
    let table = said(&["report", &path("")], "");
    let report = parsed(&fs::read_to_string(RUN.0.join("report.json")).unwrap());
    for row in report["rows"].as_array().unwrap() {
        let start =
            format!("| {} | {:.2} (", row["variant"].as_str().unwrap(), 100.0 * number(row, "accuracy"));
        assert_eq!(table.lines().filter(|line| line.starts_with(&start)).count(), 1, "{start} in {table}");
    }
    assert!(table.contains("recipe demo, seed 1, 100 test texts"), "{table}");
    let document = RUN.0.join("document.md");
    let (begin, end) = ("<!-- table:demo begin -->", "<!-- table:demo end -->");
    fs::write(&document, format!("before\n{begin}\nold\n{end}\nafter\n")).unwrap();
    said(&["report", &path(""), "--into", document.to_str().unwrap()], "");
    let text = fs::read_to_string(&document).unwrap();
    assert!(text.starts_with(&format!("before\n{begin}\n|")) && text.ends_with(&format!("{end}\nafter\n")));
    assert!(!text.contains("old") && text.contains("\n| int8 | "), "{text}");
}
