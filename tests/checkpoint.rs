//! Checkpoints: damaged files, the safetensors crate as oracle, configurations, directories.
#![cfg(feature = "train")]

mod common;

use common::shared;
use limbeck::checkpoint::{
    Dtype, HfDirectory, Located, TensorFile, TensorToWrite, Values, Wanted, config_to_json, parse_config,
    write_tensors,
};
use limbeck::models::config::{Activation, Architecture, LayerConfig, ModelConfig, Pooling};
use limbeck::tokenizer::{Rules, Tokenizer};
use limbeck::{Error, Result};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A safetensors file of the given header and data.
fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn open(bytes: &[u8]) -> Result<TensorFile> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    TensorFile::open(&path)
}

/// The message of the error that a file must give.
fn refusal(bytes: &[u8]) -> String {
    let message = open(bytes).err().expect("the file is damaged").to_string();
    assert!(message.contains("model.safetensors"), "{message}");
    message
}

#[test]
fn damaged_files_are_refused_by_name() {
    assert!(refusal(b"short").contains("too few"));
    assert!(refusal(&file_of("{}", b"")[..9]).contains("cut short"));
    let huge = [&(1_u64 << 60).to_le_bytes()[..], b"{}"].concat();
    assert!(refusal(&huge).contains(&(1_u64 << 60).to_string()));
    assert!(refusal(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat()).contains("cut short"));
    assert!(refusal(&file_of("{\"a\":", b"")).contains("header"));
    assert!(refusal(&file_of("[1, 2]", b"")).contains("header"));

    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"layer.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let outside = refusal(&file_of(&one("F32", "[2]", "[0,8]"), &[0; 7]));
    assert!(outside.contains("layer.weight") && outside.contains("outside"), "{outside}");
    assert!(refusal(&file_of(&one("F32", "[2]", "[8,0]"), &[0; 8])).contains("outside"));
    assert!(refusal(&file_of(&one("F32", "[3]", "[0,8]"), &[0; 8])).contains("[3]"));
    let overflow = one("F32", "[4294967296,4294967296,2]", "[0,8]");
    assert!(refusal(&file_of(&overflow, &[0; 8])).contains("layer.weight"));
    assert!(refusal(&file_of(&one("F32", "[-1]", "[0,8]"), &[0; 8])).contains("layer.weight"));
    assert!(refusal(&file_of(&one("F4", "[2]", "[0,1]"), &[0; 1])).contains("layer.weight"));
    assert!(refusal(&file_of(&one("F32", "[2]", "[0,8]"), &[0; 9])).contains("last 1 bytes"));
    assert!(refusal(&file_of(&one("F32", "[2]", "[4,12]"), &[0; 12])).contains("4 bytes before"));

    let two = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    assert!(refusal(&file_of(two, &[0; 6])).contains("tensor b: it begins 2 bytes inside"));
    let twice = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}"#;
    assert!(refusal(&file_of(twice, &[0; 6])).contains("tensor a: the name occurs twice"));
}

#[test]
fn values_that_are_no_numbers_are_refused_by_name() {
    let read = |dtype: &str, data: &[u8]| {
        let shape = data.len() / if dtype == "F32" { 4 } else { 2 };
        let end = data.len();
        let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[0,{end}]}}}}"#);
        let mut values = Vec::new();
        open(&file_of(&header, data)).unwrap().read_f32("w", &mut values).map(|()| values)
    };
    assert_eq!(read("F32", &1.5_f32.to_le_bytes()).unwrap(), [1.5]);
    let nan = read("F32", &[1.0_f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat()).unwrap_err().to_string();
    assert!(nan.contains("tensor w: element 1 is NaN"), "{nan}");
    assert!(read("F16", &[0x00, 0x7c]).unwrap_err().to_string().contains("inf"));
    assert!(read("BF16", &[0x80, 0xff]).unwrap_err().to_string().contains("-inf"));
    let ints = read("I16", &[0, 0]).unwrap_err().to_string();
    assert!(ints.contains("I16"), "{ints}");
    let file = open(&file_of("{}", b"")).unwrap();
    assert!(file.read_f32("absent", &mut Vec::new()).unwrap_err().to_string().contains("absent"));
}

