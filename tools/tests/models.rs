//! The commands that open a model: inspect, bench and export, on a small one that is written here.

mod common;

use common::{fed, limbeck, succeeded};
use limbeck::checkpoint::{Dtype, HfDirectory, TensorToWrite, Values, fresh};
use limbeck::models::config::{LayerConfig, Sizes};
use limbeck::models::{Classifier, ModelConfig};
use limbeck::tokenizer::{Rules, Tokenizer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PIECES: [&str; 8] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "oil", "price", "##s"];

fn model(folder: &Path) -> PathBuf {
    let layers = [(vec![0, 2], 7), (vec![], 24), (vec![3], 5)];
    let config = ModelConfig {
        layers: layers.map(|(heads, intermediate)| LayerConfig { heads, intermediate }).to_vec(),
        ..ModelConfig::distilbert(
            Sizes { vocab: PIECES.len(), positions: 12, hidden: 32, heads: 4, intermediate: 24, layers: 0 },
            ["World", "Sports"],
        )
    };
    let (_, specs) = Classifier::new(&config);
    let tensors: Vec<_> = specs.iter().map(|spec| (spec, spec.dims(), fresh(spec, 3))).collect();
    let tensors: Vec<TensorToWrite<'_>> = tensors
        .iter()
        .map(|(spec, shape, values)| TensorToWrite { name: &spec.name, shape, values: Values::F32(values) })
        .collect();
    let tokenizer = Tokenizer::from_pieces(&PIECES, Rules::bert(true)).unwrap();
    let path = folder.join("model");
    HfDirectory::save(&path, &config, &tensors, Dtype::F32, &BTreeMap::new(), &tokenizer).unwrap();
    path
}

/// Calls the binary in `folder` with this on standard input.
fn call(folder: &Path, arguments: &[&str], input: &str) -> Output {
    fed(limbeck(arguments).current_dir(folder).env("LIMBECK_CACHE", folder.join("cache")), input)
}

/// Standard output of a call that succeeds.
fn said(folder: &Path, arguments: &[&str], input: &str) -> String {
    let [printed, _] = succeeded(call(folder, arguments, input));
    printed
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn inspect_counts_what_the_files_hold() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    said(folder, &["export", "model", "model.limbeck", "--format", "limbeck"], "");
    for source in ["model", "model.limbeck"] {
        let seen: Value =
            serde_json::from_str(&said(folder, &["inspect", source, "--seq", "9", "--json"], "")).unwrap();
        let parts = seen["parts"].as_array().unwrap();
        let of = |part: &Value, key: &str| part[key].as_u64().unwrap();
        assert_eq!(parts.len(), 8, "embeddings, two parts a layer, head");
        // Layer 0, attention: 2 heads of 8. Projections, their biases, the norm; 9 tokens.
        let attention = &parts[1];
        assert_eq!(of(attention, "parameters"), 4 * 32 * 16 + 3 * 16 + 32 + 2 * 32);
        assert_eq!(of(attention, "bytes"), 4 * of(attention, "parameters"));
        assert_eq!(of(attention, "multiply_adds"), 9 * 4 * 32 * 16 + 2 * 9 * 9 * 16);
        assert_eq!(attention["remaining"], serde_json::json!([2, 4]));
        // The last layer: queries, output and feed-forward part of one row.
        assert_eq!(of(&parts[5], "multiply_adds"), (2 * 9 + 2) * 32 * 8 + 2 * 9 * 8);
        assert_eq!(of(&parts[6], "multiply_adds"), 2 * 32 * 5);
        // Fresh biases are zero: of the head 34 of 34 biases, and none of its weights.
        let sparsity = parts[7]["sparsity"].as_f64().unwrap();
        assert!((sparsity - 34.0 / of(&parts[7], "parameters") as f64).abs() <= 1e-12, "{sparsity}");
        // Six matrices a layer, two in the head, none of them with a zero block: fresh weights are not zero.
        let matrices = seen["matrices"].as_array().unwrap();
        assert_eq!(matrices.len(), 3 * 6 + 2);
        assert!(matrices.iter().all(|matrix| matrix["zero"] == 0));
        // Layer 0: queries are 16×32, the expansion is 7×32, the contraction 32×7.
        let blocks = |matrix: usize| of(&matrices[matrix], "blocks");
        assert_eq!([blocks(0), blocks(4), blocks(5)], [8, 8, 4]);
        assert!(parts.iter().all(|part| part["ms_p50"].as_f64().is_some_and(|ms| ms >= 0.0)));
        let text = said(folder, &["inspect", source, "--seq", "9"], "");
        assert!(text.contains("layer 1 attention") && text.contains("0 of 4"), "{text}");
    }
    assert!(
        said(folder, &["inspect", "model"], "").contains("for a text of 12 tokens"),
        "as many as it reads"
    );
    let long = call(folder, &["inspect", "model", "--seq", "13"], "");
    assert_eq!(long.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&long.stderr).contains("the model reads 1 to 12"));
}

