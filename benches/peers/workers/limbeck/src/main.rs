//! limbeck as `benches/peers` measures it: the inference build behind the protocol of its other workers.
//!
//! ```text
//! limbeck-peers-worker MODEL.limbeck THREADS     answers requests: texts as ids, or one text as it is
//! limbeck-peers-worker --peaks THREADS MIB       what so many cores reach at most, as one line of JSON
//! ```

#[path = "../../../../peak/mod.rs"]
mod peak;
mod peaks;
mod runner;

use limbeck::infer::Model;
use limbeck_peers_protocol::{Failure, forward, ready, serve, texts, timed};
use runner::Runner;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: limbeck-peers-worker MODEL.limbeck THREADS | --peaks THREADS MIB";

fn main() -> Result<(), Failure> {
    let typed: Vec<String> = std::env::args().skip(1).collect();
    match typed.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--peaks", threads, mib] => {
            println!("{}", peaks::measure(threads.parse()?, mib.parse()?)?);
            Ok(())
        }
        [model, threads] => measure(Path::new(model), threads.parse()?),
        _ => Err(USAGE.into()),
    }
}

fn measure(path: &Path, threads: usize) -> Result<(), Failure> {
    let model = Model::open(path)?;
    let mut runner = Runner::new(&model, threads);
    ready(env!("CARGO_PKG_VERSION"));
    serve(|request| {
        if let Some(text) = request["text"].as_str() {
            return label(request, &model, &mut runner, text);
        }
        let texts = texts(request)?;
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        runner.place(&texts);
        forward(request, texts.len(), || runner.logits())
    });
    Ok(())
}

/// From a text to its label, and how much of the time went into tokenization.
fn label(request: &Value, model: &Model, runner: &mut Runner<'_>, text: &str) -> Result<Value, Failure> {
    let tokenizer = model.tokenizer().ok_or("the model's file carries no tokenizer")?;
    let (mut cutting, mut ids) = (Vec::new(), Vec::new());
    let (seconds, label) = timed(request, || {
        let start = Instant::now();
        ids.clear();
        tokenizer.encode_into(text, model.config().positions, &mut ids);
        cutting.push(start.elapsed());
        runner.place(&[&ids]);
        let logits = runner.logits()?;
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        Ok(best.map(|best| model.config().labels[best].clone()))
    })?;
    let measured = &cutting[cutting.len() - seconds.len()..];
    let tokenization: Vec<f64> = measured.iter().map(Duration::as_secs_f64).collect();
    Ok(json!({ "seconds": seconds, "tokenization": tokenization, "tokens": ids.len(), "label": label }))
}
