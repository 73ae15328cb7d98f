//! The int8 files of many runs in one process: what each answers, and how long it takes, in turns.

use super::trial_directory;
use crate::engine::{self, Variant};
use crate::failure::Failure;
use limbeck::report::latency::{Call, Plan, WallClock, interleaved};
use limbeck::report::measure::{Texts, answers};
use limbeck::stages::{Progress, Recipe, StageContext};
use limbeck::{Error, Result};
use limbeck_kernels::Kernels;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What files are measured with.
pub struct Bench<'a> {
    /// The sweep's directory.
    pub out: &'a Path,
    /// Texts, repetitions and warm-up.
    pub recipe: &'a Recipe,
    /// As in [`StageContext`].
    pub kernels: Kernels,
    /// As in [`StageContext`].
    pub threads: usize,
    /// As in [`StageContext`].
    pub progress: &'a dyn Progress,
    /// As in [`StageContext`].
    pub stop: &'a AtomicBool,
}

impl Bench<'_> {
    /// Opens a row of a trial's table, by its name, with the test texts as it reads them. `None` if there is no such row.
    ///
    /// # Errors
    /// Whatever is wrong with the file, the recipe beside it, or the texts.
    pub fn open(&self, id: &str, variant: &str) -> Result<Option<Variant>> {
        let directory = trial_directory(self.out, id);
        let recipe = Recipe::load(&directory.join("recipe.toml"), &[])?;
        let Bench { kernels, threads, progress, stop, .. } = *self;
        let (recipe, out) = (&recipe, directory.as_path());
        engine::variant(
            &StageContext { recipe, out, resume: true, kernels, threads, progress, stop },
            variant,
        )
    }

    /// The median milliseconds of each file for a text alone, all files taking turns.
    ///
    /// # Errors
    /// What a model cannot compute; a signal.
    pub fn milliseconds(&self, files: &mut [Variant]) -> Result<Vec<f64>, Failure> {
        let Some(texts) = files.iter().map(|file| file.texts.len()).min().filter(|texts| *texts > 0) else {
            return Ok(Vec::new());
        };
        let bench = &self.recipe.bench;
        let plan = Plan { inputs: bench.texts.min(texts), repeat: bench.repeat, warmup: bench.warmup };
        self.progress.begin(&format!("latency of {} files", files.len()), 0);
        let call = |Variant { model, texts, .. }: &mut Variant, text: usize| {
            Error::if_stopped(self.stop)?;
            model.logits(&[texts.text(text)]).map(drop)
        };
        let mut calls: Vec<Call<'_, Error>> =
            files.iter_mut().map(|file| Box::new(move |text| call(file, text)) as Call<'_, Error>).collect();
        let latencies = interleaved(plan, &mut WallClock::default(), &mut calls)?;
        self.progress.end();
        Ok(latencies.iter().map(|latency| latency.ms_p50).collect())
    }

    /// Whether a file classifies each test text rightly.
    ///
    /// # Errors
    /// What the model cannot compute; a signal.
    pub fn right(&self, name: &str, file: &mut Variant) -> Result<Vec<bool>, Failure> {
        Error::if_stopped(self.stop)?;
        let mut right = Vec::with_capacity(file.texts.len());
        self.progress.begin(&format!("evaluate {name}"), file.texts.len() as u64);
        answers(&mut *file.model, &*file.texts, self.progress, |_, label, predicted| {
            right.push(label == predicted);
        })?;
        self.progress.end();
        Ok(right)
    }
}
