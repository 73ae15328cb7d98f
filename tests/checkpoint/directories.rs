//! Directories of models: the pretrained one, those that are written here, and those that are wrong.

use crate::common::shared;
use crate::configurations::bert;
use crate::tensors::file_of;
use limbeck::checkpoint::{Dtype, Expected, HfDirectory, TensorToWrite, ValueSource, Values, config_to_json};
use limbeck::models::config::{Architecture, LayerConfig, ModelConfig, Pooling};
use limbeck::tokenizer::{Rules, Tokenizer};
use limbeck::{Error, Result};
use std::collections::BTreeMap;
use std::fs;

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
    let table = Expected { name: "distilbert.embeddings.word_embeddings.weight", shape: &[30_522, 384] };
    let head = Expected { name: "classifier.weight", shape: &[4, 384] };
    let located = model.locate(&[table, head], false).unwrap();
    assert_eq!(located, [ValueSource::Found(table.name.to_owned()), ValueSource::Fresh]);

    let narrow = Expected { shape: &[30_522, 768], ..table };
    let error = model.locate(&[narrow], false).unwrap_err().to_string();
    assert!(
        error.contains("[30522, 384]") && error.contains("[30522, 768]") && error.contains(table.name),
        "{error}"
    );
    let deeper = Expected { name: "distilbert.transformer.layer.6.ffn.lin1.bias", shape: &[1536] };
    let deepest = Expected { name: "distilbert.transformer.layer.7.ffn.lin1.bias", shape: &[1536] };
    let error = model.locate(&[table, deeper, deepest], false).unwrap_err().to_string();
    assert!(error.contains(deeper.name) && error.contains("2 of 3"), "{error}");
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

/// transformers' tokenizer for BERT gives token types, which its DistilBERT refuses.
#[test]
fn a_network_without_token_types_says_so_to_its_tokenizer() {
    let root = tempfile::tempdir().unwrap();
    let tokenizer =
        Tokenizer::from_pieces(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"], Rules::bert(true)).unwrap();
    for token_types in [0, 2] {
        let path = root.path().join(token_types.to_string());
        let config = ModelConfig { token_types, ..bert() };
        HfDirectory::save(&path, &config, &[], Dtype::F32, &BTreeMap::new(), &tokenizer).unwrap();
        let text = fs::read_to_string(path.join("tokenizer_config.json")).unwrap();
        assert_eq!(text.contains("model_input_names"), token_types == 0, "{text}");
        assert!(text.contains("do_lower_case") && !text.contains("token_type_ids"), "{text}");
    }
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
