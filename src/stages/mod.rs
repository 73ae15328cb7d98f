//! The four stages: train, prune, distil, quantize. Each takes an artifact from disk and gives an artifact
//! to disk; they share nothing in memory, so each can be run, stopped and resumed alone.
//!
//! A stage gets a [`StageContext`]: what to do (the recipe), where (the run's directory), and two lines to
//! the outside: [`Progress`], which it tells how far it is, and a flag, which a signal sets and which it polls
//! between optimizer steps and wherever else time passes. When the flag is set the stage saves its state, if it
//! has one, and returns [`Error::Interrupted`].
//!
//! ```text
//! recipe         what to do, key by key ─── sweep        many of them, as trials
//! run_directory  what is there, whose it is, whether a stage has still to run ─── run_lock   one process at a time
//! corpus         the texts, tokenized ─── teachers       who teaches ─── device   where it is computed
//! train, prune, distill ─── training   what they have in common ─── artifact   networks between them, on disk
//! quantize ─── mixed_precision   which bits for which matrix ─── export   other formats
//! controls       files beside the artifacts, to compare with ─── reuse   what trials of a sweep share
//! ```

pub mod artifact;
mod controls;
mod corpus;
mod device;
mod distill;
pub mod export;
mod mixed_precision;
mod prune;
mod quantize;
pub mod recipe;
mod reuse;
mod run_directory;
mod run_lock;
pub mod sweep;
mod teachers;
mod train;
mod training;

use crate::ranks::{ProcessGroup, SingleProcess};
pub use crate::train::Progress;
pub use crate::train::progress::{Silent, StepReport};
use crate::{Error, Result};
pub use controls::{Control, controls};
pub use corpus::{Corpus, test_texts};
pub use device::TrainingDevice;
pub use export::{ExportFormat, export};
use limbeck_kernels::Kernels;
pub use mixed_precision::{ScanContext, sensitivity};
pub use recipe::Recipe;
pub use run_lock::RunLock;
use std::path::Path;
use std::sync::atomic::AtomicBool;
pub use sweep::{Sweep, Trial};

/// The stages, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// A pretrained encoder, or a new one, learns the classes: the baseline.
    Train,
    /// Parts of the baseline are deleted or set to zero.
    Prune,
    /// What is left learns from the baseline.
    Distill,
    /// The result becomes an int8 `.limbeck` file.
    Quantize,
}

impl Stage {
    /// In the order in which they run.
    pub const ALL: [Stage; 4] = [Stage::Train, Stage::Prune, Stage::Distill, Stage::Quantize];

    /// The command that runs it.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Train => "train",
            Stage::Prune => "prune",
            Stage::Distill => "distill",
            Stage::Quantize => "quantize",
        }
    }

    /// The one before it, whose artifact it starts from.
    pub const fn parent(self) -> Option<Stage> {
        match self {
            Stage::Train => None,
            Stage::Prune => Some(Stage::Train),
            Stage::Distill => Some(Stage::Prune),
            Stage::Quantize => Some(Stage::Distill),
        }
    }

    /// Runs the stage: from the artifact of the one before it, on disk, to its own.
    ///
    /// # Errors
    /// Bad input; an artifact that is missing, damaged or of another run; divergence; a full disk; [`Error::Interrupted`] by a
    /// signal, with the state saved. See [`StageContext::enter`] for what is refused at once.
    pub fn run(self, context: &StageContext<'_>) -> Result<()> {
        match self {
            Stage::Train => train::train(context),
            Stage::Prune => prune::prune(context),
            Stage::Distill => distill::distill(context),
            // Nothing is trained: a process is enough.
            Stage::Quantize if !context.ranks.is_first() => Ok(()),
            Stage::Quantize => quantize::quantize(&StageContext { ranks: &SingleProcess, ..*context }),
        }
    }

    /// What its artifact is called in the table.
    pub const fn variant(self) -> &'static str {
        match self {
            Stage::Train => "baseline",
            Stage::Prune => "pruned",
            Stage::Distill => "distilled",
            Stage::Quantize => "int8",
        }
    }
}

/// All that a stage is told.
#[derive(Clone, Copy)]
pub struct StageContext<'a> {
    /// What to do.
    pub recipe: &'a Recipe,
    /// The run's directory: artifacts, logs, report.
    pub out: &'a Path,
    /// Go on from the state saved in `out`, rather than refuse a directory that holds a run.
    pub resume: bool,
    /// The kernel row to compute with, on the CPU.
    pub kernels: Kernels,
    /// Where to train.
    pub device: &'a TrainingDevice,
    /// Threads to compute with, 1 or more.
    pub threads: usize,
    /// The processes that train together; the first writes.
    pub ranks: &'a dyn ProcessGroup,
    /// Told how far the stage is.
    pub progress: &'a dyn Progress,
    /// Set by a signal: save, and return [`Error::Interrupted`].
    pub stop: &'a AtomicBool,
}

impl StageContext<'_> {
    /// Ends whatever has no state to save, if a signal has asked for it.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check_stop(&self) -> Result<()> {
        Error::if_stopped(self.stop)
    }
}
