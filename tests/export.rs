//! Exports of a pruned model: what each format holds, and what is refused.
#![cfg(feature = "train")]

use limbeck::Batch;
use limbeck::checkpoint::{Dtype, HfDirectory, TensorToWrite, Values, fresh};
use limbeck::infer::{Model, Session};
use limbeck::models::config::{LayerConfig, Pooling, Sizes};
use limbeck::models::{Classifier, ModelConfig};
use limbeck::stages::{ExportFormat, export};
use limbeck::tokenizer::{Rules, Tokenizer};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PIECES: [&str; 8] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "oil", "price", "##s"];

fn config(pooling: Pooling, labels: usize) -> ModelConfig {
    let layers = [(vec![0, 2], 7), (vec![], 24), (vec![3], 0)];
    ModelConfig {
        layers: layers.map(|(heads, intermediate)| LayerConfig { heads, intermediate }).to_vec(),
        pooling,
        masked: if labels > 0 { vec!["classifier.weight".to_owned()] } else { Vec::new() },
        ..ModelConfig::distilbert(
            Sizes { vocab: PIECES.len(), positions: 12, hidden: 32, heads: 4, intermediate: 24, layers: 0 },
            (0..labels).map(|label| format!("class {label}")),
        )
    }
}

/// Writes a model directory; without `head`, an encoder alone.
fn write(path: &Path, config: &ModelConfig, dtype: Dtype, head: bool) {
    let (_, specs) = Classifier::new(config);
    let kept = specs.iter().filter(|spec| head || spec.name.starts_with("distilbert."));
    let tensors: Vec<_> = kept.map(|spec| (spec, spec.dims(), fresh(spec, 3))).collect();
    let tensors: Vec<TensorToWrite<'_>> = tensors
        .iter()
        .map(|(spec, shape, values)| TensorToWrite { name: &spec.name, shape, values: Values::F32(values) })
        .collect();
    let tokenizer = Tokenizer::from_pieces(&PIECES, Rules::bert(true)).unwrap();
    HfDirectory::save(path, config, &tensors, dtype, &BTreeMap::new(), &tokenizer).unwrap();
}

fn pruned(dtype: Dtype) -> (TempDir, PathBuf) {
    written(dtype, None)
}

fn written(dtype: Dtype, embedding_size: Option<usize>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pruned");
    let config = ModelConfig { embedding_size, ..config(Pooling::FirstToken, 3) };
    write(&path, &config, dtype, true);
    (folder, path)
}

fn logits(model: &Path) -> Vec<f32> {
    let batch = Batch::from_texts([&[2, 5, 6, 7, 3][..], &[2, 3]]);
    Session::new(&Model::open(model).unwrap()).logits(&batch).unwrap().to_vec()
}

#[test]
fn every_format_gives_the_same_logits() {
    formats_agree(pruned(Dtype::F32), 1e-6);
}

