//! `--device cuda` where there is nothing, where something is missing, and in the emulation of a GPU.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const RECIPE: &str = r#"
name = "gpu"
[data]
source = "demo"
limit = 120
test_limit = 30
max_tokens = 24
[model]
layers = 2
hidden = 16
heads = 4
intermediate = 24
vocab = 300
positions = 24
[train]
steps = 4
batch = 8
learning_rate = 1e-3
"#;

/// The program, without a GPU unless `libraries` has one.
fn limbeck(arguments: &[&str], libraries: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.args(arguments).env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "");
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with the recipe, whose path is given too.
fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("gpu.toml");
    fs::write(&recipe, RECIPE).unwrap();
    let recipe = recipe.display().to_string();
    (folder, recipe)
}

#[test]
fn what_is_missing_is_said() {
    let (folder, recipe) = folder();
    let out = folder.path().join("run").display().to_string();
    let train = ["train", &recipe, "--out", &out, "--device", "cuda"];
    // With a driver on the machine and no GPU that may be seen, the words are others.
    let output = limbeck(&train, None).output().unwrap();
    let absent = ["there is no CUDA driver", "finds no GPU", "there is no NVRTC"];
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(absent.iter().any(|absent| said(&output).contains(absent)), "{}", said(&output));
    assert!(said(&output).contains("--device cpu"), "{}", said(&output));
    let kernels = limbeck(&["kernels"], None).output().unwrap();
    let text = String::from_utf8_lossy(&kernels.stdout).into_owned();
    assert!(kernels.status.success() && text.contains("cuda: absent: "), "{text}");

    let Some(emulation) = limbeck_emulation::folder() else { return };
    let output = limbeck(&train, Some(emulation)).env("EMULATED_NO_DEVICE", "1").output().unwrap();
    assert!(said(&output).contains("finds no GPU"), "{}", said(&output));
    let output = limbeck(&train, Some(emulation)).env("EMULATED_CAPABILITY", "75").output().unwrap();
    assert!(said(&output).contains("compute capability 7.5"), "{}", said(&output));
    let only_driver = tempfile::tempdir().unwrap();
    fs::copy(emulation.join("libcuda.so.1"), only_driver.path().join("libcuda.so.1")).unwrap();
    let output = limbeck(&train, Some(only_driver.path())).output().unwrap();
    assert!(said(&output).contains("there is no NVRTC"), "{}", said(&output));
    let cache = tempfile::tempdir().unwrap();
    let broken = &mut limbeck(&train, Some(emulation));
    let output =
        broken.env("EMULATED_COMPILE_ERROR", "norm").env("LIMBECK_CACHE", cache.path()).output().unwrap();
    assert!(
        said(&output).contains("NVRTC does not compile norm.cu")
            && said(&output).contains("error: as asked for")
    );
    let old = &mut limbeck(&train, Some(emulation));
    let output = old.env("EMULATED_DRIVER", "12040").env("LIMBECK_CACHE", cache.path()).output().unwrap();
    assert!(
        said(&output).contains("for CUDA 12.4") && said(&output).contains("NVRTC 13.0"),
        "{}",
        said(&output)
    );
    let found = limbeck(&["kernels", "--json"], Some(emulation)).output().unwrap();
    assert!(String::from_utf8_lossy(&found.stdout).contains("emulated device"));
}

