//! `limbeck sweep`, as it is typed.

use super::Common;
use super::recipe::with_paths;
use super::values::points;
use crate::failure::Failure;
use clap::{Args, Subcommand};
use limbeck::stages;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

const SWEEP: &str = "\
A recipe with a table [sweep] (seeds, grid, random, trials), or a file of such a table with `base = \"recipe.toml\"`, or
`recipes = [\"one.toml\", \"other.toml\"]`:

  [sweep]
  base  = \"agnews.toml\"                 # beside this file
  seeds = [1, 2, 3]                     # every setting with each
  [sweep.grid]                          # all combinations
  \"prune.heads\" = [0.2, 0.4, 0.6]
  [sweep.random]                        # with `trials = 20` in [sweep]: so many draws
  \"distill.alpha\" = { low = 0.3, high = 1.0 }
  \"train.learning_rate\" = { low = 1e-5, high = 1e-3, scale = \"log\" }

Each trial is a run in DIR/trials/ID, which `limbeck report` and `eval` read like any other. The same command goes on
with what was stopped, and does what was added to the file. As an array of jobs: --index I --of N, on any machines that
share DIR; a trial that another process works on is left to it.";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = SWEEP)]
pub struct Sweep {
    /// Recipe with a table [sweep]; with --ablate any recipe
    #[arg(required = true)]
    pub recipe: Option<PathBuf>,
    /// Try the recipe as it is, and without each of its terms: what did each contribute?
    #[arg(long)]
    pub ablate: bool,
    /// Run only the trials whose number, from 0, leaves this remainder when divided by --of
    #[arg(long, value_name = "I", requires = "of")]
    pub index: Option<usize>,
    /// How many jobs share the trials
    #[arg(long, value_name = "N", requires = "index")]
    pub of: Option<NonZeroUsize>,
    /// Print the trials, and how far each is, and run none
    #[arg(long)]
    pub dry_run: bool,
    /// Fail with exit code 3 if no setting has an int8 file at most so many points of accuracy below its baseline
    #[arg(long, value_name = "POINTS", value_parser = points, allow_negative_numbers = true)]
    pub max_drop: Option<f64>,
    /// Model to start from: a Hugging Face directory (recipe key model.path)
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Directory of the data files (recipe key data.dir)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Directory of the sweep; default: runs/, the recipe's name, and -sweep or -ablation
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Any recipe key, or a key of [sweep] as sweep.trials=40; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Go on from what the sweep's directory holds; this is so without it, too
    #[arg(long)]
    #[allow(dead_code, reason = "accepted for those who type it with every command; there is no other way")]
    pub resume: bool,
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<SweepCommand>,
}

#[derive(Debug, Subcommand)]
pub enum SweepCommand {
    /// What the finished trials of a sweep cost and are worth: table, JSON, picture
    Report(SweepReport),
}

#[derive(Debug, Args)]
pub struct SweepReport {
    /// The sweep's directory
    pub sweep: PathBuf,
    /// Row of the runs' tables that is compared, as `pruned`: what there was before distillation
    #[arg(long, value_name = "NAME", default_value = limbeck::stages::Stage::Quantize.variant())]
    pub variant: String,
    /// Do not time the trials against each other
    #[arg(long)]
    pub no_latency: bool,
    /// Put the table, as Markdown, between the lines `<!-- table:NAME begin -->` and `<!-- table:NAME end -->` of this document, NAME
    /// being the sweep's, with `-pruned` behind it for `--variant pruned`, and so on, and of an ablation `-ablation`
    #[arg(long, value_name = "DOCUMENT", conflicts_with = "json")]
    pub into: Option<PathBuf>,
    /// Fail with exit code 3 if no setting has an int8 file at most so many points of accuracy below its baseline
    #[arg(long, value_name = "POINTS", value_parser = points, allow_negative_numbers = true)]
    pub max_drop: Option<f64>,
    #[command(flatten)]
    pub common: Common,
}

impl Sweep {
    /// The sweep with everything that was typed applied.
    ///
    /// # Errors
    /// Those of [`stages::Sweep::load`]; wrong use, if it was typed rather than in the file: what is refused with all
    /// that was typed, and would not be without; a path that is not UTF-8.
    pub fn plan(&self) -> Result<stages::Sweep, Failure> {
        let file = self.recipe.as_deref().expect("required without a subcommand");
        let ablate = self.ablate.then(|| "sweep.ablate=true".to_owned());
        let mut typed = with_paths(&self.set, self.model.as_deref(), self.data.as_deref())?;
        typed.extend(self.common.threads.map(|threads| format!("threads={threads}")));
        typed.extend(ablate.clone());
        stages::Sweep::load(file, &typed).map_err(|error| {
            let bare: Vec<String> = ablate.into_iter().collect();
            match stages::Sweep::load(file, &bare) {
                Ok(_) => Failure::Usage(error.to_string()),
                Err(_) => error.into(),
            }
        })
    }

    /// The sweep's directory.
    pub fn out(&self, plan: &stages::Sweep) -> PathBuf {
        let kind = if plan.ablation { "ablation" } else { "sweep" };
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("{}-{kind}", plan.recipe.name)))
    }

    /// Whether a trial of this number is this job's.
    ///
    /// # Errors
    /// Wrong use: an index beyond the number of jobs. They may be counted from 0 or from 1.
    pub fn part(&self) -> Result<impl Fn(usize) -> bool, Failure> {
        let (index, of) = (self.index.unwrap_or(0), self.of.map_or(1, NonZeroUsize::get));
        if index > of {
            return Err(Failure::Usage(format!(
                "--index {index} --of {of}: jobs are numbered from 0 or from 1"
            )));
        }
        Ok(move |number: usize| number % of == index % of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn files(folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
    }

    #[test]
    fn every_sweep_reads_and_every_recipe_has_terms_to_remove() {
        let ablate = ["sweep.ablate=true".to_owned()];
        for (folder, typed) in [("sweeps", &[][..]), ("recipes", &ablate[..])] {
            let files = files(folder);
            assert!(!files.is_empty());
            for path in files {
                let sweep = stages::Sweep::load(&path, typed).unwrap_or_else(|error| panic!("{error}"));
                assert!(sweep.trials.len() > 1, "{}", path.display());
            }
        }
    }
}
