//! A signal makes a training save its state and say how to go on; `--resume` goes on from there.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The last step whose state is saved.
fn saved_step(out: &Path) -> u64 {
    let saved = std::fs::read(out.join("state-train/state.json")).unwrap_or_default();
    let saved: serde_json::Value = serde_json::from_slice(&saved).unwrap_or_default();
    saved["position"]["step"].as_u64().unwrap_or(0)
}

/// Starts a training that would last for hours, waits until it has taken steps, and sends it `signal`.
/// Returns the exit code and what it said.
fn interrupted(out: &Path, signal: &str, more: &[&str]) -> (Option<i32>, String) {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/demo.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.arg("train").arg(recipe).arg("--out").arg(out).args(more);
    command.args(["--set", "train.steps=1000000", "--set", "model.hidden=16", "--threads", "1"]);
    command.args(["--set", "train.checkpoint_every=1"]);
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("train ...") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "ended before it was asked to: {said}");
    }
    let (began, before) = (Instant::now(), saved_step(out));
    while saved_step(out) <= before {
        assert!(began.elapsed() < Duration::from_secs(120), "no step is taken: {said}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    while stderr.read_line(&mut said).unwrap() != 0 {}
    (child.wait().unwrap().code(), said)
}

#[test]
fn a_signal_saves_the_state_and_resume_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (signal, more) in [("-TERM", &[][..]), ("-INT", &["--resume"])] {
        let (code, said) = interrupted(&out, signal, more);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("continue with --resume"), "{said}");
        assert!(!out.join("baseline").exists(), "a training that was stopped has no artifact");
    }
    // The log is one training: every step once, in order, without a gap between the two calls.
    let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps: Vec<u64> =
        lines.filter_map(|line| line["step"].as_u64().filter(|_| line["loss"].is_f64())).collect();
    assert!(steps.len() >= 2 && steps.iter().copied().eq(1..=steps.len() as u64), "{steps:?}");
    // Without --resume the run is kept as it is.
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/demo.toml");
    let other = Command::new(env!("CARGO_BIN_EXE_limbeck"))
        .args(["train", recipe.to_str().unwrap(), "--quiet", "--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8(other.stderr).unwrap().contains("which is kept"));
}
