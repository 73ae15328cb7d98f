//! What `limbeck predict` needs of memory: the mapped file, and at most 16 MiB beside it.
#![cfg(target_os = "linux")]

use limbeck::compress::quantize::{Extras, Quantization, quantize};
use limbeck::models::ModelConfig;
use limbeck::models::config::{Activation, Architecture, DropoutConfig, LayerConfig, Pooling};
use limbeck::nn::{ParamSpec, Role};
use limbeck::tokenizer::{Rules, WordPiece};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// A classifier of the size of the small pretrained encoders.
const VOCAB: usize = 30_000;

fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::DistilBert,
        vocab: VOCAB,
        positions: 512,
        token_types: 0,
        hidden: 384,
        head_size: 32,
        original_heads: 12,
        original_intermediate: 1536,
        layers: vec![LayerConfig::dense(12, 1536); 6],
        activation: Activation::Gelu,
        layer_norm_eps: 1e-12,
        dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.1 },
        pooling: Pooling::FirstToken,
        labels: ["no", "yes"].map(str::to_owned).to_vec(),
        masked: Vec::new(),
    }
}

fn values(spec: &ParamSpec) -> limbeck::Result<Vec<f32>> {
    let value = |place: usize| match spec.role {
        Role::Gamma => 1.0,
        _ => ((place * 7919) % 1009) as f32 / 1009.0 * 0.1 - 0.05,
    };
    Ok((0..spec.len()).map(value).collect())
}

/// The most memory that a process has had resident, in bytes: its own and what it mapped.
fn most_resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
    1024 * line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
}

#[test]
fn predict_needs_the_file_and_16_mib() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.limbeck");
    let words = (5..VOCAB).map(|id| format!("word{id}"));
    let pieces: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).into_iter().chain(words).collect();
    let vocabulary = Some(WordPiece::pack(&pieces, Rules::bert(true)).unwrap());
    let extras = Extras { vocabulary, ..Extras::default() };
    let model = quantize(Path::new("test"), &config(), values, Quantization::INT8, &extras).unwrap();
    model.image.write(&path).unwrap();
    drop(model);

    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.arg("predict").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    // Short and of 300 words from all over the vocabulary: as much of the file is read as ever will be, and more.
    let long: Vec<&str> = (0..300).map(|i| pieces[5 + i * 97].as_str()).collect();
    for text in ["word7 word8".to_owned(), long.join(" ")] {
        writeln!(input, "{text}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        assert!(answer.contains("\"label\""), "{answer}");
    }
    let (most, file) = (most_resident(child.id()), fs::metadata(&path).unwrap().len());
    drop(input);
    assert!(child.wait().unwrap().success());
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("a file of {:.1} MiB, {:.1} MiB resident at most", mib(file), mib(most));
    assert!(file > 16 << 20, "a file of the real size");
    assert!(most <= file + (16 << 20), "{:.1} MiB for a file of {:.1} MiB", mib(most), mib(file));
}
