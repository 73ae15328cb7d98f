//! Sweeps through the binary: a grid that is killed and gone on with, jobs that share it, ablations, trials that fail.
#![cfg(unix)]

mod common;

use common::limbeck;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const RECIPE: &str = r#"
name = "small"
model = { layers = 2, hidden = 16, heads = 4, intermediate = 24, vocab = 300, positions = 24 }
[data]
source = "demo"
limit = 260
test_limit = 40
max_tokens = 24
[train]
steps = 40
batch = 8
learning_rate = 3e-3
checkpoint_every = 5
[prune]
schedule = "cubic"
events = 2
[prune.train]
steps = 15
[distill.train]
steps = 10
[bench]
texts = 4
repeat = 1
warmup = 1
"#;

const GRID: &str = r#"
[sweep]
base = "small.toml"
seeds = [1, 2]
[sweep.grid]
"prune.heads" = [0.25, 0.5]
"prune.units" = [0.3, 0.6]
"#;

const ARTIFACTS: [&str; 4] =
    ["baseline/model.safetensors", "pruned/model.safetensors", "distilled/model.safetensors", "int8.limbeck"];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(sweep: &str) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        fs::write(folder.at("small.toml"), RECIPE).unwrap();
        fs::write(folder.at("sweep.toml"), sweep).unwrap();
        folder
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, file: &str, out: &str, more: &[&str]) -> Command {
        let mut command = limbeck(&["sweep"]);
        command.arg(self.at(file)).arg("--out").arg(self.at(out)).args(["--quiet", "--json"]);
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs, and must end with `code`; what was printed, and what was said.
    fn run(&self, file: &str, out: &str, more: &[&str], code: i32) -> (Value, String) {
        parsed(self.command(file, out, more).output().unwrap(), code)
    }

    fn report(&self, out: &str, more: &[&str], code: i32) -> (Value, String) {
        let mut command = limbeck(&["sweep", "report", "--quiet", "--json"]);
        parsed(command.arg(self.at(out)).args(more).output().unwrap(), code)
    }
}

