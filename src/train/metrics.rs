//! The log of a training: `metrics.jsonl`, one JSON object for each step, each evaluation and each change of the network.

use super::{Learner, Step, callback::Event};
use crate::ops::Backend;
use crate::{Error, Result, files};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// An open log.
pub struct Metrics {
    path: PathBuf,
    file: Box<dyn Write>,
    stage: String,
    began: Instant,
}

impl Metrics {
    /// Opens the log to go on after `step`. Lines of this stage beyond that step are dropped: a run that was
    /// killed wrote them, and the resumed run writes them again.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path, stage: &str, step: u64) -> Result<Metrics> {
        if path.exists() {
            // What a crash has left of a line need not be text.
            let bytes = fs::read(path).map_err(Error::io("read", path))?;
            let lines = String::from_utf8_lossy(&bytes);
            let kept = lines.lines().filter(|line| keeps(line, stage, step));
            let kept: String = kept.map(|line| format!("{line}\n")).collect();
            files::replace_bytes(path, kept.as_bytes())?;
        }
        let file =
            OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("open", path))?;
        Ok(Metrics {
            path: path.to_owned(),
            file: Box::new(BufWriter::new(file)),
            stage: stage.to_owned(),
            began: Instant::now(),
        })
    }

    /// A log that nobody keeps.
    pub fn nowhere(stage: &str) -> Metrics {
        let (file, began) = (Box::new(std::io::sink()), Instant::now());
        Metrics { path: PathBuf::new(), file, stage: stage.to_owned(), began }
    }

    /// Logs a step.
    ///
    /// # Errors
    /// The disk is full.
    pub fn step(&mut self, step: u64, done: &Step, learning_rate: f64, tokens: usize) -> Result<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        let mut line = json!({
            "stage": self.stage, "step": step, "loss": done.loss, "cross_entropy": done.cross_entropy,
            "distillation": done.distillation, "gradient_norm": done.gradient_norm,
            "learning_rate": learning_rate, "tokens": tokens, "seconds": seconds,
        });
        done.terms.present().for_each(|(name, value)| line[name] = json!(value));
        self.line(&line)
    }

    /// Logs an evaluation.
    ///
    /// # Errors
    /// The disk is full.
    pub fn evaluation(&mut self, step: u64, accuracy: f64) -> Result<()> {
        self.line(&json!({ "stage": self.stage, "step": step, "held_out_accuracy": accuracy }))
    }

    /// Logs a change of the network: what is left of it.
    ///
    /// # Errors
    /// The disk is full.
    pub fn event<B: Backend>(&mut self, step: u64, event: &Event, learner: &Learner<B>) -> Result<()> {
        let layers = &learner.model.config.layers;
        let masks = learner.params.iter().filter_map(|(_, param)| param.mask.as_ref());
        self.line(&json!({
            "stage": self.stage, "step": step, "event": event.number, "of": event.of, "rewound": event.rewound,
            "heads": layers.iter().map(|layer| layer.heads.len()).sum::<usize>(),
            "units": layers.iter().map(|layer| layer.intermediate).sum::<usize>(),
            "masked": masks.map(|mask| mask.0.len() - mask.kept()).sum::<usize>(),
        }))
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// The disk is full.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        writeln!(self.file, "{value}").map_err(Error::io("write", &self.path))
    }
}

/// Whether a line is of another stage, or of this one and not beyond `step`. A line cut short by a kill is not
/// kept.
fn keeps(line: &str, stage: &str, step: u64) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(line) else { return false };
    value["stage"] != stage || value["step"].as_u64().is_some_and(|at| at <= step)
}
