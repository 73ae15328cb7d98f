//! Pairs of sentences and decoupled layers from the table to the `.limbeck` file, through the binary. One small run is
//! shared.

mod common;

use common::{fed, limbeck, refused, said};
use limbeck::checkpoint::HfDirectory;
use limbeck::data::demo;
use limbeck::infer::Model;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const RECIPE: &str = r#"
name = "pairs"
threads = 2
[data]
train = "train.tsv"
test = "test.tsv"
header = true
label_column = "same"
text_columns = ["one"]
second_columns = ["two"]
max_tokens = 40
[train]
steps = 6
batch = 8
[prune]
decouple = 1
[distill]
hidden = 1
attention = 1
quantized = 0.5
[distill.train]
steps = 6
[bench]
texts = 4
repeat = 1
[controls]
ngrams = true
"#;

/// Pairs of notes, and whether they are of one class.
fn table(seed: u64, pairs: usize) -> String {
    let notes = demo::generate(seed, 2 * pairs, 0).train;
    let mut text = "one\ttwo\tsame\n".to_owned();
    for pair in notes.chunks(2) {
        let same = if pair[0].label == pair[1].label { "yes" } else { "no" };
        let _ = writeln!(text, "{}\t{}\t{same}", pair[0].text, pair[1].text);
    }
    text
}

/// A folder with an encoder, data and a finished run, and what the run told.
static RUN: LazyLock<(PathBuf, String)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pairs");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    fs::write(at("train.tsv"), table(1, 200)).unwrap();
    fs::write(at("test.tsv"), table(2, 60)).unwrap();
    fs::write(at("pairs.toml"), RECIPE).unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/demo.toml");
    let short =
        ["--quiet", "--set", "train.steps=1", "--set", "data.limit=500", "--set", "data.validation=0"];
    said(&[&["train", demo.to_str().unwrap(), "--out", &at("encoder")][..], &short].concat());
    let [_, told] = said(&run(&at("run"), &folder));
    (folder, told)
});

fn run<'a>(out: &'a str, folder: &Path) -> [&'a str; 8] {
    let leaked = |name: &str| -> &'static str { folder.join(name).to_str().unwrap().to_owned().leak() };
    let (recipe, model) = (leaked("pairs.toml"), leaked("encoder/baseline"));
    ["run", recipe, "--out", out, "--model", model, "--data", leaked("")]
}

