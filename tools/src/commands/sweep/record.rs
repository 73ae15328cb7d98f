//! Where a trial's run is, and what stands beside it: what is tried there, and why it failed if it did.

use limbeck::stages::{Recipe, Stage, Trial};
use limbeck::{Result, files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The directory of a trial's run.
pub fn trial_directory(out: &Path, id: &str) -> PathBuf {
    out.join("trials").join(id)
}

/// `trials/ID.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The trial's name.
    pub id: String,
    /// What is tried; trials of other seeds have the same.
    pub setting: String,
    /// Its seed.
    pub seed: u64,
    /// The recipe keys that are set, each with its value in TOML.
    pub settings: BTreeMap<String, String>,
    /// SHA-256 of all of the recipe that can change a result.
    pub recipe_sha256: String,
    /// Why it failed; of one that goes on, or is finished, nothing.
    pub error: Option<String>,
    /// Whether it would fail again in the same way: the loss was no number, and a run is a function of its recipe.
    pub final_error: bool,
}

impl Record {
    /// Of a trial that begins.
    pub fn of(trial: &Trial) -> Record {
        Record {
            id: trial.id.clone(),
            setting: trial.setting.clone(),
            seed: trial.seed,
            settings: trial.settings.iter().cloned().collect(),
            recipe_sha256: hash(&trial.recipe),
            error: None,
            final_error: false,
        }
    }

    /// The record of `id` in the sweep's directory. `None` if it is not there, or cannot be read: then it is made again.
    pub fn load(out: &Path, id: &str) -> Option<Record> {
        serde_json::from_slice(&files::read(&path(out, id)).ok()?).ok()
    }

    /// Whether it is of this very recipe.
    pub fn is_of(&self, trial: &Trial) -> bool {
        self.recipe_sha256 == hash(&trial.recipe)
    }

    /// Writes it, if it does not stand there already.
    ///
    /// # Errors
    /// A full disk.
    pub fn save(&self, out: &Path) -> Result<()> {
        if Record::load(out, &self.id).as_ref() == Some(self) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(self).expect("texts and numbers are JSON");
        files::replace_bytes(&path(out, &self.id), format!("{text}\n").as_bytes())
    }
}

fn path(out: &Path, id: &str) -> PathBuf {
    out.join("trials").join(format!("{id}.json"))
}

fn hash(recipe: &Recipe) -> String {
    files::sha256(recipe.identity(Stage::Quantize).as_bytes())
}
