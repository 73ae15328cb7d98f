//! A tiny model, a table to learn from, and calls of the binary.

use limbeck::checkpoint::{Dtype, HfDirectory, TensorToWrite, Values, fresh};
use limbeck::models::config::{DropoutConfig, Sizes};
use limbeck::models::{Classifier, ModelConfig};
use limbeck::tokenizer::{Rules, Tokenizer};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const RECIPE: &str = r#"
name = "small"
[data]
text_columns = [1]
labels = ["bad", "good"]
max_tokens = 12
[train]
steps = 4
batch = 4
learning_rate = 1e-3
[bench]
texts = 2
repeat = 1
warmup = 0
"#;

/// Labels count from 1.
pub const TABLE: &str = "1,a b c\n2,d e\n1,\"f, g\"\n2,h\n1,\u{4e2d}\n2,i j k l\n";

/// The longest text that the model reads, in tokens.
pub const POSITIONS: usize = 16;

fn config() -> ModelConfig {
    ModelConfig {
        dropout: DropoutConfig { hidden: 0.0, attention: 0.0, classifier: 0.0 },
        ..ModelConfig::distilbert(
            Sizes { vocab: 40, positions: POSITIONS, hidden: 8, heads: 2, intermediate: 12, layers: 2 },
            ["bad", "good"],
        )
    }
}

/// One tensor of a model directory.
pub type Named = (String, Vec<usize>, Vec<f32>);

/// Writes a model directory, whose tensors `change` may change first.
pub fn write_model(path: &Path, change: impl FnOnce(&mut Vec<Named>)) {
    let letters = ('a'..='q').flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u{4e2d}"].map(str::to_owned);
    let pieces: Vec<String> = specials.into_iter().chain(letters).collect();
    let tokenizer = Tokenizer::from_pieces(&pieces, Rules::bert(true)).unwrap();
    let (_, specs) = Classifier::new(&config());
    let named = specs.iter().map(|spec| (spec.name.clone(), spec.dims(), fresh(spec, 1)));
    let mut tensors: Vec<Named> = named.collect();
    change(&mut tensors);
    let tensors: Vec<TensorToWrite<'_>> = tensors
        .iter()
        .map(|(name, shape, values)| TensorToWrite { name, shape, values: Values::F32(values) })
        .collect();
    HfDirectory::save(path, &config(), &tensors, Dtype::F32, &BTreeMap::new(), &tokenizer).unwrap();
}

/// A folder with a model, tables and a recipe.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        write_model(&folder.path("model"), |_| ());
        fs::create_dir(folder.path("data")).unwrap();
        ["data/train.csv", "data/test.csv", "small.toml"]
            .iter()
            .zip([TABLE, TABLE, RECIPE])
            .for_each(|(name, content)| fs::write(folder.path(name), content).unwrap());
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `limbeck run` from `model` on `data` into `out`.
    pub fn run(&self, model: &str, data: &str, out: &str, more: &[&str]) -> Command {
        self.stage("run", model, data, out, &[&["--quiet"], more].concat())
    }

    /// The same of one stage, which tells what it does.
    pub fn stage(&self, stage: &str, model: &str, data: &str, out: &str, more: &[&str]) -> Command {
        let mut command = limbeck(&[stage]);
        command.arg(self.path("small.toml")).args(["--threads", "1"]);
        for (flag, path) in [("--model", model), ("--data", data), ("--out", out)] {
            command.arg(flag).arg(self.path(path));
        }
        command.args(more);
        command
    }

    /// `limbeck predict` of one text.
    pub fn predict(&self, model: &str, text: impl Into<OsString>) -> Command {
        let mut command = limbeck(&["predict"]);
        command.arg(self.path(model)).arg(text.into());
        command
    }

    /// Every file and its content.
    pub fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        contents(self.0.path())
    }

    /// Runs what must fail and must leave every file as it was; only `out`, which is removed, may be new.
    #[track_caller]
    pub fn refused(&self, command: &mut Command, words: &[&str]) {
        let before = self.contents();
        refused(command, words);
        let _ = fs::remove_dir_all(self.path("out"));
        assert!(self.contents() == before, "files have changed");
    }
}

pub fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap().flatten() {
        match entry.path() {
            folder if folder.is_dir() => found.extend(contents(&folder)),
            file => drop(found.insert(file.clone(), fs::read(&file).unwrap())),
        }
    }
    found
}

pub fn limbeck(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What was said on standard error, where no panic may be.
#[track_caller]
pub fn said(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).expect("errors are UTF-8");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Runs what must fail; what it says must hold every one of `words`, and nothing may go to standard output.
#[track_caller]
pub fn refused(command: &mut Command, words: &[&str]) {
    let output = command.output().unwrap();
    let said = said(&output);
    println!("{}", said.trim_end());
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty() && said.starts_with("error: "), "{said}");
    for word in words {
        assert!(said.contains(word), "{said:?} does not say {word:?}");
    }
}

#[track_caller]
pub fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    output
}

/// Changes one bit of a file: of a model's weights, in the last tensor.
pub fn flip_last_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}