proptest! {
    /// Whatever the bytes, an answer and never a panic; and what opens can be read.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        let _ = open(&bytes).map(|file| file.names().count());
    }

    /// Damage to a good file: a changed byte or a cut.
    #[test]
    fn a_changed_byte_or_a_cut(place in 0_usize..400, byte: u8, cut in 0_usize..400) {
        let header = r#"{"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},"y":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}}"#;
        let mut bytes = file_of(header, &[7; 26]);
        let length = bytes.len();
        bytes[place % length] = byte;
        bytes.truncate(length - cut % length);
        if let Ok(file) = open(&bytes) {
            let names: Vec<String> = file.names().map(str::to_owned).collect();
            for name in names {
                let _ = file.read_f32(&name, &mut Vec::new());
            }
        }
    }

    /// Any JSON-like text as header.
    #[test]
    fn any_header(header in r#"\{("[a-z_]{0,3}":(\{("(dtype|shape|data_offsets)":("F32"|\[[0-9]{0,2}(,[0-9]{1,2})?\]),?){0,3}\}|1|null),?){0,3}\}?"#) {
        let _ = open(&file_of(&header, &[0; 16])).map(|file| file.names().count());
    }

    #[test]
    fn any_config(text in r#"\{("(model_type|dim|n_heads|n_layers|hidden_dim|vocab_size|id2label|limbeck|pruned_heads|activation)":("distilbert"|"gelu"|[0-9]{1,12}|-1|1e99|null|\{\}|\[\]),?){0,8}\}"#) {
        let _ = parse_config(Path::new("config.json"), &text);
    }

    /// What is written is what the safetensors crate reads, and what we read.
    #[test]
    fn round_trip(
        values in prop::collection::vec(-3.0e4_f32..3.0e4, 0..70),
        bytes in prop::collection::vec(any::<u8>(), 0..9),
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.safetensors");
        let metadata = BTreeMap::from([("recipe".to_owned(), "\"quoted\"\n".to_owned())]);
        let shapes = [[values.len(), 1], [bytes.len(), 1]];
        let tensors = [
            TensorToWrite { name: "mask", shape: &shapes[1], values: Values::Bytes(Dtype::U8, &bytes) },
            TensorToWrite { name: "w", shape: &shapes[0], values: Values::F32(&values) },
        ];
        write_tensors(&path, &tensors, dtype, &metadata).unwrap();
        let written = fs::read(&path).unwrap();
        let reversed = [tensors[1], tensors[0]];
        write_tensors(&path, &reversed, dtype, &metadata).unwrap();
        prop_assert_eq!(&written, &fs::read(&path).unwrap(), "the order given does not matter");

        let oracle = safetensors::SafeTensors::deserialize(&written).unwrap();
        prop_assert_eq!(oracle.tensor("mask").unwrap().data(), &bytes[..]);
        let expected: Vec<f32> = values.iter().map(|&value| match dtype {
            Dtype::F16 => half::f16::from_f32(value).to_f32(),
            Dtype::Bf16 => half::bf16::from_f32(value).to_f32(),
            _ => value,
        }).collect();
        let file = TensorFile::open(&path).unwrap();
        prop_assert_eq!(file.metadata(), &metadata);
        prop_assert_eq!(file.bytes("mask").unwrap(), &bytes[..]);
        let weights = oracle.tensor("w").unwrap();
        prop_assert_eq!(file.shape("w").unwrap(), weights.shape());
        prop_assert_eq!(file.bytes("w").unwrap(), weights.data());
        prop_assert_eq!(file.bytes("w").unwrap().as_ptr() as usize % 64, 0, "tensors can be mapped in place");
        let mut read = vec![9.0];
        file.read_f32("w", &mut read).unwrap();
        prop_assert_eq!(read, expected);
    }
}