#[test]
fn inspect_checks_a_file_against_what_it_says_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    said(folder, &["export", "model", "model.limbeck", "--format", "limbeck"], "");
    let check = ["inspect", "model.limbeck", "--seq", "9", "--check"];
    assert!(said(folder, &check, "").contains("the same bits as when the file was written"));
    let json: Value = serde_json::from_str(&said(folder, &[&check[..], &["--json"]].concat(), "")).unwrap();
    assert!(json["checked_texts"].as_u64().is_some_and(|texts| texts >= 1), "{json}");
    assert_eq!(call(folder, &["inspect", "model", "--check"], "").status.code(), Some(2), "a directory");
    // One bit of a weight: it loads, and predicts, and is not what was written.
    let mut bytes = fs::read(folder.join("model.limbeck")).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[8 + header] ^= 1;
    fs::write(folder.join("model.limbeck"), bytes).unwrap();
    said(folder, &check[..4], "");
    let damaged = call(folder, &check, "");
    assert_eq!(damaged.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&damaged.stderr).contains("hash differs"));
}

/// A file is evaluated with the vocabulary in it, a directory with what lies beside its weights.
#[test]
fn eval_reads_a_file_as_it_reads_its_directory() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    said(folder, &["export", "model", "model.limbeck", "--format", "limbeck"], "");
    let rows = ["\"1\",\"oil\",\"prices\"", "\"2\",\"price\",\"[MASK] oil\"", "\"1\",\"a\",\"oils\""];
    fs::write(folder.join("test.csv"), rows.join("\n") + "\n").unwrap();
    let eval = |source: &str| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        command.current_dir(folder).env("LIMBECK_CACHE", folder.join("cache"));
        let output =
            command.args(["eval", source, "--data", "test.csv", "--json", "--quiet"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (directory, file) = (eval("model"), eval("model.limbeck"));
    assert_eq!(directory["texts"], 3);
    assert_eq!(directory["labels"], serde_json::json!(["World", "Sports"]));
    assert_eq!(directory["label_values"], serde_json::json!(["1", "2"]));
    assert_eq!(directory, file);
    assert_eq!(fs::read_dir(folder.join("cache")).unwrap().count(), 2, "a cache for each tokenizer");
}

#[test]
fn eval_needs_no_home_that_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    fs::write(folder.join("test.csv"), "\"1\",\"oil\",\"prices\"\n\"2\",\"price\",\"oil\"\n").unwrap();
    // Nobody can write below a file; a directory's permissions would not stop root.
    fs::write(folder.join("home"), "").unwrap();
    fs::create_dir(folder.join("tmp")).unwrap();
    let eval = |set: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        command.current_dir(folder).env_remove("XDG_CACHE_HOME").env_remove("LIMBECK_CACHE");
        command.env("HOME", folder.join("home")).env("TMPDIR", folder.join("tmp"));
        command.envs(set.iter().map(|(name, value)| (name, folder.join(value))));
        command.args(["eval", "model", "--data", "test.csv", "--quiet"]).output().unwrap()
    };
    for set in [&[][..], &[("XDG_CACHE_HOME", "home")]] {
        let output = eval(set);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_dir(folder.join("tmp/limbeck")).unwrap().count(), 1);
    }
    // Where the user says is where it must be.
    let refused = eval(&[("LIMBECK_CACHE", "home/cache")]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("home/cache"));
}

