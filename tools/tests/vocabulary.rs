//! A smaller vocabulary, and fewer positions, from the recipe to the `.limbeck` file, through the binary. One small run is shared.

mod common;

use common::{call, said};
use limbeck::checkpoint::HfDirectory;
use limbeck::data::demo;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const PIECES: usize = 150;

const SMALL: [&str; 18] = [
    "--set",
    "data.limit=1500",
    "--set",
    "data.validation=200",
    "--set",
    "data.test_limit=100",
    "--set",
    "bench.texts=5",
    "--set",
    "bench.repeat=1",
    "--set",
    "prune.vocabulary=150",
    "--set",
    "model.positions=96",
    "--set",
    "data.max_tokens=64",
    "--set",
    "prune.positions=64",
];

/// The run's directory, its table as JSON, and what it told on the way.
static RUN: LazyLock<(PathBuf, Value, String)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vocabulary");
    let _ = fs::remove_dir_all(&folder);
    let [out, told] = said(&[&["run", "--json", "--out", folder.to_str().unwrap()][..], &SMALL].concat());
    (folder, serde_json::from_str(&out).unwrap(), told)
});

fn path(name: &str) -> String {
    RUN.0.join(name).to_str().unwrap().to_owned()
}

#[test]
fn each_variant_reads_its_own_pieces_and_says_so() {
    let (folder, table, told) = &*RUN;
    let open = |name: &str| HfDirectory::open(&folder.join(name)).unwrap();
    let sizes = |name: &str| (open(name).config.vocab, open(name).tokenizer().unwrap().vocab());
    assert!(sizes("baseline").0 > PIECES);
    assert_eq!(sizes("pruned"), (PIECES, PIECES));
    assert_eq!(sizes("distilled"), (PIECES, PIECES));
    // The effect is told, kept with the weights, and is what the table counts.
    let first = format!("vocabulary: {} pieces become {PIECES}", sizes("baseline").0);
    assert!(told.contains(&first), "{told}");
    for texts in ["training", "held-out", "test"] {
        assert!(told.contains(&format!("vocabulary: {texts} texts become ")), "{told}");
    }
    let directory = open("pruned");
    let effects: Value = serde_json::from_str(&directory.tensors.metadata()["limbeck.vocabulary"]).unwrap();
    assert_eq!(effects["pieces"], json!([sizes("baseline").0, PIECES]));
    let texts = ["training", "held_out", "test"].map(|texts| effects[texts]["texts"].as_u64().unwrap());
    assert_eq!(texts, [1300, 200, 100]);
    let rows = table["rows"].as_array().unwrap();
    // Controls follow.
    let tokens: Vec<&Value> = rows.iter().take(4).map(|row| &row["tokens"]).collect();
    let test = &effects["test"]["tokens"];
    assert_eq!(tokens, [&test[0], &test[1], &test[1], &test[1]]);
    assert!(test[1].as_u64() > test[0].as_u64(), "words are spelled out: {test}");
    let report = said(&["report", &path("")])[0].clone();
    assert!(report.contains("tokens of the test texts against the baseline's: pruned +"), "{report}");
}