#[test]
fn what_cannot_be_read_again_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    fs::write(&path, b"the checkpoint before").unwrap();
    let mut values = vec![1.0; 40_000];
    values[30_000] = 1.0e5;
    let write = |values: &[f32], dtype| {
        let tensors = [TensorToWrite { name: "w", shape: &[40_000], values: Values::F32(values) }];
        write_tensors(&path, &tensors, dtype, &BTreeMap::new())
    };
    let large = write(&values, Dtype::F16).unwrap_err().to_string();
    assert!(large.contains("tensor w: element 30000") && large.contains("F16"), "{large}");
    values[30_000] = f32::NAN;
    assert!(write(&values, Dtype::F32).unwrap_err().to_string().contains("element 30000 is NaN"));
    assert_eq!(fs::read(&path).unwrap(), b"the checkpoint before");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_pretrained_model() {
    let Some(path) = shared("models/minilm-l6-distil") else { return };
    let model = HfDirectory::open(&path).unwrap();
    let config = &model.config;
    assert_eq!((config.hidden, config.head_size, config.layers.len(), config.vocab), (384, 32, 6, 30_522));
    assert_eq!(config.layers[5], LayerConfig::dense(12, 1536));
    assert_eq!((config.architecture, config.pooling), (Architecture::DistilBert, Pooling::FirstToken));
    assert!(config.labels.is_empty(), "an encoder without a head names no classes");
    assert_eq!(model.tokenizer().unwrap().vocab(), 30_522);

    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    let oracle = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(model.tensors.names().len(), oracle.len());
    let mut values = Vec::new();
    for name in oracle.names() {
        let expected = oracle.tensor(name).unwrap();
        assert_eq!(model.tensors.shape(name).unwrap(), expected.shape());
        model.tensors.read_f32(name, &mut values).unwrap();
        let halves =
            expected.data().as_chunks().0.iter().map(|&half| half::f16::from_le_bytes(half).to_f32());
        assert!(halves.eq(values.iter().copied()), "{name}");
    }
}

#[test]
fn parameters_are_located() {
    let Some(path) = shared("models/minilm-l6-distil") else { return };
    let model = HfDirectory::open(&path).unwrap();
    let table = Wanted { name: "distilbert.embeddings.word_embeddings.weight", shape: &[30_522, 384] };
    let head = Wanted { name: "classifier.weight", shape: &[4, 384] };
    let located = model.locate(&[table, head], false).unwrap();
    assert_eq!(located, [Located::Found(table.name.to_owned()), Located::Fresh]);

    let narrow = Wanted { shape: &[30_522, 768], ..table };
    let error = model.locate(&[narrow], false).unwrap_err().to_string();
    assert!(
        error.contains("[30522, 384]") && error.contains("[30522, 768]") && error.contains(table.name),
        "{error}"
    );
    let deeper = Wanted { name: "distilbert.transformer.layer.6.ffn.lin1.bias", shape: &[1536] };
    let deepest = Wanted { name: "distilbert.transformer.layer.7.ffn.lin1.bias", shape: &[1536] };
    let error = model.locate(&[table, deeper, deepest], false).unwrap_err().to_string();
    assert!(error.contains(deeper.name) && error.contains("2 of 3"), "{error}");
}

fn bert() -> ModelConfig {
    let text = r#"{"model_type": "bert", "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 56, "hidden_act": "relu", "max_position_embeddings": 24, "type_vocab_size": 2, "layer_norm_eps": 1e-7,
        "hidden_dropout_prob": 0.25, "classifier_dropout": null, "pruned_heads": {"1": [3, 0], "2": [0, 1, 2, 3]},
        "id2label": {"0": "no", "1": "yes"}, "some_new_key": [1]}"#;
    parse_config(Path::new("config.json"), text).unwrap()
}

#[test]
fn configurations_survive_the_round_trip() {
    let mut config = bert();
    assert_eq!(config.layers[1].heads, [1, 2]);
    assert_eq!(config.layers[2].heads, [] as [usize; 0]);
    assert_eq!(
        (config.dropout.hidden, config.dropout.attention, config.dropout.classifier),
        (0.25, 0.1, 0.25)
    );
    assert_eq!(
        (config.activation, config.pooling, config.layer_norm_eps),
        (Activation::Relu, Pooling::Pooler, 1e-7)
    );
    config.layers[0] = LayerConfig { heads: vec![2], intermediate: 0 };
    config.pooling = Pooling::Mean;
    config.masked = vec!["bert.encoder.layer.0.output.dense.weight".to_owned()];
    config.labels = vec!["Sci/Tech".to_owned(), "a \"b\"".to_owned(), "ü".to_owned()];
    let text = format!("{:#}", config_to_json(&config));
    assert_eq!(parse_config(Path::new("config.json"), &text).unwrap(), config);
    assert!(
        text.contains("\"hidden_dropout_prob\": 0.25") && text.contains("\"layer_norm_eps\": 1e-7"),
        "{text}"
    );

    // What transformers 4 understands of it: sizes before pruning, and which heads are gone.
    let mut json = config_to_json(&config);
    json.as_object_mut().unwrap().remove("limbeck");
    let known = parse_config(Path::new("config.json"), &json.to_string()).unwrap();
    assert_eq!(known.layers[0], LayerConfig { heads: vec![2], intermediate: 56 });
}

