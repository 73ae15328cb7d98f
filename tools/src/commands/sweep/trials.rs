//! Runs trials, one after the other, each in a directory that it holds while it works.

use super::Compute;
use super::record::{Record, trial_directory};
use crate::commands::stages::{REPORT, complete, is_full, mend_full_disk};
use crate::failure::Failure;
use limbeck::report::Table;
use limbeck::stages::{Control, Recipe, RunLock, Silent, Stage, StageContext, Trial};
use limbeck::{Error, files};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks at a baseline that another process trains.
const PAUSE: Duration = Duration::from_millis(200);

/// What trials are run with.
pub struct Runner<'a> {
    /// How.
    pub compute: Compute<'a>,
    /// What shared baselines are called.
    pub name: &'a str,
}

/// How an attempt at a trial ended, if nothing stopped the sweep.
enum Outcome {
    /// It is finished, has failed and says so in its record, or is another process's.
    Settled,
    /// Its baseline is being trained by another process.
    Waiting,
}

impl Runner<'_> {
    /// Tries all of `trials`. Those that fail stop no other.
    ///
    /// # Errors
    /// A signal; a full disk.
    pub fn all(&self, trials: &[&Trial]) -> Result<(), Failure> {
        let mut left: VecDeque<&Trial> = trials.iter().copied().collect();
        let (mut waiting, mut is_told) = (0, false);
        while let Some(trial) = left.pop_front() {
            Error::if_stopped(self.compute.stop)?;
            let number = trials.iter().position(|other| other.id == trial.id).unwrap_or(0) + 1;
            match self.attempt(trial, number, trials.len())? {
                Outcome::Settled => (waiting, is_told) = (0, false),
                Outcome::Waiting => {
                    left.push_back(trial);
                    waiting += 1;
                    if waiting >= left.len() && !is_told {
                        let message = "waiting for another process, which trains the baseline";
                        self.compute.progress.message(&format!("trial {}: {message}", trial.id));
                        is_told = true;
                    }
                    // Whatever is left waits: there is nothing to do meanwhile.
                    if waiting >= left.len() {
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        }
        Ok(())
    }

    fn attempt(&self, trial: &Trial, number: usize, all: usize) -> Result<Outcome, Failure> {
        let (id, directory) = (&trial.id, trial_directory(self.compute.out, &trial.id));
        let alone = match RunLock::take(&directory) {
            Err(Error::Occupied { .. }) => {
                self.compute.progress.message(&format!("trial {id}: another process works on it"));
                return Ok(Outcome::Settled);
            }
            taken => taken,
        };
        let mut record = Record::of(trial);
        if let Some(before) =
            Record::load(self.compute.out, id).filter(|before| before.is_of(trial) && before.final_error)
        {
            self.compute.progress.message(&format!("trial {id}: {}", before.error.unwrap_or_default()));
            return Ok(Outcome::Settled);
        }
        record.save(self.compute.out)?;
        let done = alone.map_err(Failure::from).and_then(|_alone| self.run(trial, &directory, number, all));
        let error = match done {
            Ok(outcome) => return Ok(outcome),
            Err(Failure::Failed(error @ Error::Interrupted { .. })) => return Err(error.into()),
            Err(Failure::Failed(Error::Io { path, action, source })) if is_full(&source) => {
                return Err(mend_full_disk(Failure::Failed(Error::Io { path, action, source })));
            }
            Err(Failure::Failed(error)) => error,
            Err(other) => return Err(other),
        };
        record.final_error = matches!(error, Error::Diverged { .. });
        record.error = Some(error.to_string());
        record.save(self.compute.out)?;
        self.compute.progress.message(&format!("trial {id} failed: {error}"));
        Ok(Outcome::Settled)
    }

    fn run(&self, trial: &Trial, directory: &Path, number: usize, all: usize) -> Result<Outcome, Failure> {
        let context = self.compute.context(&trial.recipe, directory);
        let finished = Stage::ALL.iter().all(|stage| context.artifact(*stage).exists());
        // Controls may have been asked for since, or their files lost.
        let mut controls = Control::ALL.into_iter().filter(|control| control.is_wanted(&context));
        let has = |table: &Table, name: &str| table.rows.iter().any(|row| row.variant == name);
        let reported = Table::load(&directory.join(REPORT)).is_ok_and(|table| {
            controls.all(|control| has(&table, control.variant()) && control.path(&context).exists())
        });
        if finished && reported {
            // Entered, each stage says whether what is there is whole and of this recipe.
            let quiet = StageContext { progress: &Silent, ..context };
            Stage::ALL.iter().try_for_each(|stage| stage.run(&quiet))?;
            return Ok(Outcome::Settled);
        }
        let recipe = Recipe { name: self.name.to_owned(), ..trial.recipe.clone() };
        let shared = self.baseline_directory(&context);
        let baseline = self.compute.context(&recipe, &shared);
        if !context.artifact(Stage::Train).exists() {
            let _alone = match RunLock::take(&shared) {
                Err(Error::Occupied { .. }) => return Ok(Outcome::Waiting),
                taken => taken?,
            };
            self.compute.progress.message(&format!("trial {number} of {all}: {}", trial.id));
            Stage::Train.run(&baseline)?;
            context.reuse_artifact(Stage::Train, &baseline)?;
        } else {
            self.compute.progress.message(&format!("trial {number} of {all}: {}", trial.id));
        }
        context.share_cache(&baseline)?;
        complete(&context)?;
        baseline.share_cache(&context)?;
        Ok(Outcome::Settled)
    }

    /// Where the baseline of a trial is trained: other settings, or other kernels, have another place.
    fn baseline_directory(&self, context: &StageContext<'_>) -> PathBuf {
        let decided = format!("{} {}", context.recipe_hash(Stage::Train), context.kernels_name());
        self.compute.out.join("baselines").join(&files::sha256(decided.as_bytes())[..16])
    }
}