#[test]
fn a_factored_word_table_is_kept_or_multiplied_out() {
    let (folder, model) = written(Dtype::F32, Some(5));
    let [plain, padded] = ["plain", "stock"].map(|name| folder.path().join(name));
    export(&model, &plain, ExportFormat::Hf).unwrap();
    export(&model, &padded, ExportFormat::HfPadded).unwrap();
    let key = |path: &Path| {
        let text = fs::read(path.join("config.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["embedding_size"].clone()
    };
    assert_eq!((key(&plain), key(&padded)), (5.into(), serde_json::Value::Null));
    let shape = |path: &Path, name: &str| {
        HfDirectory::open(path).unwrap().tensors.shape(&format!("distilbert.{name}")).map(<[usize]>::to_vec)
    };
    let (words, projection) = ("embeddings.word_embeddings.weight", "embeddings_project.weight");
    assert_eq!((shape(&plain, words), shape(&plain, projection)), (Some(vec![8, 5]), Some(vec![32, 5])));
    assert_eq!((shape(&padded, words), shape(&padded, projection)), (Some(vec![8, 32]), None));
    // The product is rounded once more than the factors.
    formats_agree((folder, model), 1e-5);
}

#[test]
fn factors_and_shared_layers_are_kept_or_written_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("structured");
    let layers = vec![LayerConfig { heads: vec![0, 2], intermediate: 7 }; 3];
    let ranks = vec![[0, 3, 0, 2, 0, 4]; 3];
    let structured = ModelConfig {
        layers,
        ranks,
        shared: vec![0, 0, 2],
        masked: vec![],
        ..config(Pooling::FirstToken, 3)
    };
    write(&path, &structured, Dtype::F32, true);
    let [plain, padded] = ["plain", "stock"].map(|name| folder.path().join(name));
    export(&path, &plain, ExportFormat::Hf).unwrap();
    export(&path, &padded, ExportFormat::HfPadded).unwrap();
    assert_eq!(HfDirectory::open(&plain).unwrap().config, structured);
    let stock = HfDirectory::open(&padded).unwrap();
    assert!(stock.config.ranks.is_empty() && stock.config.shared.is_empty() && stock.config.is_dense());
    let text = fs::read_to_string(padded.join("config.json")).unwrap();
    assert!(!text.contains("limbeck"), "{text}");
    let name = |layer: usize, part: &str| format!("distilbert.transformer.layer.{layer}.attention.{part}");
    let shape =
        |path: &Path, name: &str| HfDirectory::open(path).unwrap().tensors.shape(name).map(<[usize]>::to_vec);
    assert_eq!(shape(&plain, &name(0, "k_lin.down.weight")), Some(vec![3, 32]));
    assert_eq!(shape(&plain, &name(0, "k_lin.weight")), Some(vec![16, 3]));
    assert_eq!(shape(&plain, &name(1, "k_lin.weight")), None, "it is layer 0's");
    assert_eq!(shape(&padded, &name(0, "k_lin.down.weight")), None);
    for layer in 0..3 {
        assert_eq!(shape(&padded, &name(layer, "k_lin.weight")), Some(vec![32, 32]));
    }
    let bytes = |layer| stock.tensors.bytes(&name(layer, "k_lin.weight")).unwrap();
    assert!(bytes(0) == bytes(1) && bytes(0) != bytes(2));
    fs::remove_dir_all(&padded).unwrap();
    fs::remove_dir_all(&plain).unwrap();
    formats_agree((folder, path), 1e-5);
}

/// All formats give the logits of the model, but for an error of this share of the largest.
fn formats_agree((folder, model): (TempDir, PathBuf), bound: f32) {
    let expected = logits(&model);
    let largest = expected.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
    assert!(largest > 1e-4, "logits that say something");
    for (format, name) in [
        (ExportFormat::Hf, "hf"),
        (ExportFormat::HfPadded, "padded"),
        (ExportFormat::Limbeck, "model.limbeck"),
    ] {
        let out = folder.path().join(name);
        export(&model, &out, format).unwrap();
        for (found, expected) in logits(&out).iter().zip(&expected) {
            assert!((found - expected).abs() <= bound * largest, "{name}: {found} for {expected}");
        }
        let again = export(&model, &out, format).unwrap_err().to_string();
        assert!(again.contains("is kept"), "{again}");
    }
    let file = Model::open(&folder.path().join("model.limbeck")).unwrap();
    file.check_golden().unwrap();
    assert_eq!(file.tokenizer().unwrap().encode("oil prices", 8), [2, 5, 6, 7, 3]);
    assert!(file.metadata().unwrap().parents.model.is_some());
}

#[test]
fn plain_exports_keep_sizes_masks_and_type_and_padded_ones_are_stock() {
    let (folder, model) = pruned(Dtype::F16);
    let source = HfDirectory::open(&model).unwrap();
    let [plain, padded] = ["plain", "padded"].map(|name| folder.path().join(name));
    export(&model, &plain, ExportFormat::Hf).unwrap();
    let copy = HfDirectory::open(&plain).unwrap();
    assert_eq!(copy.config, source.config);
    for name in source.tensors.names() {
        assert_eq!(copy.tensors.bytes(name).unwrap(), source.tensors.bytes(name).unwrap(), "{name}");
    }
    export(&model, &padded, ExportFormat::HfPadded).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(padded.join("config.json")).unwrap()).unwrap();
    assert!(json.get("limbeck").is_none() && json.get("pruned_heads").is_none(), "{json}");
    assert_eq!(json["architectures"][0], "DistilBertForSequenceClassification");
    assert_eq!((&json["n_heads"], &json["hidden_dim"]), (&4.into(), &24.into()));
    assert_eq!(json["id2label"]["2"], "class 2");
    let wide = HfDirectory::open(&padded).unwrap();
    assert_eq!(
        wide.tensors.shape("distilbert.transformer.layer.1.attention.q_lin.weight"),
        Some(&[32, 32][..])
    );
    let value = wide.tensors.bytes("distilbert.transformer.layer.1.attention.v_lin.bias").unwrap();
    assert!(value.iter().all(|byte| *byte == 0));
}

