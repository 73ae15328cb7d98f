//! Several processes train what one trains: the same texts and dropout, gradients added in another order. One that fails stops all.
#![cfg(unix)]

use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Of an epoch's 217 texts the last batch holds one, so that some ranks have none; the prune stage watches gradients, the distil
/// stage looks inside the teacher.
const RECIPE: &str = r#"
name = "ranks"
seed = 3
[data]
source = "demo"
limit = 257
test_limit = 20
max_tokens = 24
validation = 40
[model]
layers = 2
hidden = 16
heads = 4
intermediate = 24
vocab = 300
positions = 24
dropout = 0.1
attention_dropout = 0.1
[train]
steps = 30
batch = 8
learning_rate = 1e-3
evaluate_every = 11
checkpoint_every = 5
[prune]
heads = 0.5
units = 0.5
schedule = "cubic"
events = 3
[prune.train]
steps = 20
[distill]
hidden = 0.5
attention = 0.2
relations = 0.3
[distill.train]
steps = 30
[bench]
texts = 2
repeat = 1
warmup = 0
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ranks.toml"), RECIPE).unwrap();
        Folder(folder)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts so many ranks.
    fn start(&self, name: &str, size: usize, more: &[&str]) -> Vec<Child> {
        self.start_with(name, size, more, |command| {
            command.arg("--quiet");
        })
    }

    fn start_with(
        &self,
        name: &str,
        size: usize,
        more: &[&str],
        change: impl Fn(&mut Command),
    ) -> Vec<Child> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        (0..size)
            .map(|rank| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
                command.arg("run").arg(self.0.path().join("ranks.toml")).arg("--out").arg(self.out(name));
                command.args(["--threads", "1"]).args(more);
                command.env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string());
                command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", &port);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
                change(&mut command);
                command.spawn().unwrap()
            })
            .collect()
    }

    /// Runs so many ranks to the end, which must be a good one.
    fn finish(&self, name: &str, size: usize, more: &[&str]) {
        let ended = self.start(name, size, more).into_iter().map(|child| child.wait_with_output().unwrap());
        let ended: Vec<Output> = ended.collect();
        let said: Vec<_> = ended.iter().map(|output| String::from_utf8_lossy(&output.stderr)).collect();
        assert!(ended.iter().all(|output| output.status.success()), "{name}: {said:#?}");
    }
}

/// The losses of a run, step by step through its stages, and its evaluations.
fn curve(out: &Path) -> Vec<(String, f64)> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter_map(|line| {
            let value = line.get("loss").or(line.get("accuracy"))?.as_f64().unwrap();
            Some((format!("{} {}", line["stage"].as_str().unwrap(), line["step"]), value))
        })
        .collect()
}

/// The accuracy of each row of a run's table.
fn accuracies(out: &Path) -> Vec<f64> {
    let report: Value = serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap();
    report["rows"].as_array().unwrap().iter().map(|row| row["accuracy"].as_f64().unwrap()).collect()
}

/// Fails unless curves are the same but for rounding, which training makes larger from step to step.
fn assert_close(found: &Path, expected: &Path, bound: f64) {
    let (found, expected) = (curve(found), curve(expected));
    assert_eq!(found.len(), expected.len());
    for ((name, found), (other, expected)) in found.iter().zip(&expected) {
        assert_eq!(name, other);
        assert!((found - expected).abs() <= bound * expected.abs(), "{name}: {found} for {expected}");
    }
}

#[test]
fn two_and_three_ranks_learn_what_one_learns() {
    let folder = Folder::new();
    folder.finish("one", 1, &[]);
    assert!(curve(&folder.out("one")).len() >= 80);
    for (name, size) in [("two", 2), ("three", 3)] {
        folder.finish(name, size, &[]);
        assert_close(&folder.out(name), &folder.out("one"), 2e-4);
        // Of twenty texts, rounding may turn one.
        let (found, expected) = (accuracies(&folder.out(name)), accuracies(&folder.out("one")));
        assert_eq!(found.len(), expected.len());
        let near = found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() <= 0.051);
        assert!(near, "{name}: {found:?} for {expected:?}");
    }
}

