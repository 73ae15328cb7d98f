//! `limbeck run`, and each stage alone: `train`, `prune`, `distill`, `quantize`.

use super::{BUILD, gate};
use crate::cli::{self, Run, StageOptions};
use crate::failure::Failure;
use crate::output::Output;
use crate::{engine, progress, signals};
use limbeck::Error;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::ranks::{self, Launch, SingleProcess};
use limbeck::report::latency::{Plan, WallClock};
use limbeck::report::measure::measure;
use limbeck::report::{Machine, Report};
use limbeck::stages::{Recipe, RunLock, Stage, StageContext, recipe};
use limbeck_kernels::Kernels;
use std::io::{self, ErrorKind};
use std::path::Path;

/// What a run leaves at its end.
pub const REPORT: &str = "report.json";

/// All four stages, then the table.
pub fn run(typed: &Run) -> Result<(), Failure> {
    in_context(&typed.options, typed.recipe.as_deref(), |context| {
        let Some(report) = complete(context)? else { return Ok(()) };
        let table = report.table();
        let mut output = Output::new();
        if typed.options.common.json {
            output.json(&table)?;
        } else {
            output.text(&table)?;
        }
        output.flush()?;
        let accuracy = |stage: Stage| {
            let row = report.rows.iter().find(|row| row.variant == stage.variant());
            row.expect("a row for each stage").confusion.accuracy()
        };
        gate(accuracy(Stage::Train), accuracy(Stage::Quantize), typed.max_drop)
    })
}

/// All four stages, and the measurements, which are kept as `report.json`: by the first of several processes alone.
pub fn complete(context: &StageContext<'_>) -> Result<Option<Report>, Failure> {
    for stage in Stage::ALL {
        stage.run(context)?;
    }
    if !context.ranks.is_first() {
        return Ok(None);
    }
    let context = &StageContext { ranks: &SingleProcess, ..*context };
    limbeck::stages::controls(context)?;
    let report = report(context)?;
    report.table().save(&context.out.join(REPORT))?;
    Ok(Some(report))
}

/// One stage: artifact in, artifact out.
pub fn one(stage: Stage, typed: &cli::Stage) -> Result<(), Failure> {
    in_context(&typed.options, Some(&typed.recipe), |context| Ok(stage.run(context)?))
}

/// Reads the recipe, takes the run's directory, and calls `act` with all that a stage is told.
fn in_context(
    options: &StageOptions,
    file: Option<&Path>,
    act: impl FnOnce(&StageContext<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let recipe = options.recipe(file)?;
    let kernels = Kernels::select()?;
    let out = options.out(&recipe);
    let launch = Launch::of_environment()?;
    // The first speaks for all.
    let progress = progress::choose(options.common.quiet || launch.rank > 0);
    if let Some(waiting) = launch.waiting() {
        progress.message(&waiting);
    }
    let ranks = ranks::join(&launch)?;
    let ranks = &*ranks;
    let mut lock = None;
    ranks.from_first(|| {
        lock = Some(RunLock::take(&out)?);
        Ok(())
    })?;
    let stop = signals::stop_flag()?;
    let threads = cli::threads(recipe.threads);
    set_threads(threads)?;
    let device = options.common.training_device(launch.local_rank)?;
    if let Some(remark) = device.join(ranks)? {
        progress.message(remark);
    }
    let context = StageContext {
        recipe: &recipe,
        out: &out,
        resume: options.resume,
        kernels,
        device: &device,
        threads,
        ranks,
        progress: &*progress,
        stop: &stop,
    };
    context.agree()?;
    let done = act(&context);
    if done.is_ok() {
        ranks.leave();
    }
    done.map_err(mend_full_disk)
}

/// Adds how to go on to what the operating system says of a disk that is full.
pub fn mend_full_disk(failure: Failure) -> Failure {
    match failure {
        Failure::Failed(Error::Io { path, action, source }) if is_full(&source) => {
            let mended = format!("{source}; make room, and go on with --resume: what is done is kept");
            Failure::Failed(Error::Io { path, action, source: io::Error::new(source.kind(), mended) })
        }
        other => other,
    }
}

/// Whether a disk has no room, so that nothing else could be written either.
pub fn is_full(error: &io::Error) -> bool {
    [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge].contains(&error.kind())
}

/// How a recipe wants latencies taken.
pub fn plan(bench: &recipe::Bench) -> Plan {
    Plan { inputs: bench.texts, repeat: bench.repeat, warmup: bench.warmup }
}

/// Measures what the stages left in the run's directory.
fn report(context: &StageContext<'_>) -> Result<Report, Failure> {
    let Recipe { bench, name, seed, .. } = context.recipe;
    let mut opened = engine::variants(context)?;
    let mut variants: Vec<_> = opened.iter_mut().map(engine::Variant::measured).collect();
    let mut clock = WallClock::default();
    let rows = measure(&mut variants, Some((plan(bench), &mut clock)), context.progress, context.stop)?;
    let machine = Machine::here(context.kernels, context.threads, BUILD);
    Ok(Report { recipe: name.clone(), machine, seed: *seed, latency_threads: engine::LATENCY_THREADS, rows })
}
