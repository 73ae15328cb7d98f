//! The binary as a user meets it: what it prints where, and how it exits.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

fn limbeck() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.env_remove("LIMBECK_ISA").stdin(Stdio::null());
    command
}

fn call(arguments: &[&str]) -> Output {
    limbeck().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn kernels_lists_every_row_as_text_and_as_json() {
    let output = call(&["kernels"]);
    assert!(output.status.success());
    let printed = text(&output.stdout);
    assert!(
        ["avx512", "avx-vnni", "avx2", "neon-dotprod", "neon", "scalar"]
            .iter()
            .all(|name| printed.contains(name)),
        "{printed}"
    );
    let json: serde_json::Value = serde_json::from_slice(&call(&["kernels", "--json"]).stdout).unwrap();
    let rows = json["kernels"].as_array().unwrap();
    assert_eq!(rows.iter().filter(|row| row["selected"] == true).count(), 1);
    assert!(rows.iter().all(|row| row["selected"] == false || row["available"] == true));
}

#[test]
fn a_row_can_be_forced_and_an_unknown_one_is_an_error() {
    let forced = limbeck().env("LIMBECK_ISA", "scalar").args(["kernels", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&forced.stdout).unwrap();
    assert_eq!(json["selected"], "scalar");
    let unknown = limbeck().env("LIMBECK_ISA", "sse9").arg("kernels").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2), "wrong use");
    assert!(unknown.stdout.is_empty());
    assert_eq!(text(&unknown.stderr).lines().count(), 1);
    assert!(text(&unknown.stderr).contains(
        "sse9 is not an instruction set (known: avx512, avx-vnni, avx2, neon-dotprod, neon, scalar)"
    ));
    // An empty one forces nothing.
    let empty = limbeck().env("LIMBECK_ISA", "").args(["kernels", "--json"]).output().unwrap();
    assert!(empty.status.success());
    assert_eq!(empty.stdout, call(&["kernels", "--json"]).stdout);
}

#[test]
fn wrong_use_exits_with_2_and_help_with_0() {
    for arguments in [
        &["nonsense"][..],
        &[],
        &["train"],
        &["bench"],
        &["bench", "x", "--repeat", "0"],
        &["bench", "x", "--repeat", "4000000000"],
        &["bench", "x", "--batch", "4000000000"],
        &["bench", "x", "--data", "y"],
        &["eval", "x", "--data", "y", "--against", "z", "--max-drop", "nan"],
        &["run", "demo", "--max-drop", "inf"],
        &["eval", "x", "--data", "y", "--max-drop", "1"],
        &["sweep", "report", "x", "--device", "cuda"],
        &["run", "--threads", "100000"],
        &["predict", "x", "--threads", "100000"],
    ] {
        let output = call(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: errors belong on standard error");
    }
    let help = call(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Exit codes:\n  0  done\n  1  failed"));
}

#[test]
fn recipe_errors_name_the_key_or_the_file() {
    let missing = call(&["train", "no-such-recipe.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    let lines: Vec<String> = text(&missing.stderr).lines().map(str::to_owned).collect();
    assert_eq!(lines, ["error: no-such-recipe.toml: there is no such file; check the path"]);
    let unknown = call(&["run", "--set", "train.learnin_rate=1"]);
    assert_eq!(unknown.status.code(), Some(2), "it was typed, so it is wrong use");
    assert!(
        text(&unknown.stderr)
            .contains("train.learnin_rate: there is no such key; did you mean learning_rate?")
    );
    assert!(!text(&unknown.stderr).contains('\x1b'), "no colour where there is no terminal");
}

#[test]
fn what_is_wrong_in_a_recipe_fails_and_what_is_typed_is_wrong_use() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, out) = (folder.path().join("recipe.toml"), folder.path().join("out"));
    let run = |content: &str, more: &[&str]| {
        std::fs::write(&recipe, format!("[data]\nsource = \"demo\"\n{content}")).unwrap();
        let output =
            limbeck().arg("run").arg(&recipe).args(["--quiet", "--out"]).arg(&out).args(more).output();
        let output = output.unwrap();
        assert!(output.stdout.is_empty() && !out.exists(), "nothing is written");
        (output.status.code(), text(&output.stderr))
    };
    let said = "error: model.layers: is 1000000000; a whole number from 1 to 1024\n".to_owned();
    let wrong = "[model]\nlayers = 1000000000";
    assert_eq!(run(wrong, &[]), (Some(1), said.clone()));
    assert_eq!(run(wrong, &["--set", "seed=3"]), (Some(1), said.clone()));
    assert_eq!(run("", &["--set", "model.layers=1000000000"]), (Some(2), said));
    for (set, words) in [
        ("model.hidden=65536", "model: its sizes make "),
        ("train.epochs=99999999999999999999", "99999999999999999999; a number from 0 to 1000000"),
        ("train.batch=-99999999999999999999", "-99999999999999999999; a whole number, 0 or more"),
        ("threads=100000", "threads: 100000 are too many for a machine with "),
        ("train.batch", "train.batch: has no value"),
    ] {
        let (code, said) = run("[model]\nlayers = 1000", &["--set", set]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(words), "{said:?} does not say {words:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    // `head -n 0`, so to speak: the pipe's reading end is closed before anything is written.
    let mut child = limbeck().arg("kernels").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_to_string(&mut said).unwrap();
    assert!(status.success() && said.is_empty(), "{status}: {said}");
    // The counterpart, so that the test above cannot pass because nothing was printed at all.
    let mut child = limbeck().arg("kernels").stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(child.wait().unwrap().code().is_some() && first.starts_with("kernels"));
}