#[test]
fn files_of_other_vocabularies_are_compared_on_the_same_texts() {
    let notes = demo::generate(99, 0, 60);
    let mut lines = String::new();
    for note in &notes.test {
        let _ = writeln!(lines, "{}", json!({ "text": note.text, "label": notes.labels[note.label] }));
    }
    let data = RUN.0.join("notes.jsonl");
    fs::write(&data, lines).unwrap();
    let columns = ["--set", "data.text_columns=[\"text\"]", "--set", "data.label_column=\"label\""];
    let (int8, baseline) = (path("int8.limbeck"), path("baseline"));
    let eval = ["eval", &int8, "--against", &baseline, "--quiet", "--json", "--data", data.to_str().unwrap()];
    let seen: Value = serde_json::from_str(&said(&[&eval[..], &columns].concat())[0]).unwrap();
    assert_eq!((&seen["texts"], &seen["against"]["texts"]), (&json!(60), &json!(60)));
    // What predict answers to the texts themselves, whichever vocabulary reads them.
    let texts: Vec<&str> = notes.test.iter().map(|note| note.text.as_str()).collect();
    for (model, found) in [(&int8, &seen), (&baseline, &seen["against"])] {
        let answers = said(&[&["predict", model], &texts[..]].concat())[0].clone();
        let right = answers.lines().zip(&notes.test).filter(|(answer, note)| {
            serde_json::from_str::<Value>(answer).unwrap()["label"] == notes.labels[note.label]
        });
        let accuracy = right.count() as f64 / 60.0;
        assert!(
            (found["accuracy"].as_f64().unwrap() - accuracy).abs() <= 1e-12,
            "{model}: {accuracy} for {found}"
        );
    }

    // A directory that stock programs read is a smaller model, not a padded vocabulary.
    let out = RUN.0.join("padded");
    let _ = fs::remove_dir_all(&out);
    said(&["export", &path("distilled"), out.to_str().unwrap(), "--format", "hf-padded"]);
    let config: Value = serde_json::from_str(&fs::read_to_string(out.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["vocab_size"], &config["max_position_embeddings"]), (&json!(PIECES), &json!(64)));
    assert!(config["limbeck"].is_null());
    let tokenizer = fs::read_to_string(out.join("tokenizer_config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&tokenizer).unwrap()["model_max_length"], 64);
    let lines = fs::read_to_string(out.join("vocab.txt")).unwrap().lines().count();
    assert_eq!(lines, PIECES);
    let answers = |model: &str| said(&["predict", model, &notes.test[0].text])[0].clone();
    let label = |model: &str| serde_json::from_str::<Value>(&answers(model)).unwrap()["label"].clone();
    assert_eq!(label(out.to_str().unwrap()), label(&path("distilled")));
}

#[test]
fn a_vocabulary_that_cannot_serve_is_refused_before_the_first_step() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vocabulary-refused");
    let _ = fs::remove_dir_all(&folder);
    let run = [&["run", "--quiet", "--out", folder.to_str().unwrap()][..], &SMALL].concat();
    let refused = call(&[&run[..], &["--set", "prune.vocabulary=20"]].concat());
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    let start = "prune.vocabulary: is 20; the special tokens and the characters of the training texts are ";
    let least = told.split(start).nth(1).and_then(|rest| rest.split(' ').next()).map(str::parse::<usize>);
    let Some(Ok(least)) = least else { panic!("{told}") };
    assert!(told.contains(&format!("{least} or more, or 0 to keep all pieces")), "{told}");
    assert!(!folder.join("metrics.jsonl").exists() && !folder.join("baseline").exists());
    // Nor is there a student whose tokens are not the teacher's, where they are compared.
    let refused = call(&[&run[..], &["--set", "distill.hidden=1"]].concat());
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    let words = "distill.hidden: compares tokens, and the teacher reads others than the student: text ";
    assert!(told.contains(words) && told.contains("leave the vocabulary (prune.vocabulary) whole"), "{told}");
    assert!(!folder.join("metrics.jsonl").exists() && !folder.join("baseline").exists());
    let refused = call(&[&run[..], &["--set", "prune.positions=300"]].concat());
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("prune.positions: is 300, and the model has 96; 96 or less, or 0"), "{told}");
    // That number is enough to begin with.
    let enough = format!("prune.vocabulary={least}");
    let run = [&["train"][..], &["--quiet", "--out", folder.to_str().unwrap()], &SMALL].concat();
    let mut short = vec!["--set", enough.as_str(), "--set", "train.steps=1"];
    short.splice(0..0, run);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/demo.toml");
    short.insert(1, recipe.to_str().unwrap());
    said(&short);
    assert!(folder.join("baseline").exists());
}
