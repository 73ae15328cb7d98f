//! What `predict`, `eval`, `prune` and `sweep` need of memory: prediction the mapped file and at most 16 MiB beside it, none of
//! them more for more texts or trials.
#![cfg(target_os = "linux")]

use limbeck::models::ModelConfig;
use limbeck::models::config::{DropoutConfig, LayerConfig, Sizes};
use limbeck::nn::{ParamSpec, Role};
use limbeck::quantize::{Extras, Quantization, quantize};
use limbeck::tokenizer::{Rules, WordPiece};
use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// A classifier of the size of the small pretrained encoders.
const VOCAB: usize = 30_000;

/// The same network with a tenth of the vocabulary and two narrow layers.
fn small() -> ModelConfig {
    ModelConfig {
        vocab: 3_000,
        positions: 32,
        hidden: 64,
        original_heads: 2,
        original_intermediate: 64,
        layers: vec![LayerConfig::dense(2, 64); 2],
        ..config()
    }
}

fn config() -> ModelConfig {
    ModelConfig {
        dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.1 },
        ..ModelConfig::distilbert(
            Sizes { vocab: VOCAB, positions: 512, hidden: 384, heads: 12, intermediate: 1536, layers: 6 },
            ["no", "yes"],
        )
    }
}

fn values(spec: &ParamSpec) -> limbeck::Result<Vec<f32>> {
    let value = |place: usize| match spec.role {
        Role::Gamma => 1.0,
        _ => ((place * 7919) % 1009) as f32 / 1009.0 * 0.1 - 0.05,
    };
    Ok((0..spec.len()).map(value).collect())
}

/// A line of what Linux says of a process's memory, in bytes; `None` once it has ended.
fn memory(process: u32, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let size = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?;
    Some(1024 * size.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap())
}

/// The most memory that a process has had resident, in bytes: its own and what it mapped.
fn most_resident(process: u32) -> u64 {
    memory(process, "VmHWM").expect("it runs")
}

/// Writes the model, and returns its words.
fn write(config: &ModelConfig, path: &Path) -> Vec<String> {
    let words = (5..config.vocab).map(|id| format!("word{id}"));
    let pieces: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).into_iter().chain(words).collect();
    let vocabulary = Some(WordPiece::pack(&pieces, Rules::bert(true)).unwrap());
    let extras = Extras { vocabulary, ..Extras::default() };
    let model = quantize(Path::new("test"), config, values, Quantization::INT8, &extras).unwrap();
    model.image.write(path).unwrap();
    pieces
}

/// `predict`, which waits for texts.
struct Predict {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Predict {
    fn start(model: &Path) -> Predict {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        command.arg("predict").arg(model).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Predict { child, input, output: BufReader::new(output) }
    }

    fn answer(&mut self, text: &str) {
        writeln!(self.input, "{text}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert!(answer.contains("\"label\""), "{answer}");
    }

    fn end(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[test]
fn predict_needs_the_file_and_16_mib() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.limbeck");
    let pieces = write(&config(), &path);
    let mut predict = Predict::start(&path);
    // Short and of 300 words from all over the vocabulary: as much of the file is read as ever will be, and more.
    let long: Vec<&str> = (0..300).map(|i| pieces[5 + i * 97].as_str()).collect();
    for text in ["word7 word8".to_owned(), long.join(" ")] {
        predict.answer(&text);
    }
    let (most, file) = (most_resident(predict.child.id()), fs::metadata(&path).unwrap().len());
    predict.end();
    println!("a file of {:.1} MiB, {:.1} MiB resident at most", mib(file), mib(most));
    assert!(file > 16 << 20, "a file of the real size");
    assert!(most <= file + (16 << 20), "{:.1} MiB for a file of {:.1} MiB", mib(most), mib(file));
}

/// Lengths and words of row `row`; after a hundred rows every length has been met, and nearly all of the file.
fn text(row: usize, words: usize) -> String {
    let words: Vec<String> =
        (0..words).map(|place| format!("word{}", 5 + (row * 31 + place * 97) % 2_990)).collect();
    words.join(" ")
}

#[test]
fn predict_needs_no_more_for_more_lines() {
    const LINES: usize = 500;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.limbeck");
    write(&small(), &path);
    let mut predict = Predict::start(&path);
    let mut bytes = 0;
    let mut most = [0; 2];
    for row in 0..10 * LINES {
        let line = text(row, 1 + row % 100);
        predict.answer(&line);
        bytes += line.len() as u64;
        if row + 1 == LINES {
            most[0] = most_resident(predict.child.id());
        }
    }
    most[1] = most_resident(predict.child.id());
    predict.end();
    let growth = most[1] - most[0];
    println!(
        "{:.2} MiB of text, {:.2} MiB resident at most, grown by {growth} bytes",
        mib(bytes),
        mib(most[1])
    );
    assert!(bytes > 2 << 20);
    assert!(growth <= 128 << 10, "grown by {growth} bytes with {:.2} MiB of text", mib(bytes));
}

/// The most memory of its own that a command has had, in bytes.
fn own(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    // What grows with the data is there until the end: the last look comes a millisecond before it.
    let mut most = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        most = most.max(memory(child.id(), "RssAnon").unwrap_or(0));
        sleep(Duration::from_millis(1));
    };
    assert!(ended.success() && most > 0);
    most
}

