//! `limbeck bench --train`: how long a training step takes.
//!
//! A step is what a training does, again and again on one batch: forward with dropout, cross-entropy, backward,
//! clipping, AdamW. The texts are the first ones of a file, tokenized before the clock starts.

use super::super::BUILD;
use super::interactive::serve;
use crate::cli::{self, Bench, Device, Precision};
use crate::engine;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::backend::cuda::probe::probe;
use limbeck::backend::cuda::{Options, Storage};
use limbeck::backend::{Cpu, Cuda, Repeats};
use limbeck::checkpoint::HfDirectory;
use limbeck::data::{TableOptions, TableSource};
use limbeck::ops::Backend;
use limbeck::ops::noise::Noise;
use limbeck::report::cells::aligned;
use limbeck::report::{Latency, Machine};
use limbeck::stages::artifact;
use limbeck::stages::recipe::tables::Train;
use limbeck::train::{Learner, Lesson, Step};
use limbeck::{Batch, Error};
use limbeck_kernels::{Kernels, gemm};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

// Unless others are asked for: texts a step, untimed and timed steps, tokens of the longest text.
const BATCH: u32 = 32;
const WARMUP: u32 = 2;
const REPEAT: u32 = 10;
const MAX_TOKENS: usize = 256;

/// Small enough that a bench of any length does no harm to a model.
const LEARNING_RATE: f64 = 2e-5;
const SEED: u64 = 0;

pub fn train(typed: &Bench) -> Result<(), Failure> {
    let ([model], Some(data)) = (typed.model.as_slice(), &typed.data) else {
        return Err(Failure::Usage("--train: give one model, and texts with --data FILE".into()));
    };
    let (kernels, threads) = (Kernels::select()?, cli::threads(typed.threads));
    set_threads(threads)?;
    match typed.device {
        Device::Cpu => {
            let device = Cpu::new(kernels).with_precision(match typed.precision {
                Precision::F32 => gemm::Precision::F32,
                Precision::Bf16 => gemm::Precision::Bf16,
                Precision::F16 => {
                    return Err(Failure::Usage("--precision f16: the CPU does not train in it".into()));
                }
            });
            measure(
                typed,
                kernels,
                kernels.isa().name().to_owned(),
                Steps::prepare(typed, model, data, device)?,
            )
        }
        Device::Cuda => {
            let storage = match typed.precision {
                Precision::F32 => Storage::F32,
                Precision::Bf16 => Storage::Bf16,
                Precision::F16 => Storage::F16,
            };
            let cache = Some(engine::usual_cache().join("cuda"));
            let found = probe()?.swap_remove(0);
            let device = Cuda::open(&Options { storage, cache, ..Options::default() })?;
            measure(typed, kernels, found.to_string(), Steps::prepare(typed, model, data, device)?)
        }
    }
}

