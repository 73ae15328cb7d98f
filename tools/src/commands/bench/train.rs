//! `limbeck bench --train`: how long a training step takes.
//!
//! A step is what a training does, again and again on one batch: forward with dropout, cross-entropy, backward,
//! clipping, AdamW. The texts are the first ones of a file, tokenized before the clock starts. With a teacher, a step
//! begins with the teacher's logits for them.

use super::super::BUILD;
use super::interactive::serve;
use crate::cli::{self, Device, Precision};
use crate::engine;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::backend::cuda::Options;
use limbeck::backend::cuda::probe::probe;
use limbeck::backend::{Cpu, Cuda, Repeats};
use limbeck::checkpoint::HfDirectory;
use limbeck::data::{TableOptions, TableSource};
use limbeck::ops::Backend;
use limbeck::ops::dropout::DropoutSeed;
use limbeck::ops::loss::Distillation;
use limbeck::report::cells::aligned;
use limbeck::report::{Latency, Machine};
use limbeck::stages::artifact;
use limbeck::stages::recipe::tables::{Train, TrainPrecision};
use limbeck::train::{Examples, Learner, Step};
use limbeck::{Batch, Error};
use limbeck_kernels::Kernels;
use serde_json::{Value, json};
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

/// How a teacher counts, where there is one.
const DISTILLATION: Distillation = Distillation { temperature: 4.0, alpha: 0.7 };

pub fn train(typed: &cli::Bench) -> Result<(), Failure> {
    let ([model], Some(data)) = (typed.model.as_slice(), &typed.data) else {
        return Err(Failure::Usage("--train: give one model, and texts with --data FILE".into()));
    };
    let (kernels, threads) = (Kernels::select()?, cli::threads(typed.threads));
    set_threads(threads)?;
    // As a recipe that does not say.
    let usual = match typed.device {
        Device::Cpu => Precision::F32,
        Device::Cuda => Precision::Bf16,
    };
    let named = typed.precision.unwrap_or(usual);
    let precision = match named {
        Precision::F32 => TrainPrecision::F32,
        Precision::Bf16 => TrainPrecision::Bf16,
        Precision::F16 => TrainPrecision::F16,
    };
    let machine = Machine::here(kernels, threads, BUILD);
    match typed.device {
        Device::Cpu => {
            let Some(precision) = precision.on_cpu() else {
                return Err(Failure::Usage(
                    "--precision f16: the CPU does not train in it; use bf16 or f32, or --device cuda".into(),
                ));
            };
            let device = Cpu::new(kernels).with_precision(precision);
            let name = kernels.isa().name().to_owned();
            let (precision, steps) = (named.name(), Steps::prepare(typed, model, data, device)?);
            Bench { typed, machine, device: name, precision, steps }.run()
        }
        Device::Cuda => {
            let cache = Some(engine::usual_cache().join("cuda"));
            let name = probe()?.swap_remove(0).to_string();
            let device = Cuda::open(&Options { storage: precision.on_gpu(), cache, ..Options::default() })?;
            let (precision, steps) = (named.name(), Steps::prepare(typed, model, data, device)?);
            Bench { typed, machine, device: name, precision, steps }.run()
        }
    }
}

/// What is measured, and on what.
struct Bench<'a, B: Backend> {
    typed: &'a cli::Bench,
    machine: Machine,
    /// The CPU's kernels, or the GPU.
    device: String,
    precision: &'static str,
    steps: Steps<B>,
}

/// What was measured.
struct Measured {
    latency: Latency,
    /// Of all steps, untimed ones too.
    losses: Vec<f64>,
}