/// The most memory of its own that `eval` has had on a table of so many rows, and the bytes of the table. What it
/// maps, its cache of token ids, is the system's to drop, and is not counted.
fn eval(folder: &Path, model: &Path, rows: usize) -> (u64, u64) {
    let table = folder.join(format!("{rows}.csv"));
    let mut file = BufWriter::new(fs::File::create(&table).unwrap());
    for row in 0..rows {
        writeln!(file, "{},{}", ["no", "yes"][row % 2], text(row, 40 + row % 40)).unwrap();
    }
    file.into_inner().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.env("LIMBECK_CACHE", folder.join("cache")).args(["eval", "--quiet", "--threads", "1"]).arg(model);
    command.args(["--set", "data.text_columns=[1]", "--set", "data.max_tokens=16", "--data"]).arg(&table);
    let most = own(&mut command);
    (most, fs::metadata(&table).unwrap().len())
}

#[test]
fn eval_needs_no_more_for_more_rows() {
    const ROWS: usize = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = folder.join("model.limbeck");
    write(&small(), &model);
    // More rows than are ever encoded together, so that the first table already takes what that takes.
    let ((few, small), (many, large)) = (eval(folder, &model, ROWS), eval(folder, &model, 10 * ROWS));
    let growth = many.saturating_sub(few);
    println!(
        "{:.1} and {:.1} MiB of text, {:.2} and {:.2} MiB of its own",
        mib(small),
        mib(large),
        mib(few),
        mib(many)
    );
    assert!(large - small > 16 << 20);
    // One byte a text remembers which were right.
    assert!(growth <= 512 << 10, "grown by {growth} bytes with {:.1} MiB of text", mib(large - small));
}

/// The most memory of its own that pruning the demo's network has had, its importance measured on so many texts.
fn prune(folder: &Path, samples: usize) -> u64 {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/demo.toml");
    let stage = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        command.arg(name).arg(&recipe).args(["--quiet", "--threads", "1", "--out"]);
        command.arg(folder.join(samples.to_string())).args(["--set", "train.steps=1"]);
        command.args(["--set", "prune.schedule=\"once\"", "--set", &format!("prune.samples={samples}")]);
        command
    };
    assert!(stage("train").status().unwrap().success());
    own(&mut stage("prune"))
}

#[test]
fn importance_needs_no_more_for_more_texts() {
    // The first are enough for the allocator to have met batches of every length.
    const SAMPLES: [usize; 2] = [1_000, 4_000];
    let folder = tempfile::tempdir().unwrap();
    let [few, many] = SAMPLES.map(|samples| prune(folder.path(), samples));
    println!("{:.2} and {:.2} MiB of its own", mib(few), mib(many));
    let growth = many.saturating_sub(few);
    // The hidden states of one layer, at twenty tokens a text, would take fifteen times as much.
    assert!(growth <= 1 << 20, "grown by {growth} bytes with {} texts", SAMPLES[1] - SAMPLES[0]);
}

/// The most memory of its own that a sweep of so many trials has had.
fn sweep(folder: &Path, trials: usize) -> u64 {
    let file = folder.join(format!("{trials}.toml"));
    let fractions: Vec<f64> = (0..trials).map(|trial| 0.05 * trial as f64).collect();
    let text = format!(
        "name = 'memory'\nmodel = {{ layers = 4, hidden = 128, heads = 4, intermediate = 512, vocab = 2000, positions = 64 }}\n\
         data = {{ source = 'demo', limit = 64, test_limit = 16, max_tokens = 64 }}\n\
         bench = {{ texts = 4, repeat = 1, warmup = 1 }}\ntrain.steps = 1\ndistill.train.steps = 1\n\
         sweep.grid = {{ \"prune.heads\" = {fractions:?} }}\n"
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.arg("sweep").arg(&file).args(["--quiet", "--out"]).arg(folder.join(trials.to_string()));
    own(&mut command)
}

#[test]
fn a_sweep_needs_no_more_for_more_trials() {
    const TRIALS: [usize; 2] = [3, 12];
    let folder = tempfile::tempdir().unwrap();
    let [few, many] = TRIALS.map(|trials| sweep(folder.path(), trials));
    println!("{:.2} and {:.2} MiB of its own", mib(few), mib(many));
    // Kept, the models of nine more trials would be 85 MiB.
    assert!(many.saturating_sub(few) <= 24 << 20, "{:.1} MiB with 9 trials more", mib(many - few));
}
