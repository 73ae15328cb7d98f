//! The directory of a run: which recipe it belongs to, which artifacts are there, which may be written.
//!
//! An artifact appears whole or not at all, so that its presence means that its stage is done. Nothing that is
//! there is ever overwritten: a second run into the directory goes on with `--resume` or is refused.
//!
//! What is there binds the settings that it was made with, and no others: those of a stage that has not begun may be
//! changed, so that a mistake in them never costs the stages before.

use super::{Stage, StageContext, artifact};
use crate::checkpoint::HfDirectory;
use crate::models::ModelConfig;
use crate::train::forget_state;
use crate::{Error, Result, files};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const RUN: &str = "run.json";
const RECIPE: &str = "recipe.toml";
const CACHE: &str = "cache";
/// The key of `run.json` under which each stage has the hash of what decides it in the recipe.
const HASHES: &str = "recipe_sha256";

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

    /// A hash of all of the recipe's keys that can change the numbers of a stage's artifact ([`Recipe::identity`]).
    ///
    /// [`Recipe::identity`]: super::Recipe::identity
    pub fn recipe_hash(&self, stage: Stage) -> String {
        files::sha256(self.recipe.identity(stage).as_bytes())
    }

    /// Makes the directory ready for `stage`, which removes what killed writers left in it, and records the recipe.
    /// Says whether the stage still has to run: with `resume`, one whose artifact is there does not.
    ///
    /// # Errors
    /// [`Error::Occupied`] if what is there was made with other settings, is of somebody else, is this stage's
    /// artifact or state and `resume` is not set, or would be gone on with by other kernels, whose numbers differ;
    /// [`Error::File`] if the artifact is damaged, or was made from another parent than the one that is there;
    /// [`Error::Interrupted`] if a signal has come.
    pub fn enter(&self, stage: Stage) -> Result<bool> {
        self.ranks.from_first(|| self.enter_first(stage))
    }

    fn enter_first(&self, stage: Stage) -> Result<bool> {
        self.check_stop()?;
        let run = self.out.join(RUN);
        let found = run.exists().then(|| read_run(&run)).transpose()?;
        if found.is_none()
            && fs::read_dir(self.out).is_ok_and(|entries| entries.flatten().any(is_of_somebody))
        {
            return self.occupied("files that are not of a run".to_owned(), "choose another --out");
        }
        // One that ended before its first step, over a mistyped path, say, binds nobody.
        let begun = found.filter(|_| Stage::ALL.into_iter().any(|stage| self.has_begun(stage)));
        if let Some(begun) = &begun {
            self.check_recipe(begun)?;
        }
        let done = self.artifact(stage).exists();
        if (done || self.state(stage).exists()) && !self.resume {
            let found = match done {
                true => format!("a finished {} stage ({})", stage.name(), self.artifact(stage).display()),
                false => format!("an unfinished {} stage", stage.name()),
            };
            return self.occupied(found, "go on with --resume, or choose another --out");
        }
        let kernels = begun.as_ref().and_then(|begun| begun["kernels"].as_str());
        let own = self.kernels_name();
        let kernels = kernels.unwrap_or(&own);
        if !done && kernels != own {
            return self.occupied(
                format!("a run of the {kernels} kernels (these are {own})"),
                &self.mend_kernels(kernels),
            );
        }
        self.record(kernels)?;
        files::remove_leftovers(self.out);
        files::remove_leftovers(&self.cache());
        if done {
            self.check_artifact(stage)?;
            // What a kill between the artifact's appearance and the state's removal leaves.
            forget_state(&self.state(stage))?;
            self.progress.message(&format!("{}: done before", stage.name()));
        }
        Ok(!done)
    }

    fn occupied<T>(&self, found: String, mend: &str) -> Result<T> {
        Err(Error::Occupied { path: self.out.to_owned(), found, mend: mend.to_owned() })
    }

    /// Whether what is there was made with this recipe's settings. Those of stages that have not begun are free.
    fn check_recipe(&self, begun: &Value) -> Result<()> {
        let other = |stage: &Stage| begun[HASHES][stage.name()] != self.recipe_hash(*stage);
        let Some(last) = Stage::ALL.into_iter().rfind(|stage| self.has_begun(*stage) && other(stage)) else {
            return Ok(());
        };
        let first = Stage::ALL.into_iter().find(other).unwrap_or(last);
        let name = begun["name"].as_str().unwrap_or("unnamed");
        let found = format!("a run of another recipe ({name:?}{})", self.differences(last));
        let mend = "choose another --out, or repeat the settings in its recipe.toml".to_owned();
        self.occupied(
            found,
            &match first {
                Stage::Train => mend,
                _ => format!(
                    "{mend}, or remove {}, for --resume to make again with these",
                    self.made_from(first)
                ),
            },
        )
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

    /// As [`StageContext::need`], for a stage that reads it: it must be as its own stage has left it.
    ///
    /// # Errors
    /// Those of [`StageContext::need`]; [`Error::File`] if it is damaged, or was made from another parent than is there.
    pub fn need_whole(&self, stage: Stage) -> Result<PathBuf> {
        let path = self.need(stage)?;
        self.ranks.from_first(|| self.check_artifact(stage))?;
        Ok(path)
    }

    /// How the run's recipe differs from this one up to a stage, to follow its name; empty where the run does not say.
    fn differences(&self, stage: Stage) -> String {
        let text = fs::read_to_string(self.out.join(RECIPE)).unwrap_or_default();
        let all = self.recipe.differences(&text, stage);
        let named: String = all.iter().take(NAMED).map(|difference| format!("; {difference}")).collect();
        match all.len().saturating_sub(NAMED) {
            0 => named,
            more => format!("{named}; and {more} more"),
        }
    }

    /// Whether a finished stage is whole, and was made from what the stage before it has left, as far as that is there:
    /// else the table would compare networks that have nothing to do with each other.
    fn check_artifact(&self, stage: Stage) -> Result<()> {
        let (config, recorded) = self.check_alone(stage)?;
        let Some(parent) = stage.parent().filter(|parent| self.artifact(*parent).exists()) else {
            return Ok(());
        };
        let (made, from) = (self.artifact(stage), self.artifact(parent));
        let (problem, put_back) =
            if recorded.is_some_and(|hash| artifact::weights_hash(&from).ok() != Some(hash)) {
                // A damaged one is another, too.
                self.check_alone(parent)?;
                let problem =
                    format!("it was made from another {} than {} is now", parent.variant(), from.display());
                (problem, "")
            } else if !artifact::is_derived_from(&config, &HfDirectory::open(&from)?.config) {
                let problem =
                    format!("its configuration is not that of {}, from which it was made", from.display());
                (problem, "put back the config.json that was changed, or ")
            } else {
                return Ok(());
            };
        let again = self.again(stage);
        Err(Error::file(&made, problem, format!("{put_back}{again}, or choose another --out")))
    }

    /// Whether an artifact is whole, whatever the others are.
    fn check_alone(&self, stage: Stage) -> Result<(ModelConfig, Option<String>)> {
        let mend = || format!("put it back as it was, or {}", self.again(stage));
        artifact::check(&self.artifact(stage), stage).map_err(|error| error.with_mend(&mend()))
    }

    /// How to make a stage's artifact anew.
    fn again(&self, stage: Stage) -> String {
        format!("remove {}, for --resume to make again", self.made_from(stage))
    }

    /// What is there of a stage and of those after it.
    fn made_from(&self, stage: Stage) -> String {
        let later = Stage::ALL.into_iter().filter(|later| *later >= stage);
        let paths = later.flat_map(|later| [self.artifact(later), self.state(later)]);
        let paths: Vec<String> =
            paths.filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
        paths.join(", ")
    }

    /// Whether a stage has left anything that took a step to make.
    fn has_begun(&self, stage: Stage) -> bool {
        self.artifact(stage).exists() || self.state(stage).exists()
    }

    /// Writes down which recipe the run is of, if that is not what stands there.
    fn record(&self, kernels: &str) -> Result<()> {
        fs::create_dir_all(self.out).map_err(Error::io("create", self.out))?;
        let hashes: Map<String, Value> = Stage::ALL
            .into_iter()
            .map(|stage| (stage.name().to_owned(), json!(self.recipe_hash(stage))))
            .collect();
        let content = json!({
            "name": self.recipe.name,
            HASHES: hashes,
            "version": env!("CARGO_PKG_VERSION"),
            "kernels": kernels,
        });
        // First what makes the directory a run's: whenever it is killed, it can be entered again.
        for (name, text) in [(RUN, format!("{content:#}\n")), (RECIPE, self.recipe.canonical())] {
            let path = self.out.join(name);
            if files::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                files::replace_bytes(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// Whether an entry is more than what a killed writer left.
fn is_of_somebody(entry: fs::DirEntry) -> bool {
    !files::is_partial(&entry.file_name())
}

fn read_run(path: &Path) -> Result<Value> {
    let text = files::read(path)?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::file(path, error.to_string(), "it is damaged: choose another --out, or put it back")
    })
}