fn parsed(output: Output, code: i32) -> (Value, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

fn states(printed: &Value) -> Vec<(&str, &str)> {
    let trials = printed["trials"].as_array().unwrap();
    trials.iter().map(|trial| (trial["id"].as_str().unwrap(), trial["state"].as_str().unwrap())).collect()
}

fn bytes(trial: &Path) -> Vec<Vec<u8>> {
    ARTIFACTS
        .iter()
        .map(|name| fs::read(trial.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")))
        .collect()
}

/// What tells whether files are those of before: inode numbers and times of all artifacts of all trials.
fn stamps(out: &Path) -> Vec<(PathBuf, u64, Duration)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    for trial in fs::read_dir(out.join("trials")).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        for name in ARTIFACTS.iter().chain(&["report.json"]) {
            let path = trial.path().join(name);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let time = metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
            found.push((path, metadata.ino(), time));
        }
    }
    found.sort();
    found
}

#[test]
fn a_grid_killed_and_gone_on_with_is_as_if_it_had_never_stopped() {
    let folder = Folder::new(GRID);
    let (plan, _) = folder.run("sweep.toml", "grid", &["--dry-run"], 0);
    assert!(states(&plan).iter().all(|(_, state)| *state == "not begun") && states(&plan).len() == 8);
    assert!(!folder.at("grid").exists(), "a dry run leaves nothing");

    // Killed in the middle of the first trial's pruning, and of some later trial.
    let began = Instant::now();
    for (trial, file) in [(0, "state-prune/state.json"), (2, "pruned")] {
        let mut running = folder.command("sweep.toml", "grid", &[]).spawn().unwrap();
        let file = folder.at("grid/trials").join(states(&plan)[trial].0).join(file);
        while !file.exists() {
            assert!(running.try_wait().unwrap().is_none(), "it ended before {}", file.display());
            assert!(began.elapsed() < Duration::from_secs(300), "{} never came", file.display());
            std::thread::sleep(Duration::from_millis(1));
        }
        running.kill().unwrap();
        running.wait().unwrap();
    }
    let (broken, _) = folder.run("sweep.toml", "grid", &["--dry-run"], 0);
    assert_eq!(states(&broken)[0].1, "finished");
    let (done, _) = folder.run("sweep.toml", "grid", &[], 0);
    assert!(states(&done).iter().all(|(_, state)| *state == "finished"), "{done}");

    // Jobs that share the directory make the same files, whichever makes which.
    for (index, trials) in [("2", 4), ("1", 4)] {
        let (part, _) = folder.run("sweep.toml", "jobs", &["--index", index, "--of", "2"], 0);
        assert_eq!(states(&part).len(), trials);
    }
    for (id, _) in states(&done) {
        let [grid, jobs] = ["grid", "jobs"].map(|out| folder.at(out).join("trials").join(id));
        assert!(bytes(&grid) == bytes(&jobs), "{id} differs");
    }

    // A trial is the run that its recipe alone makes, but for its name.
    let id = states(&done)[3].0;
    let recipe = folder.at("grid/trials").join(id).join("recipe.toml");
    let alone = folder.at("alone");
    let mut run = limbeck(&["run", "--quiet"]);
    assert!(run.arg(&recipe).arg("--out").arg(&alone).output().unwrap().status.success());
    let trial = folder.at("grid/trials").join(id);
    let logits = |path: &Path| {
        let answer = limbeck(&["predict"])
            .arg(path)
            .args(["the baker stirred the soup", "a sailor"])
            .output()
            .unwrap();
        assert!(answer.status.success());
        answer.stdout
    };
    for artifact in ["baseline", "pruned", "distilled", "int8.limbeck"] {
        assert_eq!(logits(&trial.join(artifact)), logits(&alone.join(artifact)), "{artifact}");
    }
    // And other commands read it as one.
    let read = limbeck(&["report"]).arg(&trial).output().unwrap();
    assert!(String::from_utf8(read.stdout).unwrap().contains(&format!("recipe {id}, seed 1")));

    // Trials of a seed have one baseline; those of another have another.
    use std::os::unix::fs::MetadataExt;
    let inode = |id: &str| fs::metadata(folder.at("grid/trials").join(id).join(ARTIFACTS[0])).unwrap().ino();
    let ids: Vec<&str> = states(&done).into_iter().map(|(id, _)| id).collect();
    assert_eq!(fs::read_dir(folder.at("grid/baselines")).unwrap().count(), 2);
    assert!(ids[..4].iter().all(|id| inode(id) == inode(ids[0])) && inode(ids[4]) != inode(ids[0]));

    // What is done stays as it is, also when the sweep grows.
    let before = stamps(&folder.at("grid"));
    assert_eq!(before.len(), 8 * 5);
    let more = GRID.replace("[0.25, 0.5]", "[0.25, 0.5, 0.75]").replace("[1, 2]", "[1]");
    fs::write(folder.at("sweep.toml"), more).unwrap();
    let (grown, _) = folder.run("sweep.toml", "grid", &[], 0);
    assert_eq!(states(&grown).len(), 6);
    let after = stamps(&folder.at("grid"));
    assert!(after.len() == 10 * 5 && before.iter().all(|stamp| after.contains(stamp)));

    // One of another recipe by the same name would have its trials compared with these.
    fs::write(folder.at("other.toml"), GRID.replace("[0.3, 0.6]", "[0.2]")).unwrap();
    let other = folder.command("other.toml", "grid", &["--set", "train.batch=4"]).output().unwrap();
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && said.contains("finished trials of another sweep"), "{said}");
    assert_eq!(stamps(&folder.at("grid")), after);

    the_report_draws_the_front(&folder);
}

