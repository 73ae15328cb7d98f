//! `limbeck predict`: a JSON line for each text, as it comes. Memory holds one line at a time.

use crate::cli::{self, Predict};
use crate::engine::{self, TextModel};
use crate::failure::Failure;
use crate::output::Output;
use limbeck::Error;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::models::{highest, probabilities};
use serde::Serialize;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

pub fn predict(typed: &Predict) -> Result<(), Failure> {
    let threads = cli::threads(typed.threads);
    set_threads(threads)?;
    let mut model = engine::open(&typed.model, threads)?;
    let max_tokens = typed.max_tokens.unwrap_or(usize::MAX).min(model.positions());
    let pairs = typed.pairs || typed.first.is_some();
    if max_tokens < if pairs { 5 } else { 3 } {
        let parts = if pairs {
            "[CLS], a piece of each sentence and two [SEP] make 5"
        } else {
            "[CLS], one piece and [SEP] make 3"
        };
        return Err(Failure::Usage(format!("--max-tokens: {parts} at least")));
    }
    if let Some(first) = &typed.first {
        let ids = model.tokenizer().encode(first, max_tokens);
        model.prepare(&ids)?;
    }
    let mut output = Output::new();
    let mut classify = |second: Option<&str>, text: &str, output: &mut Output| -> Result<(), Failure> {
        let tokenizer = model.tokenizer();
        let pair = match (&typed.first, second) {
            (Some(first), _) => tokenizer.encode_pair(first, text, max_tokens),
            (None, Some(second)) => tokenizer.encode_pair(text, second, max_tokens),
            (None, None) => tokenizer.encode(text, max_tokens).into(),
        };
        let logits = model.logits(&[pair.text()])?.to_vec();
        output.json_line(&Line::new(&logits, &*model))
    };
    if !typed.text.is_empty() {
        let sentences = if typed.pairs { 2 } else { 1 };
        if !typed.text.len().is_multiple_of(sentences) {
            return Err(Failure::Usage(
                "--pairs: the last first sentence has no second one; give two arguments a pair".into(),
            ));
        }
        for text in typed.text.chunks(sentences) {
            classify(text.get(1).map(String::as_str), &text[0], &mut output)?;
        }
        return output.flush();
    }
    // Output is handed over whenever input runs dry, so that a program at both ends is never kept waiting.
    let mut input = BufReader::with_capacity(1 << 16, io::stdin());
    let mut lines = Lines::default();
    let mut line = 0;
    while let Some(text) = lines.next(&mut input)? {
        line += 1;
        if typed.pairs {
            let (first, second) = pair(text, line)?;
            classify(Some(second), first, &mut output)?;
        } else {
            classify(None, text, &mut output)?;
        }
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
    output.flush()
}

/// The two sentences of a line.
fn pair(text: &str, line: usize) -> Result<(&str, &str), Error> {
    let problem = match text.split_once('\t') {
        Some((first, second)) if !second.contains('\t') => return Ok((first, second)),
        Some(_) => "there are several tabs, and which of them parts the two sentences is not known",
        None => "there is no tab between two sentences",
    };
    Err(Error::File {
        path: PathBuf::from("standard input"),
        line: Some(line),
        problem: problem.into(),
        mend: "write first sentence, tab, second sentence, or leave --pairs out".into(),
    })
}

/// What is said of one text.
#[derive(Serialize)]
struct Line<'a> {
    label: &'a str,
    logits: &'a [f32],
    probabilities: Vec<f32>,
}

impl<'a> Line<'a> {
    fn new(logits: &'a [f32], model: &'a dyn TextModel) -> Line<'a> {
        let label = &model.labels()[highest(logits)];
        Line { label, logits, probabilities: probabilities(logits) }
    }
}

/// Longest line of input, in bytes: a guard against a file that has none.
const LONGEST_LINE: usize = 64 << 20;

/// Lines of text, their ends (`\n` or `\r\n`) taken off.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    read: usize,
}

impl Lines {
    fn next(&mut self, input: &mut impl BufRead) -> Result<Option<&str>, Error> {
        self.bytes.clear();
        let source = Path::new("standard input");
        let mut limited = input.take(LONGEST_LINE as u64);
        if limited.read_until(b'\n', &mut self.bytes).map_err(Error::io("read", source))? == 0 {
            return Ok(None);
        }
        self.read += 1;
        let problem = |problem: &str, mend: &str| Error::File {
            path: PathBuf::from(source),
            line: Some(self.read),
            problem: problem.into(),
            mend: mend.into(),
        };
        if self.bytes.len() == LONGEST_LINE {
            return Err(problem("the line is longer than 64 MiB", "give one text a line"));
        }
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match std::str::from_utf8(line) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(problem("this is not UTF-8", "convert it, for example with iconv -t UTF-8")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_ends_and_bad_text_is_named() {
        let mut input: &[u8] = b"one\r\n\ntwo \xf0\x9f\x8d\xb8\nbad \xff\nlast";
        let mut lines = Lines::default();
        assert_eq!(lines.next(&mut input).unwrap(), Some("one"));
        assert_eq!(lines.next(&mut input).unwrap(), Some(""));
        assert_eq!(lines.next(&mut input).unwrap(), Some("two \u{1f378}"));
        let error = lines.next(&mut input).unwrap_err().to_string();
        assert!(error.starts_with("standard input, line 4: this is not UTF-8"), "{error}");
        assert_eq!(lines.next(&mut input).unwrap(), Some("last"));
        assert_eq!(lines.next(&mut input).unwrap(), None);
    }
}