fn path(name: &str) -> String {
    RUN.0.join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_run_decouples_the_student_and_the_file_computes_as_it_learnt() {
    let (folder, told) = &*RUN;
    assert!(told.contains("in the first 1 of 2 layers each sentence attends only to itself"), "{told}");
    let equal = told.split("quantize: of 200 texts, ").nth(1).and_then(|rest| rest.split(' ').next());
    assert_eq!(equal, Some("200"), "{told}");
    let config = |name: &str| HfDirectory::open(&folder.join("run").join(name)).unwrap().config;
    assert_eq!(["baseline", "pruned", "distilled"].map(|name| config(name).decoupled), [0, 1, 1]);
    let file = Model::open(&folder.join("run/int8.limbeck")).unwrap();
    assert_eq!(file.config().decoupled, 1);
    file.check_golden().unwrap();
    let golden = &file.metadata().unwrap().golden;
    assert!(golden.iter().any(|golden| golden.first.is_some_and(|first| first < golden.ids.len())));
    let [seen, _] = said(&["inspect", &path("run/int8.limbeck")]);
    assert!(seen.contains("1 of 2 layers are decoupled: a pair of 32 and 32 tokens takes"), "{seen}");
    let padded = refused(&["export", &path("run/pruned"), &path("padded"), "--format", "hf-padded"]);
    assert!(padded.contains("in its first 1 layers each sentence of a pair attends to itself"), "{padded}");
}

#[test]
fn eval_and_predict_read_pairs_alike() {
    let columns =
        [r#"data.text_columns=["one"]"#, r#"data.second_columns=["two"]"#, r#"data.label_column="same""#];
    let columns = columns.map(|column| ["--set", column]).concat();
    for model in ["run/baseline", "run/int8.limbeck", "run/ngrams.safetensors"].map(path) {
        let (test, rest) = (path("test.tsv"), ["--set", "data.header=true", "--quiet", "--json"]);
        let eval = [&["eval", &model, "--data", &test][..], &columns, &rest].concat();
        let accuracy = serde_json::from_str::<Value>(&said(&eval)[0]).unwrap()["accuracy"].as_f64().unwrap();
        let text = fs::read_to_string(&test).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split('\t').collect()).collect();
        let sentences: Vec<&str> = rows.iter().flat_map(|row| [row[0], row[1]]).collect();
        let [answers, _] =
            said(&[&["predict", &model, "--pairs", "--max-tokens", "256"][..], &sentences].concat());
        let right = answers
            .lines()
            .zip(&rows)
            .filter(|(answer, row)| serde_json::from_str::<Value>(answer).unwrap()["label"] == row[2]);
        assert!((accuracy - right.count() as f64 / rows.len() as f64).abs() <= 1e-12, "{model}");
    }
}

#[test]
fn a_first_sentence_that_is_given_once_gives_the_same_logits() {
    for model in ["run/baseline", "run/int8.limbeck"].map(path) {
        let (first, seconds) =
            ("a note of some length", ["one", "another one", "", &"much too long ".repeat(99)]);
        let once = said(&[&["predict", &model, "--first", first][..], &seconds].concat());
        let pairs: Vec<&str> = seconds.iter().flat_map(|second| [first, second]).collect();
        let each = said(&[&["predict", &model, "--pairs"][..], &pairs].concat());
        assert_eq!(once[0], each[0]);
        assert_eq!(once[0].lines().count(), 4);
        let odd = refused(&["predict", &model, "--pairs", "one", "two", "three"]);
        assert!(odd.contains("has no second one"), "{odd}");
        let short = refused(&["predict", &model, "--pairs", "--max-tokens", "4", "one", "two"]);
        assert!(short.contains("a piece of each sentence"), "{short}");
    }
}

#[test]
fn a_line_is_two_sentences_or_refused() {
    let told = |lines: &str| {
        let output = fed(&mut limbeck(&["predict", &path("run/int8.limbeck"), "--pairs"]), lines);
        let answers = String::from_utf8(output.stdout).unwrap().lines().count();
        (answers, output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(told("one\ttwo\nthree\t\n").0, 2);
    for (line, problem) in [("one", "there is no tab"), ("one\ttwo\tthree", "there are several tabs")] {
        let (answers, code, told) = told(&format!("one\ttwo\n{line}\n"));
        assert_eq!((answers, code), (1, Some(1)), "{told}");
        assert!(told.contains("standard input, line 2: ") && told.contains(problem), "{told}");
    }
}

#[test]
fn what_cannot_be_decoupled_is_refused_before_the_first_step() {
    let refused = |name: &str, settings: &str| {
        let out = path(name);
        let told = refused(&[&run(&out, &RUN.0)[..], &["--set", settings]].concat());
        assert!(!Path::new(&out).join("baseline").exists(), "{told}");
        told
    };
    let all = refused("refused-all", "prune.decouple=2");
    assert!(all.contains("prune.decouple: is 2, of 2 layers; the last one has to read both"), "{all}");
    let deleted = refused("refused-deleted", "prune.keep_layers=[1]");
    assert!(deleted.contains("prune.decouple: is 1, of 1 layers"), "{deleted}");
    let alone = refused("refused-alone", "data.second_columns=[]");
    assert!(alone.contains("each text is one sentence") && alone.contains("data.second_columns"), "{alone}");
    let absent = refused("refused-absent", r#"data.second_columns=["three"]"#);
    assert!(absent.contains("data.second_columns") && absent.contains("\"three\""), "{absent}");
    let twice = refused("refused-twice", r#"data.second_columns=["one"]"#);
    assert!(twice.contains("gives to the first sentence"), "{twice}");
}