/// Where heads of their size make up the width, stock programs need no key for it.
#[test]
fn a_narrow_network_is_stock_where_its_heads_fit_its_width() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("narrow");
    // Heads of 8: two at most in a layer, and 16 wide.
    let narrow = ModelConfig { hidden: 16, ..config(Pooling::FirstToken, 3) };
    write(&model, &narrow, Dtype::F32, true);
    assert_eq!(HfDirectory::open(&model).unwrap().config, narrow);
    formats_agree((folder, model.clone()), 1e-6);
    let folder = tempfile::tempdir().unwrap();
    let [model, padded] = ["model", "padded"].map(|name| folder.path().join(name));
    write(&model, &narrow, Dtype::F32, true);
    export(&model, &padded, ExportFormat::HfPadded).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(padded.join("config.json")).unwrap()).unwrap();
    assert_eq!((&json["n_heads"], &json["dim"]), (&2.into(), &16.into()), "{json}");
    assert!(json.get("limbeck").is_none() && json.get("pruned_heads").is_none(), "{json}");
    // Of other widths it is refused, and of this one with three heads in a layer.
    let wider = ModelConfig { hidden: 20, ..narrow.clone() };
    let mut full = narrow.clone();
    full.layers[1].heads = vec![0, 1, 3];
    for (config, words) in
        [(wider, "it is 20 wide with up to 2 heads of 8"), (full, "it is 16 wide with up to 3 heads of 8")]
    {
        let (model, out) = (folder.path().join(words), folder.path().join("out"));
        write(&model, &config, Dtype::F32, true);
        let refused = export(&model, &out, ExportFormat::HfPadded).unwrap_err().to_string();
        assert!(refused.contains(words) && refused.contains("export it as hf"), "{refused}");
        assert!(refused.contains("a multiple of 8"), "{refused}");
        export(&model, &out.with_extension("limbeck"), ExportFormat::Limbeck).unwrap();
        fs::remove_file(out.with_extension("limbeck")).unwrap();
    }
}

#[test]
fn what_a_format_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let refusal = |model: &str, format| {
        let message = export(&place(model), &place("out"), format).unwrap_err().to_string();
        assert!(!place("out").exists(), "{message}");
        message
    };
    write(&place("encoder"), &config(Pooling::FirstToken, 0), Dtype::F32, false);
    assert!(refusal("encoder", ExportFormat::Hf).contains("no classes; train a head"));
    write(&place("headless"), &config(Pooling::FirstToken, 3), Dtype::F32, false);
    assert!(refusal("headless", ExportFormat::Limbeck).contains("tensor pre_classifier.weight"));
    write(&place("mean"), &config(Pooling::Mean, 3), Dtype::F32, true);
    assert!(refusal("mean", ExportFormat::HfPadded).contains("export it as hf"));
    export(&place("mean"), &place("mean.limbeck"), ExportFormat::Limbeck).unwrap();
    for format in [ExportFormat::Hf, ExportFormat::HfPadded, ExportFormat::Limbeck] {
        assert!(refusal("mean.limbeck", format).contains("give the directory that it was made from"));
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", place("link")).unwrap();
        for format in [ExportFormat::Hf, ExportFormat::Limbeck] {
            let error = export(&place("mean"), &place("link"), format).unwrap_err().to_string();
            assert!(error.contains("link holds something"), "{error}");
        }
        assert_eq!(fs::read_link(place("link")).unwrap(), Path::new("nowhere"));
    }
    assert!(refusal("absent", ExportFormat::Hf).contains("no such model directory"));
}