impl<B: Backend> Bench<'_, B> {
    fn run(mut self) -> Result<(), Failure> {
        if self.typed.interactive {
            return self.serve();
        }
        let measured = self.measure()?;
        let mut output = Output::new();
        match self.typed.json {
            true => output.json(&self.json(&measured))?,
            false => output.text(self.text(&measured))?,
        }
        output.flush()
    }

    /// A step for each line of standard input.
    fn serve(mut self) -> Result<(), Failure> {
        let about = self.about();
        serve(&about, || {
            let (step, spent) = self.steps.next()?;
            let tokens = self.steps.examples.batch.tokens();
            Ok(json!({ "seconds": spent.as_secs_f64(), "tokens": tokens, "loss": step.loss }))
        })
    }

    fn measure(&mut self) -> Result<Measured, Failure> {
        let (mut timings, mut losses) = (Vec::new(), Vec::new());
        let (warmup, repeat) = (self.typed.warmup.unwrap_or(WARMUP), self.typed.repeat.unwrap_or(REPEAT));
        for number in 0..warmup + repeat {
            let (step, spent) = self.steps.next()?;
            losses.push(step.loss);
            if number >= warmup {
                timings.push(spent);
            }
        }
        Ok(Measured { latency: Latency::of(&mut timings), losses })
    }

    fn about(&self) -> Value {
        let Steps { learner, examples, .. } = &self.steps;
        json!({
            "name": "limbeck",
            "version": BUILD.version,
            "kernels": self.device,
            "precision": self.precision,
            "teacher": self.typed.teacher,
            "threads": cli::threads(self.typed.threads),
            "rows": examples.batch.texts(),
            "tokens": examples.batch.tokens(),
            "parameters": learner.params.iter().map(|(_, param)| param.spec.len()).sum::<usize>(),
        })
    }

    fn tokens_per_second(&self, latency: &Latency) -> f64 {
        self.steps.examples.batch.tokens() as f64 / (1e-3 * latency.ms_p50)
    }

    fn json(&self, Measured { latency, losses }: &Measured) -> Value {
        json!({
            "step": self.about(),
            "step_ms_p50": latency.ms_p50,
            "step_ms_p95": latency.ms_p95,
            "tokens_per_second": self.tokens_per_second(latency),
            "losses": losses,
            "graphs": self.steps.learner.backend.repeats().map(|repeats| json!({
                "made": repeats.captured,
                "steps_replayed": repeats.replayed,
                "steps_launched": repeats.ordinary,
            })),
            "machine": self.machine,
        })
    }

    fn text(&self, Measured { latency, losses }: &Measured) -> String {
        let batch = &self.steps.examples.batch;
        let (texts, tokens, calls) = (batch.texts(), batch.tokens(), latency.calls);
        let step = if self.typed.teacher.is_some() { "distillation step" } else { "training step" };
        let lines = [
            [step, "p50 ms", "p95 ms", "tokens/s", "loss: first", "last"].map(str::to_owned),
            [
                self.precision.to_owned(),
                format!("{:.1}", latency.ms_p50),
                format!("{:.1}", latency.ms_p95),
                format!("{:.0}", self.tokens_per_second(latency)),
                format!("{:.4}", losses[0]),
                format!("{:.4}", losses[losses.len() - 1]),
            ],
        ];
        let mut text = format!(
            "{}\n{}; {texts} texts, {tokens} tokens, {calls} steps\n\n{}",
            self.machine,
            self.device,
            aligned(&lines)
        );
        if let Some(Repeats { captured, replayed, ordinary, .. }) = self.steps.learner.backend.repeats() {
            let all = replayed + ordinary;
            text +=
                &format!("\nCUDA graphs: {captured} made, {replayed} of {all} steps were launches of one.\n");
        }
        text
    }
}

/// A network of `classes`: an encoder without a head, or with one for other classes, gets a new one.
fn learner<B: Backend>(device: &B, directory: &HfDirectory, classes: &[String]) -> Result<Learner<B>, Error> {
    let mut config = directory.config.clone();
    let fresh_head = config.labels != classes;
    if fresh_head {
        config.labels = classes.to_vec();
    }
    artifact::learner(device, &config, Some((directory, fresh_head)), SEED, &Train::default())
}

/// A learner and what it learns, over and over.
struct Steps<B: Backend> {
    learner: Learner<B>,
    examples: Examples,
    /// Answers the examples before each step.
    teacher: Option<Learner<B>>,
}

impl<B: Backend> Steps<B> {
    fn prepare(typed: &cli::Bench, model: &Path, data: &Path, device: B) -> Result<Steps<B>, Failure> {
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
        let classes = table.labels().names();
        let learner = learner(&device, &directory, classes)?;
        let teacher = typed.teacher.as_ref().map(|teacher| {
            let directory = HfDirectory::open(teacher)?;
            let longest = (0..batch.texts()).map(|text| batch.text(text).len()).max().unwrap_or(0);
            if directory.config.positions < longest || directory.config.vocab < learner.model.config.vocab {
                let problem = format!("reads {} tokens and {} pieces", directory.config.positions, directory.config.vocab);
                let mend = format!("choose a teacher of the same pieces that reads {longest} tokens, or a smaller --max-tokens");
                return Err(Error::file(teacher, problem, mend));
            }
            self::learner(&device, &directory, classes)
        });
        let teacher = teacher.transpose()?;
        Ok(Steps { learner, examples: Examples { batch, labels, teacher: None }, teacher })
    }

    /// One step, and how long it took.
    fn next(&mut self) -> Result<(Step, Duration), Error> {
        let noise = DropoutSeed { seed: SEED, step: self.learner.optimizer.steps() };
        let start = Instant::now();
        if let Some(teacher) = &self.teacher {
            self.examples.teacher = Some((teacher.logits(&self.examples.batch)?, DISTILLATION));
        }
        let step = self.learner.step(&self.examples, Some(noise), LEARNING_RATE, None)?;
        Ok((step, start.elapsed()))
    }
}
