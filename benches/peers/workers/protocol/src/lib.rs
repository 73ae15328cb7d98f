//! How `benches/peers` speaks to a measured program: lines of JSON, a request in, an answer out.
//!
//! `../../../harness/child.py` holds the other end and says what the lines mean. A worker loads its model, says
//! [`ready`], and gives [`serve`] what answers a request, mostly with [`timed`].

use serde_json::{Value, json};
use std::io::{self, BufRead, Write};
use std::time::Instant;

/// What can go wrong in a worker; the harness prints it.
pub type Failure = Box<dyn std::error::Error>;

/// Says that the model is loaded, and the version of the runtime.
pub fn ready(version: &str) {
    say(&json!({ "ready": true, "version": version }));
}

/// Answers requests until standard input ends. An error is an answer too.
pub fn serve(mut answer: impl FnMut(&Value) -> Result<Value, Failure>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let request = serde_json::from_str(&line).map_err(Failure::from);
        say(&request
            .and_then(|request| answer(&request))
            .unwrap_or_else(|error| json!({ "error": error.to_string() })));
    }
}

/// The texts of a request, as token ids.
///
/// # Errors
/// If it has none.
pub fn texts(request: &Value) -> Result<Vec<Vec<u32>>, Failure> {
    let text = |text: &Value| text.as_array()?.iter().map(|id| id.as_u64()?.try_into().ok()).collect();
    let texts = || request["texts"].as_array()?.iter().map(text).collect::<Option<Vec<Vec<u32>>>>();
    texts().filter(|texts| !texts.is_empty()).ok_or_else(|| "\"texts\" are no lists of token ids".into())
}

/// Texts padded with id 0 to the longest: ids and mask (1 for a token, 0 for padding), both `[texts, longest]`,
/// and that length.
pub fn padded(texts: &[Vec<u32>]) -> (Vec<u32>, Vec<u32>, usize) {
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let row = |text: &[u32], fill: &dyn Fn(u32) -> u32| -> Vec<u32> {
        (0..longest).map(|place| text.get(place).map_or(0, |&id| fill(id))).collect()
    };
    let ids = texts.iter().flat_map(|text| row(text, &|id| id)).collect();
    let mask = texts.iter().flat_map(|text| row(text, &|_| 1)).collect();
    (ids, mask, longest)
}

/// Runs `work` as often as the request says (`warm` times untimed, then `calls` times or until `budget` seconds
/// are spent), and gives the seconds of each timed call with what the last one returned.
///
/// # Errors
/// Those of `work`.
pub fn timed<T>(
    request: &Value,
    mut work: impl FnMut() -> Result<T, Failure>,
) -> Result<(Vec<f64>, T), Failure> {
    let count = |key: &str| request[key].as_u64().unwrap_or(0);
    let budget = request["budget"].as_f64().unwrap_or(f64::INFINITY);
    for _ in 0..count("warm") {
        work()?;
    }
    let mut seconds = Vec::new();
    loop {
        let start = Instant::now();
        let result = work()?;
        seconds.push(start.elapsed().as_secs_f64());
        if seconds.len() as u64 >= count("calls") || seconds.iter().sum::<f64>() > budget {
            return Ok((seconds, result));
        }
    }
}

/// [`timed`], where `work` returns the logits of all texts, end to end: the whole answer.
///
/// # Errors
/// Those of `work`.
pub fn forward(
    request: &Value,
    texts: usize,
    work: impl FnMut() -> Result<Vec<f32>, Failure>,
) -> Result<Value, Failure> {
    let (seconds, logits) = timed(request, work)?;
    let rows: Vec<&[f32]> = logits.chunks(logits.len() / texts).collect();
    Ok(json!({ "seconds": seconds, "logits": rows }))
}

fn say(answer: &Value) {
    let mut output = io::stdout().lock();
    // A harness that is gone wants no answer.
    let _ = writeln!(output, "{answer}").and_then(|()| output.flush());
}