/// Weights that overflow: every number in the file is finite, and no answer is.
#[test]
fn what_overflows_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = model(folder).join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let place = |name: &str| {
        let range: Vec<usize> = serde_json::from_value(tensors[name]["data_offsets"].clone()).unwrap();
        8 + header + range[0]..8 + header + range[1]
    };
    for name in ["pre_classifier.bias", "classifier.weight"] {
        bytes[place(name)].chunks_exact_mut(4).for_each(|x| x.copy_from_slice(&3e38_f32.to_le_bytes()));
    }
    fs::write(&path, bytes).unwrap();
    fs::write(folder.join("test.csv"), "\"1\",\"oil\",\"prices\"\n\"2\",\"price\",\"oil\"\n").unwrap();
    for arguments in [
        &["predict", "model", "oil"][..],
        &["eval", "model", "--data", "test.csv", "--quiet"],
        &["export", "model", "out", "--format", "limbeck"],
    ] {
        let refused = call(folder, arguments, "");
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{errors}");
        assert!(errors.contains("model: text 0 of the batch has the logit inf for class 0"), "{errors}");
        assert!(errors.contains("damaged or overflow") && refused.stdout.is_empty(), "{errors}");
    }
}

/// Where the numbers of the labels tell nothing, what is printed works; and no key is taken and not used.
#[test]
fn eval_says_what_to_type() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    fs::write(folder.join("test.jsonl"), "{\"label\": 1, \"text\": \"oil\"}\n").unwrap();
    let mut eval = vec!["eval", "model", "--quiet", "--data", "test.jsonl"];
    let refused = |more: &[&str], code: i32, words: &str| {
        let output = call(folder, &[&eval[..], more].concat(), "");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(words), "{errors}");
    };
    refused(&[], 1, r#"--set 'data.label_column="label"' --set 'data.text_columns=["text"]'"#);
    for key in ["train.epochs=1", "data.source=demo", "data.dir=x", "data.test=x"] {
        refused(&["--set", key], 2, "this command does not use this key; it uses data.format");
    }
    refused(&["--set", "data.heder=true"], 2, "did you mean header?");
    let columns = ["--set", "data.label_column=\"label\"", "--set", "data.text_columns=[\"text\"]"];
    refused(&columns, 1, "; say which with --set data.first_label=0 or --set data.first_label=1");
    eval.extend(columns);
    for (first, class) in [("data.first_label=0", 1), ("data.first_label=1", 0)] {
        let answer = said(folder, &[&eval[..], &["--json", "--set", first]].concat(), "");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let counts = |label: usize| -> u64 {
            answer["confusion"][label].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum()
        };
        assert_eq!((counts(class), counts(1 - class)), (1, 0), "{first}");
    }
}

