//! The directory of a run: which recipe it belongs to, which artifacts are there, which may be written.
//!
//! An artifact appears whole or not at all, so that its presence means that its stage is done. Nothing that is
//! there is ever overwritten: a second run into the directory goes on with `--resume` or is refused.

use super::{Stage, StageContext, artifact};
use crate::train::forget_state;
use crate::{Error, Result, files};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const RUN: &str = "run.json";
const RECIPE: &str = "recipe.toml";
const CACHE: &str = "cache";

/// Keys named when two recipes differ; more would bury the first.
const NAMED: usize = 3;

impl StageContext<'_> {
    /// Where a stage's artifact is.
    pub fn artifact(&self, stage: Stage) -> PathBuf {
        match stage {
            Stage::Quantize => self.out.join(format!("{}.limbeck", stage.variant())),
            _ => self.out.join(stage.variant()),
        }
    }

    /// Where a stage saves its state.
    pub fn state(&self, stage: Stage) -> PathBuf {
        self.out.join(format!("state-{}", stage.name()))
    }

    /// Where what was computed from texts is kept: their tokens, the teacher's logits.
    pub fn cache(&self) -> PathBuf {
        self.out.join(CACHE)
    }

    /// The log of all trainings.
    pub fn metrics(&self) -> PathBuf {
        self.out.join("metrics.jsonl")
    }

    /// A hash of all of the recipe's keys that can change an artifact's numbers ([`Recipe::identity`]).
    ///
    /// [`Recipe::identity`]: super::Recipe::identity
    pub fn recipe_hash(&self) -> String {
        files::sha256(self.recipe.identity().as_bytes())
    }

    /// Makes the directory ready for `stage`, which removes what killed writers left in it. Says whether the stage
    /// still has to run: with `resume`, one whose artifact is there does not.
    ///
    /// # Errors
    /// [`Error::Occupied`] if the directory belongs to another recipe, holds something else, holds this stage's
    /// artifact or state and `resume` is not set, or would be gone on with by other kernels, whose numbers differ;
    /// [`Error::File`] if the artifact was made from another parent than the one that is there;
    /// [`Error::Interrupted`] if a signal has come.
    pub fn enter(&self, stage: Stage) -> Result<bool> {
        self.check_stop()?;
        let occupied = |found: String, mend: &str| {
            Err(Error::Occupied { path: self.out.to_owned(), found, mend: mend.to_owned() })
        };
        let run = self.out.join(RUN);
        let found = run.exists().then(|| read_run(&run)).transpose()?;
        let begun = found.filter(|_| self.has_begun());
        if let Some(begun) = &begun {
            if begun["recipe_sha256"] != self.recipe_hash() {
                let name = begun["name"].as_str().unwrap_or("unnamed");
                return occupied(
                    format!("a run of another recipe ({name:?}{})", self.differences()),
                    "choose another --out, or repeat the settings in its recipe.toml",
                );
            }
        } else if run.exists() {
            // It ended before its first step, over a mistyped path, say.
            self.found(&run)?;
        } else if fs::read_dir(self.out).is_ok_and(|entries| entries.flatten().any(is_of_somebody)) {
            return occupied("files that are not of a run".to_owned(), "choose another --out");
        } else {
            self.found(&run)?;
        }
        files::sweep(self.out);
        files::sweep(&self.cache());
        if self.artifact(stage).exists() {
            if self.resume {
                self.check_parent(stage)?;
                // What a kill between the artifact's appearance and the state's removal leaves.
                forget_state(&self.state(stage))?;
                self.progress.message(&format!("{}: done before", stage.name()));
                return Ok(false);
            }
            return occupied(
                format!("a finished {} stage ({})", stage.name(), self.artifact(stage).display()),
                "go on with --resume, or choose another --out",
            );
        }
        if self.state(stage).exists() && !self.resume {
            return occupied(
                format!("an unfinished {} stage", stage.name()),
                "go on with --resume, or choose another --out",
            );
        }
        if let Some(kernels) = begun.as_ref().and_then(|begun| begun["kernels"].as_str())
            && kernels != self.kernels.isa().name()
        {
            return occupied(
                format!("a run of the {kernels} kernels (these are {})", self.kernels.isa().name()),
                &format!("go on with LIMBECK_ISA={kernels}, or choose another --out"),
            );
        }
        Ok(true)
    }

    /// The artifact of an earlier stage, which must be there.
    ///
    /// # Errors
    /// [`Error::File`] naming the stage to run first.
    pub fn need(&self, stage: Stage) -> Result<PathBuf> {
        let path = self.artifact(stage);
        if path.exists() {
            return Ok(path);
        }
        let mend = format!("run `limbeck {}` with the same recipe and --out first", stage.name());
        Err(Error::file(&path, "the artifact of an earlier stage is missing", mend))
    }

    /// How the run's recipe differs from this one, to follow its name; empty where the run does not say.
    fn differences(&self) -> String {
        let text = fs::read_to_string(self.out.join(RECIPE)).unwrap_or_default();
        let all = self.recipe.differences(&text);
        let named: String = all.iter().take(NAMED).map(|difference| format!("; {difference}")).collect();
        match all.len().saturating_sub(NAMED) {
            0 => named,
            more => format!("{named}; and {more} more"),
        }
    }

    /// Whether a finished stage was made from what the stage before it has left, as far as both are there and it
    /// says so: else the table would compare networks that have nothing to do with each other.
    fn check_parent(&self, stage: Stage) -> Result<()> {
        let Some(parent) = stage.parent().filter(|parent| self.artifact(*parent).exists()) else {
            return Ok(());
        };
        let made = self.artifact(stage);
        let Some(recorded) = artifact::parent_hash(&made, parent)? else { return Ok(()) };
        let from = self.artifact(parent);
        if artifact::weights_hash(&from)? == recorded {
            return Ok(());
        }
        let later =
            Stage::ALL.into_iter().skip_while(|later| *later != stage).map(|later| self.artifact(later));
        let later: Vec<String> =
            later.filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
        let problem = format!("it was made from another {} than {} is now", parent.variant(), from.display());
        let mend =
            format!("remove {}, for --resume to make again, or choose another --out", later.join(", "));
        Err(Error::file(&made, problem, mend))
    }

    /// Whether there is anything that took a step to make.
    fn has_begun(&self) -> bool {
        let mut made = Stage::ALL.into_iter().flat_map(|stage| [self.artifact(stage), self.state(stage)]);
        self.metrics().exists() || made.any(|path| path.exists())
    }

    fn found(&self, run: &Path) -> Result<()> {
        fs::create_dir_all(self.out).map_err(Error::io("create", self.out))?;
        let content = json!({
            "name": self.recipe.name,
            "recipe_sha256": self.recipe_hash(),
            "version": env!("CARGO_PKG_VERSION"),
            "kernels": self.kernels.isa().name(),
        });
        // First what makes the directory a run's: whenever it is killed, it can be entered again.
        files::replace_bytes(run, format!("{content:#}\n").as_bytes())?;
        files::replace_bytes(&self.out.join(RECIPE), self.recipe.canonical().as_bytes())
    }
}

/// Whether an entry is more than what a killed writer left.
fn is_of_somebody(entry: fs::DirEntry) -> bool {
    !files::is_partial(&entry.file_name())
}

fn read_run(path: &Path) -> Result<Value> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::file(path, error.to_string(), "choose another --out: this file is damaged"))
}
