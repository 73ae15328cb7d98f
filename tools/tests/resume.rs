//! A run that is killed is as if it had never been: `--resume` leads to the same bytes as an undisturbed run.
#![cfg(unix)]

use limbeck::tokenizer::Tokenizer;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Small, but with all that has state: dropout, gradual pruning, masks, a teacher, held-out texts, and
/// checkpoints that do not fall on events.
const RECIPE: &str = r#"
name = "short"
seed = 3
[data]
source = "demo"
limit = 260
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
steps = 60
batch = 8
learning_rate = 3e-3
evaluate_every = 17
checkpoint_every = 5
[prune]
heads = 0.5
units = 0.5
weights = 0.4
classifier = 0.3
schedule = "cubic"
events = 4
[prune.train]
steps = 60
[distill.train]
steps = 60
[bench]
texts = 2
repeat = 1
warmup = 0
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("short.toml"), RECIPE).unwrap();
        Folder(folder)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, name: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        command.arg("run").arg(self.0.path().join("short.toml")).arg("--out").arg(self.out(name));
        command.args(["--quiet"]).args(more).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Runs to the end, which must be a good one.
    fn finish(&self, name: &str, more: &[&str]) {
        let output = self.run(name, more).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A running program that does not outlive a failed test.
struct Running(Child);

impl Running {
    fn kill(&mut self) -> ExitStatus {
        // SIGKILL: nothing in the program gets a chance to save or tidy up.
        self.0.kill().unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The files that a run is for, and what they hold.
fn artifacts(out: &Path) -> Vec<(&'static str, Vec<u8>)> {
    ["baseline/model.safetensors", "pruned/model.safetensors", "distilled/model.safetensors", "int8.limbeck"]
        .into_iter()
        .map(|name| (name, fs::read(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))))
        .collect()
}

fn assert_same(found: &Path, expected: &Path) {
    for ((name, found), (_, expected)) in artifacts(found).into_iter().zip(artifacts(expected)) {
        assert!(found == expected, "{name} differs from that of the undisturbed run");
    }
}

/// How many saved states a run has.
fn states(out: &Path) -> usize {
    let entries = fs::read_dir(out).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("state")).count()
}

/// What the log says of each step, without times; once for each step, in order.
fn log(out: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect();
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("seconds")));
    lines
}

/// Waits for the state of `stage` after its `step`th step or later.
fn wait_for_state(running: &mut Running, out: &Path, stage: &str, step: u64) {
    let state = out.join(format!("state-{stage}/state.json"));
    let began = Instant::now();
    loop {
        let saved = fs::read(&state).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let saved: serde_json::Value = saved.unwrap_or_default();
        if saved["position"]["step"].as_u64().is_some_and(|found| found >= step) {
            return;
        }
        assert!(running.0.try_wait().unwrap().is_none(), "it ended before {stage} was at step {step}");
        assert!(began.elapsed() < Duration::from_secs(300), "{stage} never came to step {step}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs with `set`, whole and killed in each stage that trains. Returns both directories, and how the second was
/// gone on with.
fn whole_and_broken<'a>(folder: &Folder, set: &[&'a str]) -> (PathBuf, PathBuf, Vec<&'a str>) {
    folder.finish("whole", set);
    let (whole, broken) = (folder.out("whole"), folder.out("broken"));
    let mut more = set.to_vec();
    // What a writer leaves that is killed at once.
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join(".run.json.1-0.partial"), "{").unwrap();
    // In pruning, after the second of four events: the state's network is smaller than the stage's first one.
    for (stage, step, artifact) in
        [("train", 20, "baseline"), ("prune", 25, "pruned"), ("distill", 30, "distilled")]
    {
        let mut running = Running(folder.run("broken", &more).spawn().unwrap());
        wait_for_state(&mut running, &broken, stage, step);
        let status = running.kill();
        assert_eq!(status.code(), None, "killed, not ended");
        assert!(!broken.join(artifact).exists(), "killed in the middle of {stage}");
        more = [set, &["--resume"]].concat();
    }
    folder.finish("broken", &more);
    assert_same(&broken, &whole);
    assert_eq!(log(&broken), log(&whole));
    assert_eq!(states(&broken), 0, "nothing is left of them");
    (whole, broken, more)
}