/// What the first rank measures and decides for all, it asks nobody about.
#[test]
fn one_rank_chooses_precisions_for_all() {
    let folder = Folder::new();
    let more = ["train.steps=8", "prune.train.steps=0", "prune.schedule=once", "distill.train.steps=8"];
    let keys = ["distill.quantized=0.5", "quantize.weights=auto", "quantize.budget=5", "quantize.samples=16"];
    let more: Vec<&str> = more.iter().chain(&keys).flat_map(|key| ["--set", key]).collect();
    for (name, size) in [("one", 1), ("two", 2)] {
        folder.finish(name, size, &more);
    }
    let chosen = |name: &str| fs::read(folder.out(name).join("precision.json")).unwrap();
    assert!(!chosen("one").is_empty() && !chosen("two").is_empty());
    assert_close(&folder.out("two"), &folder.out("one"), 2e-3);
}

/// The binary has to be built with the feature, and `mpirun` to be there.
#[cfg(feature = "mpi")]
#[test]
fn two_ranks_of_mpi_learn_what_one_learns() {
    let folder = Folder::new();
    folder.finish("one", 1, &[]);
    let mut command = Command::new("mpirun");
    command.args(["-n", "2", "--oversubscribe", env!("CARGO_BIN_EXE_limbeck"), "run"]);
    command.arg(folder.0.path().join("ranks.toml")).arg("--out").arg(folder.out("mpi"));
    command.args(["--quiet", "--threads", "1"]).stdin(Stdio::null());
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_close(&folder.out("mpi"), &folder.out("one"), 2e-4);
    for (place, (name, found)) in curve(&folder.out("mpi")).into_iter().enumerate() {
        let (_, expected) = curve(&folder.out("one"))[place].clone();
        println!("{name}: two ranks {found:.6}, one {expected:.6}");
    }
    // One that fails ends both, and is heard.
    let output = command.arg("--set").arg("train.batch=9").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("choose another --out"), "{said}");
}

/// On two emulated GPUs, by an NCCL that stands in for the real one.
#[test]
fn two_ranks_on_gpus_learn_what_one_learns() {
    let Some(emulation) = limbeck_emulation::folder() else { return };
    let folder = Folder::new();
    let on_gpus = |name: &str, size: usize| {
        let settings = [
            "train.steps=3",
            "prune.train.steps=3",
            "distill.train.steps=3",
            "data.limit=60",
            "data.validation=8",
            "prune.samples=10",
        ];
        let few: Vec<&str> = ["--device", "cuda"]
            .into_iter()
            .chain(settings.into_iter().flat_map(|key| ["--set", key]))
            .collect();
        let ended = folder.start_with(name, size, &few, |command| {
            // Each sees one GPU, which is then its own, whatever its number.
            command.env("LD_LIBRARY_PATH", emulation).env("LOCAL_RANK", "1");
        });
        let ended: Vec<Output> = ended.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let said: Vec<_> = ended.iter().map(|output| String::from_utf8_lossy(&output.stderr)).collect();
        assert!(ended.iter().all(|output| output.status.success()), "{name}: {said:#?}");
        assert!(said.iter().all(|said| !said.contains("by way of the hosts")), "{said:#?}");
    };
    on_gpus("one", 1);
    on_gpus("two", 2);
    assert_close(&folder.out("two"), &folder.out("one"), 2e-4);
}

/// Waits until a run has written this file.
fn wait_for(out: &Path, file: &str) {
    let start = Instant::now();
    while !out.join(file).exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "{file} does not appear in {}", out.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_rank_that_is_killed_stops_all_and_others_go_on_from_there() {
    let folder = Folder::new();
    folder.finish("one", 1, &[]);
    let mut ranks = folder.start_with("broken", 2, &[], |_| ());
    wait_for(&folder.out("broken"), "state-train/state.json");
    let mut second = ranks.pop().unwrap();
    second.kill().unwrap();
    second.wait().unwrap();
    let Output { status, stderr, .. } = ranks.pop().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("waiting for another rank at 127.0.0.1:"), "{said}");
    assert!(said.contains("rank 1 has stopped"), "{said}");
    // Another number of ranks goes on from the state.
    folder.finish("broken", 3, &["--resume"]);
    assert_close(&folder.out("broken"), &folder.out("one"), 2e-4);
}

#[test]
fn variables_that_make_no_sense_are_named() {
    let folder = Folder::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.arg("run").arg("--out").arg(folder.out("x")).env("RANK", "2").env("WORLD_SIZE", "2");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("RANK") && !folder.out("x").exists(), "{said}");
}