#[test]
fn a_gpu_trains_and_evaluates() {
    let Some(emulation) = limbeck_emulation::folder() else { return };
    let (folder, recipe) = folder();
    let (out, cache) = (folder.path().join("run"), folder.path().join("cache"));
    let train = ["train", &recipe, "--out", out.to_str().unwrap(), "--device", "cuda"];
    let run = |arguments: &[&str], libraries| {
        let output = limbeck(arguments, libraries).env("LIMBECK_CACHE", &cache).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(&train, Some(emulation));
    assert!(fs::read_to_string(out.join("run.json")).unwrap().contains("cuda-sm_90"));
    assert!(fs::read_dir(cache.join("cuda")).unwrap().count() > 5, "compiled kernels are kept");
    // What a GPU began the CPU does not finish unasked.
    fs::remove_dir_all(out.join("baseline")).unwrap();
    fs::create_dir_all(out.join("state-train")).unwrap();
    let resumed = [&train[..4], &["--resume"]].concat();
    let output = limbeck(&resumed, None).output().unwrap();
    assert!(said(&output).contains("--device cuda"), "{}", said(&output));
    // What is kept and damaged is compiled again.
    for kept in fs::read_dir(cache.join("cuda")).unwrap() {
        fs::write(kept.unwrap().path(), "not a cubin").unwrap();
    }
    fs::remove_dir_all(&out).unwrap();
    run(&train, Some(emulation));

    let model = out.join("baseline");
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
    let lines: String = (0..20)
        .map(|i| {
            let label = &config["id2label"][(i % 4).to_string()];
            format!("{{\"text\": \"word number {i}\", \"label\": {label}}}\n")
        })
        .collect();
    let data = folder.path().join("texts.jsonl");
    fs::write(&data, lines).unwrap();
    let data = data.display().to_string();
    let columns = ["--set", "data.label_column=\"label\"", "--set", "data.text_columns=[\"text\"]"];
    let eval =
        [&["eval", model.to_str().unwrap(), "--data", &data, "--json", "--quiet"][..], &columns].concat();
    let on_cpu = run(&eval, None);
    let on_gpu = run(&[&eval[..], &["--device", "cuda"]].concat(), Some(emulation));
    assert_eq!(on_cpu, on_gpu, "of 20 texts none is so near a border");
}

/// Every step of a training, and the weights that come of it; `bench` says what was a graph.
#[test]
fn graphs_change_no_number() {
    let Some(emulation) = limbeck_emulation::folder() else { return };
    let (folder, recipe) = folder();
    let cache = folder.path().join("cache");
    let run = |arguments: &[&str], graphs: &str| {
        let mut command = limbeck(arguments, Some(emulation));
        command.env("LIMBECK_CACHE", &cache).env("LIMBECK_GRAPHS", graphs).output().unwrap()
    };
    let trained = |graphs: &str| {
        let out = folder.path().join(format!("run-{graphs}"));
        let output = run(
            &[
                "train",
                &recipe,
                "--out",
                out.to_str().unwrap(),
                "--device",
                "cuda",
                "--set",
                "train.steps=14",
            ],
            graphs,
        );
        assert!(output.status.success(), "{}", said(&output));
        let steps: Vec<serde_json::Value> = fs::read_to_string(out.join("metrics.jsonl"))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &serde_json::Value| line.get("loss").is_some())
            .collect();
        assert_eq!(steps.len(), 14, "{graphs}");
        let of = |name| steps.iter().map(|step| step[name].as_f64().unwrap()).collect::<Vec<_>>();
        (of("step"), of("loss"), fs::read(out.join("baseline/model.safetensors")).unwrap())
    };
    let (numbers, losses, weights) = trained("");
    assert_eq!(numbers, (1..=14).map(f64::from).collect::<Vec<_>>(), "none is told twice, or too late");
    let filled = trained("fill");
    assert_eq!(losses, filled.1);
    assert!(weights == filled.2, "the weights are others");
    for (step, (found, expected)) in losses.iter().zip(trained("0").1).enumerate() {
        assert!((found - expected).abs() <= 0.02 * expected, "step {step}: {found} {expected}");
    }

    let data = folder.path().join("texts.csv");
    let rows: String = (0..8).map(|i| format!("word number {i},label {}\n", i % 4)).collect();
    fs::write(&data, format!("text,label\n{rows}")).unwrap();
    let model = folder.path().join("run-").join("baseline");
    let bench = [
        "bench",
        model.to_str().unwrap(),
        "--train",
        "--data",
        data.to_str().unwrap(),
        "--device",
        "cuda",
        "--max-tokens",
        "24",
        "--repeat",
        "4",
    ];
    let told = |graphs| {
        let output = run(&bench, graphs);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let table = told("1");
    assert!(table.contains("CUDA graphs: 1 made, 4 of 6 steps were launches of one."), "{table}");
    assert!(!told("fill").contains("graphs"));
    let misspelt = run(&bench, "on");
    assert_eq!(misspelt.status.code(), Some(2), "{}", said(&misspelt));
    assert!(said(&misspelt).contains("LIMBECK_GRAPHS") && said(&misspelt).contains("0 or fill or 1"));
}