#[test]
fn wrong_configurations_say_what_is_wrong() {
    let good: serde_json::Value = config_to_json(&bert());
    let refusal = |key: &str, value: serde_json::Value| {
        let mut json = good.clone();
        json[key] = value;
        if !key.eq("limbeck") {
            json.as_object_mut().unwrap().remove("limbeck");
        }
        parse_config(Path::new("model/config.json"), &json.to_string()).unwrap_err().to_string()
    };
    use serde_json::json;
    for (key, value, expected) in [
        ("model_type", json!("roberta"), "supported: distilbert, bert"),
        ("model_type", json!(null), "Bert"),
        ("hidden_size", json!(33), "do not divide"),
        ("hidden_size", json!(null), "missing"),
        ("num_attention_heads", json!(0), "0"),
        ("num_hidden_layers", json!(4_000_000_000_u64), "beyond any BERT"),
        ("vocab_size", json!("many"), "not a size"),
        ("vocab_size", json!(0), "vocabulary is 0"),
        ("hidden_act", json!("gelu_new"), "supported: gelu, relu, tanh, linear"),
        ("position_embedding_type", json!("relative_key"), "absolute"),
        ("hidden_dropout_prob", json!(1.0), "dropout"),
        ("layer_norm_eps", json!(0), "layer_norm_eps"),
        ("pruned_heads", json!({"0": [4]}), "head 4"),
        ("pruned_heads", json!({"9": [0]}), "layer 9"),
        ("num_hidden_layers", json!(0), "0 layers"),
        ("problem_type", json!("regression"), "each text has exactly one class"),
        ("problem_type", json!("multi_label_classification"), "each text has exactly one class"),
        ("id2label", json!({"0": "a", "2": "b"}), "class 1"),
        ("id2label", json!({"0": "a", "1": "a"}), "two classes are called"),
        ("id2label", json!({"0": "a", "1": ""}), "class 1 has no name"),
        (
            "architectures",
            json!(["DistilBertForMaskedLM"]),
            "\"DistilBertForMaskedLM\" is not of the family \"bert\"",
        ),
        ("architectures", json!(["RobertaForSequenceClassification"]), "\"Roberta"),
        ("architectures", json!("BertModel"), "\"architectures\": "),
        ("limbeck", json!({"layers": []}), "0 layers"),
        ("limbeck", json!({"pooling": "max"}), "first_token, pooler, mean"),
        ("limbeck", json!({"speed": 3}), "speed"),
    ] {
        if key == "model_type" && value.is_null() {
            // Old files have no model_type; the class name tells.
            let mut json = good.clone();
            json.as_object_mut().unwrap().remove("model_type");
            assert_eq!(parse_config(Path::new("x"), &json.to_string()).unwrap(), bert());
            continue;
        }
        let message = refusal(key, value);
        assert!(message.contains(expected) && message.starts_with("model/config.json"), "{key}: {message}");
    }
    assert!(parse_config(Path::new("x"), "[]").is_err() && parse_config(Path::new("x"), "").is_err());
    let mut open = good.clone();
    open["problem_type"] = json!(null);
    assert_eq!(parse_config(Path::new("x"), &open.to_string()).unwrap(), bert());
    for class in ["BertModel", "BertForMaskedLM", "BertForQuestionAnswering"] {
        let mut other = good.clone();
        other["architectures"] = json!([class]);
        assert_eq!(parse_config(Path::new("x"), &other.to_string()).unwrap(), bert(), "{class}");
    }
}