#[test]
fn killed_while_blocks_are_pruned_it_ends_in_the_same_bytes() {
    let folder = Folder::new();
    // Without single weights it is nothing to blocks what would make one important.
    let keys = ["weights=0", "weight_importance=fisher", "heads=0", "units=0", "blocks=0.8"];
    let keys = [&keys[..], &["block_importance=movement", "block_scope=global"]].concat();
    let keys: Vec<String> = keys.into_iter().map(|key| format!("prune.{key}")).collect();
    // Which layout is faster is measured, and may differ from run to run.
    let layout = "quantize.layout=blocks".to_owned();
    let set: Vec<&str> = keys.iter().chain([&layout]).flat_map(|key| ["--set", key]).collect();
    let (_, run, _) = whole_and_broken(&folder, &set);
    // What pruning masked, distillation kept and quantization stored.
    let zero = |name: &str| -> Vec<(usize, usize)> {
        let seen = limbeck::report::inspect(&run.join(name), None).unwrap();
        let encoder = seen.matrices.iter().filter(|matrix| matrix.name.contains(".layer."));
        encoder.map(|matrix| (matrix.zero, matrix.blocks)).collect()
    };
    let (baseline, pruned, int8) = (zero("baseline"), zero("pruned"), zero("int8.limbeck"));
    let live = |matrices: &[(usize, usize)]| matrices.iter().map(|(zero, all)| all - zero).sum::<usize>();
    // Heads and units that were emptied have left, and with them blocks that were none of the budget's.
    let all = live(&baseline);
    let asked = all - (0.8 * all as f64).round() as usize;
    assert!(pruned.len() == 12 && live(&pruned) <= asked && live(&pruned) > 0, "{pruned:?}");
    assert!(pruned.iter().zip(&baseline).any(|(pruned, whole)| pruned.1 < whole.1), "{pruned:?}");
    assert_eq!(zero("distilled"), pruned);
    assert!(int8.iter().zip(&pruned).all(|(int8, pruned)| int8.0 >= pruned.0 && int8.1 == pruned.1));
    assert!(baseline.iter().all(|matrix| matrix.0 == 0));
}

