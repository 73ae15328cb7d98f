//! Precision matrix by matrix, from the recipe to the `.limbeck` file, through the binary.

mod common;

use common::{call, said};
use limbeck::infer::{Model, StoredAs};
use limbeck::nn::Role;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const SMALL: [&str; 8] = [
    "data.limit=900",
    "data.test_limit=60",
    "bench.texts=3",
    "bench.repeat=1",
    "train.epochs=1",
    "data.validation=150",
    "quantize.samples=60",
    "distill.train.epochs=1",
];

/// Runs the demo with some keys into a fresh directory. Gives the directory and what was told.
fn run(name: &str, keys: &[&str]) -> (PathBuf, String) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    let sets = SMALL.iter().chain(keys).flat_map(|key| ["--set", key]);
    let arguments: Vec<&str> =
        ["run", "--json", "--out", folder.to_str().unwrap()].into_iter().chain(sets).collect();
    let [_, told] = said(&arguments);
    (folder, told)
}

/// The matrices and tables of a file in int4, and the others.
fn split(path: &Path) -> (Vec<String>, Vec<String>) {
    let model = Model::open(path).unwrap();
    model.check_golden().unwrap();
    let held = model.parameters().filter(|held| matches!(held.spec.role, Role::Weight | Role::Embedding));
    let (int4, others): (Vec<_>, Vec<_>) = held.partition(|held| held.form == StoredAs::Int4);
    let names =
        |held: Vec<limbeck::infer::Stored<'_>>| held.iter().map(|held| held.spec.name.clone()).collect();
    (names(int4), names(others))
}

fn choice(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("precision.json")).unwrap()).unwrap()
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_budget_decides_how_many_become_int4_and_the_file_says_which() {
    let auto = ["quantize.weights=auto", "quantize.embeddings=auto"];
    let (folder, told) = run("precision-auto", &[&auto[..], &["quantize.budget=100"]].concat());
    let generous = choice(&folder);
    let (order, int4) = (names(&generous["order"]), names(&generous["int4"]));
    assert_eq!(int4, order, "any accuracy is enough");
    let (mut held, _) = split(&folder.join("int8.limbeck"));
    held.sort();
    let mut expected = int4.clone();
    expected.sort();
    assert_eq!(held, expected);
    assert!(told.contains("precision: ") && told.contains("budget 100 points"), "{told}");
    // Damage for each byte saved ascends.
    let parameters = generous["sensitivity"]["parameters"].as_array().unwrap();
    let damage = |name: &String| {
        let of = parameters.iter().find(|parameter| parameter["name"] == name.as_str()).unwrap();
        let bytes = |form: &str| of[form]["bytes"].as_f64().unwrap();
        of["divergence"].as_f64().unwrap() / (bytes("int8") - bytes("int4"))
    };
    assert!(order.windows(2).all(|pair| damage(&pair[0]) <= damage(&pair[1])));
    // The choice is made once, and again the same.
    let file = fs::read(folder.join("int8.limbeck")).unwrap();
    fs::remove_file(folder.join("int8.limbeck")).unwrap();
    let kept = fs::metadata(folder.join("precision.json")).unwrap().modified().unwrap();
    let sets = SMALL.iter().chain(&auto).chain(&["quantize.budget=100"]).flat_map(|key| ["--set", key]);
    let again: Vec<&str> =
        ["run", "--json", "--resume", "--out", folder.to_str().unwrap()].into_iter().chain(sets).collect();
    assert!(call(&again).status.success());
    assert_eq!(fs::metadata(folder.join("precision.json")).unwrap().modified().unwrap(), kept);
    assert_eq!(split(&folder.join("int8.limbeck")).0.len(), int4.len());
    assert_eq!(fs::read(folder.join("int8.limbeck")).unwrap().len(), file.len());
    // One that was damaged is made again.
    let text = fs::read_to_string(folder.join("precision.json")).unwrap();
    let damaged = text.replacen(&order[0], &order[0].replace("weight", "wait"), 1);
    assert_ne!(damaged, text);
    fs::write(folder.join("precision.json"), damaged).unwrap();
    fs::remove_file(folder.join("int8.limbeck")).unwrap();
    assert!(call(&again).status.success());
    assert_eq!(fs::read_to_string(folder.join("precision.json")).unwrap(), text);

    // With no budget at all: what is tried and found to be enough is what is taken.
    let (folder, _) = run("precision-strict", &[&auto[..], &["quantize.budget=0"]].concat());
    let strict = choice(&folder);
    assert_eq!(names(&strict["order"]), order, "what was measured is the same");
    let taken = names(&strict["int4"]).len();
    let exact = strict["accuracy_f32"].as_f64().unwrap();
    for tried in strict["tried"].as_array().unwrap() {
        let (count, accuracy) = (tried[0].as_u64().unwrap() as usize, tried[1].as_f64().unwrap());
        assert!(
            count == 0 || (accuracy >= exact - 1e-8) == (count <= taken),
            "{tried} of {taken}, f32 {exact}"
        );
    }
}

