//! Texts to predict: none, endless ones, other scripts, bytes that are no text; and calls that make no sense.

use crate::fixture::{Folder, POSITIONS, limbeck, said, succeeds};
use limbeck::checkpoint::TensorFile;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

/// The printed lines, one for each text: a known label, finite logits, probabilities that sum to 1.
#[track_caller]
fn lines(output: &Output) -> Vec<serde_json::Value> {
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<serde_json::Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        assert!(["bad", "good"].contains(&line["label"].as_str().unwrap()), "{line}");
        let numbers = |key: &str| -> Vec<f64> {
            line[key].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
        };
        assert_eq!(numbers("logits").len(), 2);
        assert!((numbers("probabilities").iter().sum::<f64>() - 1.0).abs() <= 1e-6, "{line}");
    }
    lines
}

/// Predicts what is written to standard input.
fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // Both pipes are served at once, and a program that stops reading is no error here.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn models(folder: &Folder) -> [&'static str; 2] {
    let mut export = limbeck(&["export", "--format", "limbeck"]);
    succeeds(export.arg(folder.path("model")).arg(folder.path("model.limbeck")));
    ["model", "model.limbeck"]
}

#[test]
fn texts_of_any_length_and_script() {
    let folder = Folder::new();
    let texts = [
        String::new(),
        "   \t ".to_owned(),
        "a".repeat(100_000),
        "a b ".repeat(25_000),
        "\u{1f378}\u{1f469}\u{200d}\u{1f680}\u{fe0f}".to_owned(),
        "\u{4e2d}\u{6587}".repeat(1000),
        "e\u{301}\u{0}\u{fffd}\u{202e}a".to_owned(),
        "[SEP] [CLS] [PAD] -- --help".to_owned(),
    ];
    for model in models(&folder) {
        let mut command = limbeck(&["predict"]);
        // An argument cannot hold a zero byte; a line can.
        let arguments = texts.iter().map(|text| text.replace('\0', ""));
        let output = succeeds(command.arg(folder.path(model)).arg("--").args(arguments));
        assert_eq!(lines(&output).len(), texts.len());
        let mut command = limbeck(&["predict"]);
        let input = texts.join("\n") + "\n";
        let from_lines = with_input(command.arg(folder.path(model)), input.as_bytes());
        assert!(from_lines.status.success(), "{}", said(&from_lines));
        assert_eq!(
            from_lines.stdout, output.stdout,
            "a zero byte is cleaned away, all else is the same text"
        );
        // What is cut does not count.
        let cut = succeeds(&mut folder.predict(model, "a b ".repeat(POSITIONS)));
        assert_eq!(lines(&cut)[0], lines(&output)[3]);
    }
}

#[test]
fn no_input_is_no_output() {
    let folder = Folder::new();
    let output = with_input(limbeck(&["predict"]).arg(folder.path("model")), b"");
    assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
    // A last line without an end is a line.
    let output = with_input(limbeck(&["predict"]).arg(folder.path("model")), b"a\r\n\nb");
    assert_eq!(lines(&output).len(), 3);
}

#[test]
fn bytes_that_are_no_text() {
    let folder = Folder::new();
    let output = with_input(limbeck(&["predict"]).arg(folder.path("model")), b"a b\n\nna\xefve\nc\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines(&output).len(), 2, "what came before it is answered, a blank line too");
    let said_of_input = said(&output);
    assert!(
        said_of_input.contains("standard input, line 3: this is not UTF-8; convert it"),
        "{said_of_input}"
    );
    // An argument that is no text is wrong use.
    let output = folder.predict("model", OsStr::from_bytes(b"na\xefve")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_use_is_told_from_failure() {
    let folder = Folder::new();
    for arguments in
        [&["--max-tokens", "2"][..], &["--max-tokens", "many"], &["--threads", "-1"], &["--nonsense"]]
    {
        let output = folder.predict("model", "a").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(output.stdout.is_empty());
    }
    // A quality gate that is not met: everything is done, and the code says so.
    let output = folder.run("model", "data", "out", &["--max-drop=-200"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(folder.path("out/report.json").exists());
}

#[test]
fn a_loss_that_is_no_number_names_step_and_parameter() {
    let folder = Folder::new();
    let tensors = TensorFile::open(&folder.path("model/model.safetensors")).unwrap();
    for (rate, blame) in [("1e30", "the largest value, "), ("1e38", " is ")] {
        let rate = format!("train.learning_rate={rate}");
        let mut command =
            folder.run("model", "data", rate.as_str(), &["--set", &rate, "--set", "train.steps=9"]);
        let output = command.output().unwrap();
        let said = said(&output);
        println!("{said}");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: step ") && said.contains("lower train.learning_rate"), "{said}");
        assert!(said.contains(": the loss is ") && said.contains(blame), "{said}");
        assert!(tensors.names().any(|name| said.contains(name)), "no parameter is named: {said}");
        assert!(!folder.path(&rate).join("baseline").exists(), "a network of no numbers is no artifact");
    }
}