fn the_report_draws_the_front(folder: &Folder) {
    let (report, _) = folder.report("grid", &[], 0);
    let points = report["points"].as_array().unwrap();
    let settings: Vec<&Value> = points.iter().filter(|point| point["reference"] == false).collect();
    // Those of the former file, too.
    assert_eq!((settings.len(), report["trials"].as_array().unwrap().len()), (6, 10));
    for point in &settings {
        let [low, mean, high] =
            ["accuracy_low", "accuracy", "accuracy_high"].map(|key| point[key].as_f64().unwrap());
        assert!(low <= mean && mean <= high, "{point}");
        let seeds = point["trials"].as_array().unwrap().len();
        assert_eq!(point["p_value"].is_null(), seeds == 2, "{point}");
        assert_eq!(point["difference_interval"].is_null(), seeds == 1, "{point}");
        let on_front = point["front_of_bytes"] == true || point["front_of_milliseconds"] == true;
        assert!(!on_front || point["milliseconds"].as_f64().unwrap() > 0.0, "{point}");
    }
    let accuracy = |point: &&&Value| point["accuracy"].as_f64().unwrap();
    let best = settings.iter().max_by(|a, b| accuracy(a).total_cmp(&accuracy(b))).unwrap();
    let equal = settings.iter().filter(|point| point["accuracy"] == best["accuracy"]);
    assert!(equal.into_iter().any(|point| point["front_of_bytes"] == true));
    assert_eq!(points[0]["name"], "baseline");
    for (file, words) in [("pareto.svg", "<svg"), ("pareto.html", "<table>"), ("pareto.json", "\"points\"")] {
        let text = fs::read_to_string(folder.at("grid").join(file)).unwrap();
        assert!(text.contains(words) && !text.contains("<script"), "{file}");
        let front = settings.iter().filter(|point| point["front_of_bytes"] == true);
        for point in front {
            assert!(text.contains(point["name"].as_str().unwrap()), "{file}");
        }
    }
    let (untimed, _) = folder.report("grid", &["--no-latency", "--max-drop=100"], 0);
    assert!(untimed["points"].as_array().unwrap().iter().all(|point| point["milliseconds"].is_null()));
    // Another row of the same runs: what there was before distillation.
    let (before, _) = folder.report("grid", &["--no-latency", "--variant=pruned"], 0);
    assert_eq!((&before["variant"], &report["variant"]), (&"pruned".into(), &"int8".into()));
    let trials = before["trials"].as_array().unwrap();
    let bytes = |id: &Value| {
        let rows = trials.iter().find(|trial| trial["id"] == *id).unwrap()["rows"].as_array().unwrap();
        rows.iter().find(|row| row["variant"] == "pruned").unwrap()["file_bytes"].as_f64().unwrap()
    };
    for point in before["points"].as_array().unwrap().iter().filter(|point| point["reference"] == false) {
        // The mean over seeds: which heads go may be other digits in a header.
        let ids = point["trials"].as_array().unwrap();
        let mean = ids.iter().map(bytes).sum::<f64>() / ids.len() as f64;
        assert_eq!(point["file_bytes"].as_f64(), Some(mean));
    }
    assert!(folder.at("grid").join("pareto-pruned.svg").exists());
    // Into a document, as Markdown, with the machine of the trials.
    let document = folder.at("notes.md");
    let name = report["recipe"].as_str().unwrap();
    let markers = ["begin", "end"].map(|end| format!("<!-- table:{name}-pruned {end} -->"));
    fs::write(&document, format!("{}\nwhat stood here\n{}\nrest\n", markers[0], markers[1])).unwrap();
    let mut command = limbeck(&["sweep", "report", "--quiet", "--no-latency", "--variant=pruned", "--into"]);
    assert!(command.arg(&document).arg(folder.at("grid")).output().unwrap().status.success());
    let text = fs::read_to_string(&document).unwrap();
    assert!(
        text.starts_with(&markers[0]) && text.ends_with("rest\n") && !text.contains("what stood here"),
        "{text}"
    );
    assert!(
        text.contains("| smaller | p50 ms | fewer mult-adds | speed-up |") && text.contains("logical CPUs"),
        "{text}"
    );
    let (_, said) = folder.report("grid", &["--no-latency", "--variant=prune"], 2);
    assert!(said.contains("there are pruned, distilled, int8"), "{said}");
    let (_, said) = folder.report("grid", &["--no-latency", "--max-drop=-101"], 3);
    assert!(said.contains("points below its baseline; --max-drop is -101"), "{said}");
}