#[test]
fn killed_while_it_learns_from_the_inside_of_a_wider_teacher_it_ends_in_the_same_bytes() {
    let folder = Folder::new();
    let mut wide = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    wide.arg("train").arg(folder.out("short.toml")).arg("--out").arg(folder.out("wide")).arg("--quiet");
    wide.args(["--set", "model.hidden=24", "--set", "model.layers=3"]).stdin(Stdio::null());
    assert!(wide.status().unwrap().success());
    let teachers = format!("distill.teacher=['{}', 'baseline']", folder.out("wide/baseline").display());
    let keys = ["layers=0.5", "schedule=cubic"].map(|key| format!("prune.{key}"));
    let terms = ["hidden=0.5", "cosine=0.5", "attention=1", "relations=1", "layer_map=search"];
    let keys = keys.into_iter().chain(terms.map(|key| format!("distill.{key}"))).chain([teachers]);
    let keys: Vec<String> = keys.collect();
    let set: Vec<&str> = keys.iter().flat_map(|key| ["--set", key]).collect();
    let (_, run, _) = whole_and_broken(&folder, &set);
    // Each term is in the log of the stages that have a teacher, and in no other.
    for line in log(&run).iter().filter(|line| line["loss"].is_f64()) {
        for term in ["hidden", "cosine", "attention", "relations"] {
            assert_eq!(line[term].is_f64(), line["stage"] != "train", "{line}");
        }
    }
    let config = fs::read_to_string(run.join("distilled/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["n_layers"], 1);
    assert_eq!(config["limbeck"]["deleted_layers"].as_array().unwrap().len(), 1, "{config}");
    // No projection is left in what was made.
    let weights = fs::read(run.join("distilled/model.safetensors")).unwrap();
    assert!(!weights.windows(10).any(|bytes| bytes == b"projection"));
}

#[test]
fn killed_with_a_narrower_network_it_ends_in_the_same_bytes() {
    let folder = Folder::new();
    // The baseline, which is wider, teaches hidden states by projections.
    let set = ["prune.hidden=0.3", "prune.samples=40", "prune.embedding_size=5", "distill.hidden=0.5"];
    let set: Vec<&str> = set.into_iter().flat_map(|key| ["--set", key]).collect();
    let (_, run, _) = whole_and_broken(&folder, &set);
    // 11 of 16 features, and heads of 4.
    let int8 = limbeck::infer::Model::open(&run.join("int8.limbeck")).unwrap();
    let config = int8.config();
    assert_eq!((config.hidden, config.head_size, config.embedding_size), (11, 4, Some(5)));
    int8.check_golden().unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_limbeck"))
        .args(["run", &folder.out("short.toml").display().to_string(), "--out"])
        .arg(folder.out("refused"))
        .args(["--set", "prune.hidden=0.6", "--set", "prune.embedding_size=7", "--quiet"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    // Six of sixteen are left: told before the first step.
    assert!(said.contains("prune.embedding_size: is 7") && said.contains("by 6"), "{said}");
    assert!(!folder.out("refused/metrics.jsonl").exists());
}

#[test]
fn killed_while_pruned_in_rounds_it_ends_in_the_same_bytes() {
    let folder = Folder::new();
    let keys =
        ["schedule=iterative", "rewind_to=0.3", "head_importance=block-fisher", "unit_importance=fisher"];
    let keys = [&keys[..], &["weight_importance=movement"]].concat();
    let keys: Vec<String> = keys.into_iter().map(|key| format!("prune.{key}")).collect();
    let set: Vec<&str> = keys.iter().flat_map(|key| ["--set", key]).collect();
    let (_, run, _) = whole_and_broken(&folder, &set);
    let events: Vec<serde_json::Value> =
        log(&run).into_iter().filter(|line| line["event"].is_number()).collect();
    // Five rounds of twelve steps. Half of the events delete, half mask; all go back.
    let at = |key: &str| -> Vec<u64> { events.iter().map(|event| event[key].as_u64().unwrap()).collect() };
    assert_eq!((at("step"), at("event")), (vec![12, 24, 36, 48], vec![1, 2, 3, 4]));
    assert!(events.iter().all(|event| event["rewound"] == "weights" && event["stage"] == "prune"));
    // Of 8 heads and 48 units half.
    assert_eq!((at("heads")[1..].to_vec(), at("units")[1..].to_vec()), (vec![4; 3], vec![24; 3]));
    let masked = at("masked");
    assert!(masked[1] < masked[2] && masked[2] < masked[3], "{masked:?}");
}

#[test]
fn killed_in_each_stage_and_resumed_it_ends_in_the_same_bytes() {
    let folder = Folder::new();
    // In the precision of the long trainings; the next test is in f32.
    let (_, broken, more) = whole_and_broken(&folder, &["--set", "train.precision=bf16"]);
    // Nor of one whose stage was killed after its artifact had appeared.
    fs::create_dir(broken.join("state-prune")).unwrap();
    fs::write(broken.join("state-prune/state.json"), "{}").unwrap();
    assert_eq!(states(&broken), 1);
    folder.finish("broken", &more);
    assert_eq!(states(&broken), 0);
}

#[test]
fn killed_with_smaller_tables_of_words_and_positions_it_ends_in_the_same_bytes() {
    let folder = Folder::new();
    let set = ["model.positions=40", "prune.vocabulary=120", "prune.positions=24", "prune.embedding_size=8"];
    let set: Vec<&str> = set.into_iter().flat_map(|key| ["--set", key]).collect();
    let (whole, _, _) = whole_and_broken(&folder, &set);
    let pieces = |name: &str| Tokenizer::from_directory(&whole.join(name)).unwrap().vocab();
    assert_eq!([pieces("baseline"), pieces("pruned"), pieces("distilled")], [300, 120, 120]);
    let int8 = limbeck::infer::Model::open(&whole.join("int8.limbeck")).unwrap();
    let config = int8.config();
    assert_eq!((int8.tokenizer().unwrap().vocab(), config.vocab, config.positions), (120, 120, 24));
    assert_eq!(config.embedding_size, Some(8));
}

#[test]
fn killed_with_shared_layers_and_thin_matrices_it_ends_in_the_same_bytes() {
    let folder = Folder::new();
    let set = ["model.hidden=48", "prune.share=1", "prune.rank=0.2", "prune.rank_scope=global"]
        .map(|set| ["--set", set]);
    let (whole, _, _) = whole_and_broken(&folder, set.as_flattened());
    let int8 = limbeck::infer::Model::open(&whole.join("int8.limbeck")).unwrap();
    let config = int8.config();
    assert!(!config.shared.is_empty() && config.shared.iter().all(|&owner| owner == 0), "{config:?}");
    assert!(config.ranks.as_flattened().iter().any(|&rank| rank > 0), "{config:?}");
    assert!(config.layers.iter().all(|layer| *layer == config.layers[0]));
}

#[test]
fn a_state_whose_parent_was_swapped_is_refused() {
    let folder = Folder::new();
    let (run, other) = (folder.out("run"), folder.out("other"));
    let stage = |name: &str, out: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        command.arg(name).arg(folder.out("short.toml")).arg("--out").arg(folder.out(out));
        command.arg("--quiet").args(more).stdin(Stdio::null());
        command
    };
    assert!(stage("train", "run", &[]).status().unwrap().success());
    let other_rate = ["--set", "train.learning_rate=1e-3"];
    assert!(stage("train", "other", &other_rate).status().unwrap().success());
    let mut running = Running(stage("prune", "run", &[]).spawn().unwrap());
    wait_for_state(&mut running, &run, "prune", 10);
    running.kill();
    let (own, swapped) = (run.join("baseline/model.safetensors"), other.join("baseline/model.safetensors"));
    fs::rename(&own, folder.out("kept")).unwrap();
    fs::copy(swapped, &own).unwrap();
    let output = stage("prune", "run", &["--resume"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("state-prune/state.json: the training began from other weights"), "{said}");
    assert!(!run.join("pruned").exists());
    // With its own again it goes on.
    fs::rename(folder.out("kept"), &own).unwrap();
    assert!(stage("prune", "run", &["--resume"]).status().unwrap().success());
}

#[test]
fn killed_at_any_moment_again_and_again_it_still_ends_in_the_same_bytes() {
    let folder = Folder::new();
    let began = Instant::now();
    folder.finish("whole", &[]);
    let (whole, broken) = (began.elapsed(), folder.out("broken"));
    // Each try lasts longer than the one before, so that it ends whatever is lost in between.
    let mut kills = 0;
    for tries in 1.. {
        let mut running = Running(folder.run("broken", &["--resume"]).spawn().unwrap());
        std::thread::sleep(whole * tries / 8);
        match running.0.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "try {tries} ended by itself: {status}");
                break;
            }
            None => drop(running.kill()),
        }
        kills += 1;
    }
    assert!(kills >= 2, "it was killed {kills} times");
    assert_same(&broken, &folder.out("whole"));
    assert_eq!(log(&broken), log(&folder.out("whole")));
}

#[test]
fn threads_change_nothing() {
    let folder = Folder::new();
    for threads in ["1", "2", "5"] {
        folder.finish(threads, &["--threads", threads]);
    }
    assert_same(&folder.out("2"), &folder.out("1"));
    assert_same(&folder.out("5"), &folder.out("1"));
    assert_eq!(log(&folder.out("5")), log(&folder.out("1")));
}

#[test]
fn a_seed_changes_everything() {
    let folder = Folder::new();
    folder.finish("first", &[]);
    folder.finish("second", &["--seed", "4"]);
    for ((name, first), (_, second)) in
        artifacts(&folder.out("first")).into_iter().zip(artifacts(&folder.out("second")))
    {
        assert!(first != second, "{name} does not depend on the seed");
    }
}