#[test]
fn bench_works_at_another_programs_word() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    let bench = ["bench", "model", "--interactive", "--seq", "9", "--batch", "3", "--threads", "2"];
    let answer = said(folder, &bench, "go\n\ngo\n");
    let (ready, rest) = answer.split_once('\n').unwrap();
    let about: Value = serde_json::from_str(ready.strip_prefix("ready ").unwrap()).unwrap();
    assert_eq!((&about["name"], &about["threads"]), (&"limbeck".into(), &2.into()));
    let answers = lines(rest);
    assert_eq!(answers.len(), 2);
    for answer in &answers {
        assert!(answer["seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(answer["tokens"], 27);
        // The same text three times, shared by two threads.
        let logits = answer["logits"].as_array().unwrap();
        assert_eq!(logits.len(), 6);
        assert_eq!((&logits[..2], &logits[..2]), (&logits[2..4], &logits[4..]));
    }
    let table = said(folder, &["bench", "model", "model", "--seq", "9", "--repeat", "3"], "");
    assert!(table.contains("speed-up") && table.contains("batch 1, 9 tokens a text, 3 calls"), "{table}");
    let table = said(folder, &["bench", "model", "--repeat", "1"], "");
    assert!(table.contains("12 tokens a text"), "as many as the model reads: {table}");
    assert_eq!(call(folder, &["bench", "model", "--seq", "13"], "").status.code(), Some(2));
    assert_eq!(
        call(folder, &["bench", "model", "--interactive", "--seq", "9"], "come\n").status.code(),
        Some(2)
    );
}

/// The parent of a model is none, as a run's directory is none, and every command says which models it holds.
#[test]
fn a_directory_of_models_is_told_from_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    fs::write(folder.join("test.csv"), "1,oil\n2,price\n").unwrap();
    for arguments in [
        &["predict", ".", "oil"][..],
        &["eval", ".", "--data", "test.csv"],
        &["inspect", "."],
        &["bench", "."],
        &["export", ".", "out", "--format", "hf"],
    ] {
        let output = call(folder, arguments, "");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("no model directory") && errors.contains("; give ./model"), "{errors}");
    }
    // Blank lines are texts; --json changes nothing.
    let plain = said(folder, &["predict", "model"], "oil\n\nprice\n");
    assert_eq!(lines(&plain).len(), 3);
    assert_eq!(said(folder, &["predict", "model", "--json"], "oil\n\nprice\n"), plain);
    // Columns that the file does not have: the key that mends it.
    let narrow = call(folder, &["eval", "model", "--data", "test.csv"], "");
    let errors = String::from_utf8(narrow.stderr).unwrap();
    assert!(
        errors.contains("there is no column 2") && errors.contains("--set 'data.text_columns=[1]'"),
        "{errors}"
    );
}

#[test]
fn bench_trains_on_the_first_texts_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    model(folder);
    // Four classes for a model of two: it gets a new head.
    let rows = [
        "\"1\",\"oil\",\"prices\"",
        "\"4\",\"price\",\"oil oil\"",
        "\"3\",\"oil\",\"x\"",
        "\"2\",\"a\",\"b\"",
    ];
    fs::write(folder.join("train.csv"), rows.join("\n") + "\n").unwrap();
    for precision in ["f32", "bf16"] {
        let mut bench = vec!["bench", "model", "--train", "--data", "train.csv", "--batch", "3"];
        bench.extend(["--max-tokens", "12", "--precision", precision, "--threads", "2", "--interactive"]);
        let answer = said(folder, &bench, "go\ngo\ngo\n");
        let (ready, rest) = answer.split_once('\n').unwrap();
        let about: Value = serde_json::from_str(ready.strip_prefix("ready ").unwrap()).unwrap();
        assert_eq!((&about["precision"], &about["rows"]), (&precision.into(), &3.into()));
        // [CLS] oil price ##s [SEP], [CLS] price oil oil [SEP], [CLS] oil [UNK] [SEP]
        assert_eq!(about["tokens"], 14);
        for answer in lines(rest) {
            assert_eq!(answer["tokens"], 14);
            let loss = answer["loss"].as_f64().unwrap();
            assert!((loss - 4f64.ln()).abs() <= 0.1, "a fresh head knows nothing: {loss}");
        }
    }
    let train = ["bench", "model", "--train", "--data", "train.csv", "--max-tokens", "12", "--repeat", "2"];
    assert!(said(folder, &train, "").contains("tokens/s"));
    let short = said(folder, &["bench", "model", "--train", "--data", "train.csv", "--repeat", "2"], "");
    assert!(short.contains("tokens/s"), "256 tokens by default, but the model reads 12: {short}");
    let long = ["bench", "model", "--train", "--data", "train.csv", "--max-tokens", "13"];
    assert_eq!(call(folder, &long, "").status.code(), Some(2), "the model reads 12");
    for wrong in [&["bench", "model", "--train"][..], &["bench", "model", "--precision", "bf16"]] {
        assert_eq!(call(folder, wrong, "").status.code(), Some(2), "{wrong:?}");
    }
}
