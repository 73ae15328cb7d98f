//! How far a trial is, as its directory says.

use super::record::{Record, trial_directory};
use crate::commands::stages::REPORT;
use limbeck::report::Table;
use limbeck::report::cells::{dash, mib, percent, points};
use limbeck::report::table::RowMetrics;
use limbeck::stages::{Stage, Trial};
use serde_json::{Value, json};
use std::path::Path;

/// The row of a run's table that a trial stands or falls by.
pub const SHIPPED: &str = Stage::Quantize.variant();

/// What a trial's run measured.
pub fn table_of(directory: &Path) -> limbeck::Result<Table> {
    Table::load(&directory.join(REPORT))
}

/// How far a trial is, as its directory says.
pub enum State {
    Finished(Box<Table>),
    Failed(String),
    /// What is there was made with other settings.
    Other {
        finished: bool,
    },
    Begun,
    New,
}

impl State {
    pub fn of(out: &Path, trial: &Trial) -> State {
        let directory = trial_directory(out, &trial.id);
        match Record::load(out, &trial.id) {
            Some(record) if !record.is_of(trial) => {
                return State::Other { finished: record.error.is_none() && table_of(&directory).is_ok() };
            }
            Some(Record { error: Some(error), .. }) => return State::Failed(error),
            _ => {}
        }
        match table_of(&directory) {
            Ok(table) => State::Finished(Box::new(table)),
            Err(_) if directory.join("run.json").exists() => State::Begun,
            Err(_) => State::New,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            State::Finished(_) => "finished",
            State::Failed(_) => "failed",
            State::Other { .. } => "of other settings",
            State::Begun => "begun",
            State::New => "not begun",
        }
    }

    pub fn cells(&self, trial: &Trial) -> [String; 5] {
        let figures = match self {
            State::Finished(table) => shipped(table).map(|row| {
                let difference = row.accuracy - table.rows[0].accuracy;
                [percent(row.accuracy), points(difference), mib(row.file_bytes as f64)]
            }),
            _ => None,
        };
        let [accuracy, points, mib] = figures.unwrap_or_else(|| std::array::from_fn(|_| dash(None, percent)));
        [trial.id.clone(), self.name().to_owned(), accuracy, points, mib]
    }

    pub fn json(&self, out: &Path, trial: &Trial) -> Value {
        let settings: serde_json::Map<String, Value> =
            trial.settings.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let (mut accuracy, mut baseline, mut bytes) = (Value::Null, Value::Null, Value::Null);
        if let State::Finished(table) = self
            && let Some(row) = shipped(table)
        {
            (accuracy, bytes) = (json!(row.accuracy), json!(row.file_bytes));
            baseline = json!(table.rows[0].accuracy);
        }
        let error = if let State::Failed(error) = self { json!(error) } else { Value::Null };
        json!({
            "id": trial.id, "setting": trial.setting, "seed": trial.seed, "settings": settings,
            "directory": trial_directory(out, &trial.id), "state": self.name(), "error": error,
            "accuracy": accuracy, "baseline_accuracy": baseline, "file_bytes": bytes,
        })
    }
}

/// The row of the file that is deployed.
fn shipped(table: &Table) -> Option<&RowMetrics> {
    table.rows.iter().find(|row| row.variant == SHIPPED)
}