/// Measures steps on the device of that name.
fn measure<B: Backend>(
    typed: &Bench,
    kernels: Kernels,
    device: String,
    mut steps: Steps<B>,
) -> Result<(), Failure> {
    let threads = cli::threads(typed.threads);
    let about = json!({
        "name": "limbeck",
        "version": BUILD.version,
        "kernels": device,
        "precision": typed.precision.name(),
        "threads": threads,
        "rows": steps.lesson.batch.texts(),
        "tokens": steps.lesson.batch.tokens(),
        "parameters": steps.learner.params.iter().map(|(_, param)| param.spec.len()).sum::<usize>(),
    });
    if typed.interactive {
        return serve(&about, || {
            let (step, spent) = steps.next()?;
            let tokens = steps.lesson.batch.tokens();
            Ok(json!({ "seconds": spent.as_secs_f64(), "tokens": tokens, "loss": step.loss }))
        });
    }
    let mut timings = Vec::new();
    let mut losses = Vec::new();
    let warmup = typed.warmup.unwrap_or(WARMUP);
    for number in 0..warmup + typed.repeat.unwrap_or(REPEAT) {
        let (step, spent) = steps.next()?;
        losses.push(step.loss);
        if number >= warmup {
            timings.push(spent);
        }
    }
    let latency = Latency::of(&mut timings);
    let per_second = steps.lesson.batch.tokens() as f64 / (1e-3 * latency.ms_p50);
    let repeats = steps.learner.backend.repeats();
    let mut output = Output::new();
    if typed.json {
        output.json(&json!({
            "step": about,
            "step_ms_p50": latency.ms_p50,
            "step_ms_p95": latency.ms_p95,
            "tokens_per_second": per_second,
            "losses": losses,
            "graphs": repeats.map(|repeats| json!({
                "made": repeats.captured,
                "steps_replayed": repeats.replayed,
                "steps_launched": repeats.ordinary,
            })),
            "machine": Machine::here(kernels, threads, BUILD),
        }))?;
        return output.flush();
    }
    let batch = &steps.lesson.batch;
    output.text(format!(
        "{}\n{device}; {} texts, {} tokens, {} steps\n\n",
        Machine::here(kernels, threads, BUILD),
        batch.texts(),
        batch.tokens(),
        latency.calls
    ))?;
    let lines = [
        ["training step", "p50 ms", "p95 ms", "tokens/s", "loss: first", "last"].map(str::to_owned),
        [
            typed.precision.name().to_owned(),
            format!("{:.1}", latency.ms_p50),
            format!("{:.1}", latency.ms_p95),
            format!("{per_second:.0}"),
            format!("{:.4}", losses[0]),
            format!("{:.4}", losses[losses.len() - 1]),
        ],
    ];
    output.text(aligned(&lines))?;
    if let Some(Repeats { captured, replayed, ordinary, .. }) = repeats {
        output.text(format!(
            "\nCUDA graphs: {captured} made, {replayed} of {} steps were launches of one.\n",
            replayed + ordinary
        ))?;
    }
    output.flush()
}

/// A learner and what it learns, over and over.
struct Steps<B: Backend> {
    learner: Learner<B>,
    lesson: Lesson,
}

impl<B: Backend> Steps<B> {
    fn prepare(typed: &Bench, model: &Path, data: &Path, device: B) -> Result<Steps<B>, Failure> {
        let directory = HfDirectory::open(model)?;
        let tokenizer = directory.tokenizer()?;
        let positions = directory.config.positions;
        let max_tokens = typed.max_tokens.map_or(MAX_TOKENS.min(positions), |typed| typed as usize);
        if max_tokens > positions {
            let problem =
                format!("--max-tokens {max_tokens}: the model reads {positions}; make it at most that");
            return Err(Failure::Usage(problem));
        }
        let table = TableSource::open(data, &TableOptions::default())?;
        let mut batch = Batch::new();
        let mut labels = Vec::new();
        for (row, sample) in table.first(typed.batch.unwrap_or(BATCH) as usize).read()?.zip(0..) {
            let row = row?;
            batch.push(&tokenizer.encode(&row.text, max_tokens)[..], sample);
            labels.push(row.label);
        }
        // An encoder without a head, or with one for other classes, gets a new one.
        let mut config = directory.config.clone();
        let fresh_head = config.labels != table.labels().names();
        if fresh_head {
            config.labels = table.labels().names().to_vec();
        }
        let source = Some((&directory, fresh_head));
        let learner = artifact::learner(&device, &config, source, SEED, &Train::default())?;
        Ok(Steps { learner, lesson: Lesson { batch, labels, teacher: None } })
    }

    /// One step, and how long it took.
    fn next(&mut self) -> Result<(Step, Duration), Error> {
        let noise = Noise { seed: SEED, step: self.learner.optimizer.steps() };
        let start = Instant::now();
        let step = self.learner.step(&self.lesson, Some(noise), LEARNING_RATE, None)?;
        Ok((step, start.elapsed()))
    }
}