#[test]
fn layers_beyond_the_configuration_and_directories_of_models_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), config_to_json(&bert()).to_string()).unwrap();
    let name = |layer: usize| format!("encoder.layer.{layer}.attention.output.dense.bias");
    let write = |layer: usize| {
        let header = format!(r#"{{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#, name(layer));
        fs::write(model.join("model.safetensors"), file_of(&header, &[0; 4])).unwrap();
    };
    write(2);
    HfDirectory::open(&model).unwrap();
    write(3);
    let error = HfDirectory::open(&model).err().unwrap().to_string();
    assert!(error.contains(&format!("tensor {}", name(3))) && error.contains("config.json has 3"), "{error}");

    fs::write(root.path().join("int8.limbeck"), b"").unwrap();
    let error = HfDirectory::open(root.path()).err().unwrap().to_string();
    let [file, directory] =
        ["int8.limbeck", "model"].map(|name| root.path().join(name).display().to_string());
    assert!(error.ends_with(&format!("; give {file} or {directory}")), "{error}");
}

#[test]
fn directories_are_saved_whole_and_not_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run/train");
    let tokenizer =
        Tokenizer::from_pieces(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"], Rules::bert(true)).unwrap();
    let config = bert();
    let save = |value: f32| {
        let values = [value; 8];
        let tensors =
            [TensorToWrite { name: "classifier.weight", shape: &[2, 4], values: Values::F32(&values) }];
        HfDirectory::save(&path, &config, &tensors, Dtype::F32, &BTreeMap::new(), &tokenizer)
    };
    let error = save(f32::NAN).unwrap_err().to_string();
    assert!(error.starts_with(path.join("model.safetensors").to_str().unwrap()), "{error}");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "nothing half-written remains");
    save(1.0).unwrap();
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    fs::write(path.join("log.txt"), b"kept").unwrap();
    assert!(matches!(save(2.0), Err(Error::Occupied { .. })));
    assert!(path.join("log.txt").exists());

    let model = HfDirectory::open(&path).unwrap();
    assert_eq!(model.config, config);
    assert_eq!(model.tensors.metadata()["format"], "pt");
    let mut values = Vec::new();
    model.tensors.read_f32("classifier.weight", &mut values).unwrap();
    assert_eq!(values, [1.0; 8]);
    let again = model.tokenizer().unwrap();
    assert_eq!(again.encode("A b", 9), tokenizer.encode("A b", 9));
    assert_eq!(again.content_hash(), tokenizer.content_hash());
}

/// A table may be padded beyond the vocabulary; a vocabulary that was cut short is none of the model's.
#[test]
fn a_vocabulary_must_be_the_model_s() {
    let root = tempfile::tempdir().unwrap();
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned);
    let tokenizer = |pieces: usize| -> Result<Tokenizer> {
        let words = (specials.len()..pieces).map(|id| format!("word{id}"));
        let pieces: Vec<String> = specials.iter().cloned().chain(words).collect();
        fs::write(root.path().join("vocab.txt"), pieces.join("\n")).unwrap();
        HfDirectory::open(root.path())?.tokenizer()
    };
    fs::write(root.path().join("model.safetensors"), file_of("{}", b"")).unwrap();
    for (vocab, fits, others) in
        [(30_522, &[30_522][..], &[30_521, 30_523, 1_631, 4][..]), (640, &[640, 600, 513], &[641, 512, 4])]
    {
        let config = ModelConfig { vocab, ..bert() };
        fs::write(root.path().join("config.json"), config_to_json(&config).to_string()).unwrap();
        for &pieces in fits {
            assert_eq!(tokenizer(pieces).unwrap().vocab(), pieces);
        }
        for &pieces in others {
            let error = tokenizer(pieces).err().expect("another vocabulary").to_string();
            let said = format!("vocab.txt: it has {pieces} pieces, the model has {vocab}; ");
            assert!(error.contains(&said), "{error}");
        }
    }
}

#[test]
fn missing_files_are_named() {
    let root = tempfile::tempdir().unwrap();
    let refusal = || HfDirectory::open(root.path()).err().unwrap().to_string();
    assert!(refusal().contains("config.json"));
    fs::write(root.path().join("config.json"), config_to_json(&bert()).to_string()).unwrap();
    assert!(refusal().contains("model.safetensors"));
    fs::write(root.path().join("pytorch_model.bin"), b"").unwrap();
    assert!(refusal().contains("pytorch_model.bin"));
    assert!(HfDirectory::open(&root.path().join("absent")).err().unwrap().to_string().contains("absent"));
    fs::write(root.path().join("model.safetensors"), file_of("{}", b"")).unwrap();
    let model = HfDirectory::open(root.path()).unwrap();
    assert!(model.tokenizer().err().unwrap().to_string().contains("tokenizer"));
}
