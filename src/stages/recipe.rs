//! The recipe: everything that decides a run, in one TOML file.
//!
//! Text becomes a TOML tree; `--set a.b=value` is applied to the tree; `[prune.train]` and
//! `[distill.train]` inherit from `[train]` there; then the tree becomes a [`Recipe`] and its values are
//! checked. Working on the tree means that an override, a file and a default obey the same rules and get
//! the same errors, and every error names the key.
//!
//! [`Recipe::canonical`] writes all keys out again, defaults too, but for keys that do nothing by default: what artifacts
//! record, and hash, as their origin.

pub(super) mod check;
mod compare;
mod idle;
pub(super) mod read;
pub mod tables;
mod terms;

use super::Stage;
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::path::Path;
pub use tables::*;
pub use terms::{TERMS, Term};

/// A whole recipe. Keys and defaults are documented on the [`tables`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// What reports call this run. Default `"unnamed"`.
    pub name: String,
    /// The source of all randomness: initial weights, order of texts, dropout. Default 1.
    pub seed: u64,
    /// Threads; 0 = all that the machine has. Default 0.
    pub threads: usize,
    /// Texts and labels.
    pub data: Data,
    /// Where training starts.
    pub model: Model,
    /// The first stage.
    pub train: Train,
    /// The second stage.
    pub prune: Prune,
    /// The third stage.
    pub distill: Distill,
    /// The fourth stage.
    pub quantize: Quantize,
    /// The latency columns of the table.
    pub bench: Bench,
    /// What the table compares with besides the baseline.
    pub controls: Controls,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            name: "unnamed".into(),
            seed: 1,
            threads: 0,
            data: Data::default(),
            model: Model::default(),
            train: Train::default(),
            prune: Prune::default(),
            distill: Distill::default(),
            quantize: Quantize::default(),
            bench: Bench::default(),
            controls: Controls::default(),
        }
    }
}

impl Recipe {
    /// Reads the recipe at `path` and applies `overrides`, each `key=value` as in `data.limit=8000`, in order.
    ///
    /// # Errors
    /// An unreadable file, TOML that does not parse (with its line), or any error of [`Recipe::parse`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Recipe> {
        let text = files::read_to_string(path)?;
        Self::parse(&text, path, overrides)
    }

    /// Reads a recipe from `text`; `origin` is what errors call it.
    ///
    /// # Errors
    /// TOML that does not parse; a key that does not exist (with the nearest that does); a value of the
    /// wrong kind or out of range; settings that contradict each other.
    pub fn parse(text: &str, origin: &Path, overrides: &[String]) -> Result<Recipe> {
        let mut tree = read::tree(text, origin)?;
        let mut too_large = Vec::new();
        for assignment in overrides {
            too_large.extend(read::assign(&mut tree, assignment)?);
        }
        read::refuse_large_numbers(Self::from_tree(tree), &too_large)
    }

    fn from_tree(mut tree: toml::Table) -> Result<Recipe> {
        if tree.contains_key("sweep") {
            let mend = "run it with `limbeck sweep`, or leave the table out";
            return Err(Error::setting("sweep", "this recipe is a sweep's", mend));
        }
        // Read before inheriting too, so that an error in [train] is not reported where it was inherited.
        read::recipe(tree.clone())?;
        read::inherit(&mut tree);
        let recipe = read::recipe(tree)?;
        check::recipe(&recipe)?;
        Ok(recipe)
    }

    /// The table of a stage's training and its dotted name; `None` of the stage that trains nothing.
    pub fn training(&self, stage: Stage) -> Option<(&'static str, &Train)> {
        match stage {
            Stage::Train => Some(("train", &self.train)),
            Stage::Prune => Some(("prune.train", &self.prune.train)),
            Stage::Distill => Some(("distill.train", &self.distill.train)),
            Stage::Quantize => None,
        }
    }

    /// All keys as TOML, defaults written out, always in the same order: equal recipes give equal bytes.
    pub fn canonical(&self) -> String {
        toml::to_string(self).expect("a recipe is made of tables, numbers and strings")
    }
}

#[cfg(test)]
mod tests;
