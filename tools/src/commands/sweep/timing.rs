//! The int8 files of many runs in one process: what each answers, and how long it takes, in turns.

use super::Compute;
use super::record::trial_directory;
use crate::commands::stages::plan;
use crate::engine::{self, Variant};
use crate::failure::Failure;
use limbeck::checkpoint::HfDirectory;
use limbeck::models::Classifier;
use limbeck::report::FinishedTrial;
use limbeck::report::latency::WallClock;
use limbeck::report::measure::{Texts, answers, latencies};
use limbeck::stages::{Recipe, Stage};
use limbeck::{Error, Result};

/// What files are measured with.
pub struct Bench<'a> {
    /// As the trials were computed.
    pub compute: Compute<'a>,
    /// Texts, repetitions and warm-up.
    pub recipe: &'a Recipe,
}

impl Bench<'_> {
    /// Opens a row of a trial's table, by its name, with the test texts as it reads them. `None` if there is no such row.
    ///
    /// # Errors
    /// Whatever is wrong with the file, the recipe beside it, or the texts.
    pub fn open(&self, id: &str, variant: &str) -> Result<Option<Variant>> {
        let directory = trial_directory(self.compute.out, id);
        let recipe = Recipe::load(&directory.join("recipe.toml"), &[])?;
        engine::variant(&self.compute.context(&recipe, &directory), variant)
    }

    /// Multiply-adds of a trial's baseline for a text of the test texts' mean length; `None` if its report does not tell it.
    ///
    /// # Errors
    /// The baseline's configuration cannot be read.
    pub fn multiply_adds_of_baseline(&self, trial: &FinishedTrial) -> Result<Option<u64>> {
        let row = &trial.table.rows[0];
        let Some(tokens) = row.tokens else { return Ok(None) };
        let directory = trial_directory(self.compute.out, &trial.id);
        let config =
            HfDirectory::open(&self.compute.context(self.recipe, &directory).artifact(Stage::Train))?.config;
        let tokens = (tokens / row.texts.max(1)) as usize;
        let parts = Classifier::new(&config).0.parts().into_iter();
        Ok(Some(parts.map(|part| part.kind.multiply_adds(&config, tokens)).sum()))
    }

    /// The median milliseconds of each file for a text alone, all files taking turns.
    ///
    /// # Errors
    /// What a model cannot compute; a signal.
    pub fn milliseconds(&self, files: &mut [Variant]) -> Result<Vec<f64>, Failure> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let (progress, stop) = (self.compute.progress, self.compute.stop);
        progress.begin(&format!("latency of {} files", files.len()), 0);
        let mut measured: Vec<_> = files.iter_mut().map(Variant::measured).collect();
        let plan = plan(&self.recipe.bench);
        let latencies = latencies(&mut measured, plan, &mut WallClock::default(), stop)?;
        progress.end();
        Ok(latencies.iter().map(|latency| latency.ms_p50).collect())
    }

    /// Whether a file classifies each test text rightly.
    ///
    /// # Errors
    /// What the model cannot compute; a signal.
    pub fn right(&self, name: &str, file: &mut Variant) -> Result<Vec<bool>, Failure> {
        Error::if_stopped(self.compute.stop)?;
        let mut right = Vec::with_capacity(file.texts.len());
        let progress = self.compute.progress;
        progress.begin(&format!("evaluate {name}"), file.texts.len() as u64);
        answers(&mut *file.model, &*file.texts, progress, |_, label, predicted| {
            right.push(label == predicted);
        })?;
        progress.end();
        Ok(right)
    }
}