#[test]
fn failures_are_named_and_stop_no_other_trial() {
    let sweep = "[sweep]\nbase = \"small.toml\"\n[sweep.grid]\n\"distill.train.learning_rate\" = [1e-3, 1e30, 2e-3]\n";
    let folder = Folder::new(sweep);
    let (done, said) = folder.run("sweep.toml", "out", &[], 1);
    let found = states(&done);
    let state = |found: &[(&str, &str)]| -> Vec<String> {
        found.iter().map(|(_, state)| (*state).to_owned()).collect()
    };
    assert_eq!(state(&found), ["finished", "failed", "finished"]);
    assert!(said.contains("learning_rate-1e30") && said.contains("the loss is"), "{said}");
    // What diverged would diverge again, and is not tried again; damage is found, named and mended.
    let log = folder.at("out/trials").join(found[1].0).join("metrics.jsonl");
    let (lines, hurt) = (fs::read(&log).unwrap(), folder.at("out/trials").join(found[0].0));
    let int8 = hurt.join("int8.limbeck");
    let whole = fs::read(&int8).unwrap();
    fs::write(&int8, &whole[..whole.len() / 2]).unwrap();
    let (again, said) = folder.run("sweep.toml", "out", &[], 1);
    assert_eq!(state(&states(&again)), ["failed", "failed", "finished"]);
    assert!(said.contains("int8.limbeck") && said.contains("remove "), "{said}");
    assert!(fs::read(&log).unwrap() == lines, "it was not tried again");
    let (report, _) = folder.report("out", &["--no-latency"], 0);
    assert_eq!(
        (report["trials"].as_array().unwrap().len(), report["unfinished"].as_array().unwrap().len()),
        (1, 2)
    );
    fs::remove_file(&int8).unwrap();
    let (mended, _) = folder.run("sweep.toml", "out", &[], 1);
    assert_eq!(state(&states(&mended)), ["finished", "failed", "finished"]);
    assert!(fs::read(&int8).unwrap() == whole);

    // A trial that another process holds is left to it.
    let held = fs::File::open(&hurt).unwrap();
    held.lock().unwrap();
    fs::remove_file(hurt.join("report.json")).unwrap();
    let (left, _) = folder.run("sweep.toml", "out", &[], 1);
    assert_eq!(state(&states(&left)), ["begun", "failed", "finished"]);
    drop(held);

    // Another recipe under the same names is refused, and nothing is lost: neither runs nor what the sweep knows of them.
    let kept = || {
        let trials = fs::read_dir(folder.at("out/trials")).unwrap().flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = trials.filter(|path| path.is_file()).collect();
        files.sort();
        files.push(folder.at("out/sweep.toml"));
        files.into_iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    let before = kept();
    fs::write(folder.at("small.toml"), RECIPE.replace("steps = 40", "steps = 41")).unwrap();
    let (_, said) = folder.run("sweep.toml", "out", &[], 1);
    assert!(
        said.contains("a run of another recipe") && said.contains("train.steps = 40 there, 41 here"),
        "{said}"
    );
    assert!(fs::read(&int8).unwrap() == whole && kept() == before);

    // What was measured on other texts is not compared.
    let report = hurt.join("report.json");
    fs::write(
        &report,
        fs::read_to_string(folder.at("out/trials").join(found[2].0).join("report.json"))
            .unwrap()
            .replace("\"texts\": 40", "\"texts\": 39"),
    )
    .unwrap();
    let (_, said) = folder.report("out", &["--no-latency"], 1);
    assert!(said.contains("on 39 test texts") && said.contains("remove those"), "{said}");
}

#[test]
fn an_ablation_says_what_each_term_contributed() {
    let folder = Folder::new("");
    let recipe = RECIPE.replace("[prune]\n", "[prune]\nheads = 0.5\nunits = 0.6\n");
    fs::write(folder.at("small.toml"), format!("{recipe}[controls]\nint8 = true\nngrams = true\n")).unwrap();
    let (printed, _) = folder.run("small.toml", "out", &["--ablate"], 0);
    let (done, _) = folder.run("small.toml", "out", &["--ablate", "--dry-run"], 0);
    let trials = states(&done);
    assert!(trials[0].0 == "whole_seed-1" && trials.iter().all(|(_, state)| *state == "finished"), "{done}");
    let (report, _) = folder.report("out", &["--no-latency"], 0);
    assert!(report["recipes"].as_array().unwrap().iter().all(|row| row["milliseconds"].is_null()));
    assert_eq!(report["recipes"][1]["difference"], printed["recipes"][1]["difference"]);
    let found = printed["recipes"].as_array().unwrap();
    let named = |name: &str| found.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!((found.len(), &found[0]["name"]), (trials.len(), &Value::from("whole")));
    let number = |name: &str, key: &str| named(name)[key].as_f64().unwrap();
    assert_eq!((number("whole", "difference"), number("whole", "times_bytes")), (0.0, 1.0));
    for name in ["without-units", "without-small-embeddings"] {
        assert!(number(name, "times_bytes") > 1.0, "{name}");
        assert!((0.0..=1.0).contains(&number(name, "p_value")), "{name}");
        let difference = number(name, "accuracy") - number("whole", "accuracy");
        assert!((number(name, "difference") - difference).abs() <= 1e-12, "{name}");
    }
    assert!(found.iter().all(|row| row["milliseconds"].as_f64().unwrap() > 0.0));
    assert!(folder.at("out/ablation.json").exists());

    // The controls stand in each run's table, measured from files in its directory.
    let whole = folder.at("out/trials/whole_seed-1");
    let table: Value = serde_json::from_slice(&fs::read(whole.join("report.json")).unwrap()).unwrap();
    let row =
        |name: &str| table["rows"].as_array().unwrap().iter().find(|row| row["variant"] == name).unwrap();
    for (name, file) in [("int8 baseline", "int8-baseline.limbeck"), ("n-grams", "ngrams.safetensors")] {
        let row = row(name);
        assert_eq!(row["file_bytes"], fs::metadata(whole.join(file)).unwrap().len(), "{name}");
        assert!(row["latency_ms_p50"].as_f64().unwrap() > 0.0 && row["p_value"].is_f64(), "{row}");
        assert_eq!(row["texts"], 40, "{row}");
    }
    let accuracy = |name: &str| row(name)["accuracy"].as_f64().unwrap();
    // Words tell most topics, also to a model that has seen few; the network has hardly begun to learn.
    assert!(accuracy("n-grams") > 0.5, "{}", accuracy("n-grams"));
    assert!((accuracy("int8 baseline") - accuracy("baseline")).abs() <= 0.1);
    assert_eq!(row("int8 baseline")["parameters"], row("baseline")["parameters"]);
}

#[test]
fn wrong_use_is_told_from_wrong_files() {
    let folder = Folder::new(GRID);
    for (more, code, words) in [
        (&["--index", "3", "--of", "2"][..], 2, "jobs are numbered from 0 or from 1"),
        (&["--index", "1"], 2, "--of"),
        (&["--set", "sweep.trails=3"], 2, "did you mean trials?"),
        (&["--set", "prune.weights=60"], 2, "prune.weights: is 60"),
        (&["--set", "prune.heads=0.6"], 2, "prune.heads: the sweep gives it its own values"),
        (&["--ablate"], 1, "sweep.ablate: removes the terms of one recipe"),
    ] {
        let (_, said) = folder.run("sweep.toml", "out", more, code);
        assert!(said.contains(words), "{said}");
        assert!(!folder.at("out").exists());
    }
    fs::create_dir(folder.at("full")).unwrap();
    fs::write(folder.at("full/notes"), "mine").unwrap();
    let (_, said) = folder.run("sweep.toml", "full", &[], 1);
    assert!(said.contains("files that are not of a sweep"), "{said}");
    let (_, said) = folder.report("full", &[], 1);
    assert!(said.contains("there is no sweep.toml in it; give the directory of a sweep"), "{said}");
}