#[test]
fn training_goes_by_exceptions_and_by_what_is_chosen() {
    let keys = [
        "distill.quantized=0.5",
        "quantize.weights=int4",
        "quantize.exceptions={\"*classifier.weight\"=\"int8\"}",
    ];
    let (folder, told) = run("precision-exceptions", &keys);
    let (int4, others) = split(&folder.join("int8.limbeck"));
    assert!(int4.iter().any(|name| name.ends_with("q_lin.weight")), "{int4:?}");
    assert!(
        others.contains(&"classifier.weight".to_owned())
            && others.contains(&"pre_classifier.weight".to_owned())
    );
    assert!(
        told.contains("have the logits of training to the bit; the largest difference is 0.0e0"),
        "{told}"
    );

    let keys = ["distill.quantized=0.5", "quantize.weights=auto", "quantize.budget=100"];
    let (folder, told) = run("precision-trained", &keys);
    assert_eq!(split(&folder.join("int8.limbeck")).0.len(), names(&choice(&folder)["int4"]).len());
    assert!(
        told.contains("have the logits of training to the bit; the largest difference is 0.0e0"),
        "{told}"
    );
    assert!(
        told.find("precision: ").unwrap() < told.find("quantize: ").unwrap(),
        "before it is trained: {told}"
    );
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (keys, words) in [
        (&["quantize.weights=auto"][..], "data.validation"),
        (&["quantize.embeddings=auto"], "hold out some rows"),
        (&["quantize.budget=-1"], "quantize.budget"),
        (&["quantize.samples=1"], "quantize.samples"),
        (&["quantize.exceptions={\"a\"=\"int3\"}"], "int4"),
        (&["quantize.exceptions=3"], "quantize.exceptions"),
    ] {
        let sets = keys.iter().flat_map(|key| ["--set", key]);
        let arguments: Vec<&str> = ["run", "--out", "never-made"].into_iter().chain(sets).collect();
        let output = call(&arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{keys:?}: {told}");
        assert!(told.contains(words), "{keys:?}: {told}");
    }
    assert!(!Path::new("never-made").exists());
}

#[test]
fn sensitivity_is_a_table_of_a_model_directory() {
    let (folder, _) = run("precision-table", &[]);
    let data = folder.join("texts.jsonl");
    let notes = limbeck::data::demo::generate(5, 40, 0);
    let lines = notes.train.iter().map(|note| {
        serde_json::json!({ "text": note.text, "label": notes.labels[note.label] }).to_string() + "\n"
    });
    fs::write(&data, lines.collect::<String>()).unwrap();
    let model = folder.join("distilled");
    let [model, data] = [&model, &data].map(|path| path.to_str().unwrap());
    let common = [
        "--data",
        data,
        "--texts",
        "40",
        "--set",
        "data.label_column=label",
        "--set",
        "data.text_columns=[\"text\"]",
    ];
    let said = |more: &[&str]| {
        let output = call(&[&["sensitivity", model][..], &common, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&said(&["--json"])).unwrap();
    let parameters = json["parameters"].as_array().unwrap();
    assert!(parameters.len() > 10 && parameters.iter().all(|parameter| parameter["divergence"].is_f64()));
    let int8 = |parameter: &Value| parameter["int8"]["weights_db"].as_f64().unwrap();
    assert!(parameters.iter().all(|parameter| int8(parameter) > 30.0), "a scale for each row keeps them");
    assert!(said(&[]).contains("q_lin.weight"));
    assert!(said(&["--markdown"]).starts_with("| matrix or table | int8 bytes |"));
    let file = folder.join("int8.limbeck");
    let output = call(&["sensitivity", file.to_str().unwrap(), "--data", data]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("no noise to measure"), "{told}");
}
