//! What can be typed. What it means stands in the file of each command.

mod gemm;
mod recipe;
mod sweep;
mod values;

use crate::engine;
use crate::failure::Failure;
use clap::{Args, Parser, Subcommand, ValueEnum};
use limbeck::stages::TrainingDevice;
use std::path::PathBuf;

pub use gemm::{BenchCommand, BenchGemm};
pub use sweep::{Sweep, SweepCommand, SweepReport};
pub use values::threads;
use values::{MAX_COUNT, points, thread_count};

const AFTER: &str = "\
A MODEL is a Hugging Face directory (config.json, model.safetensors, tokenizer) or one .limbeck file.
LIMBECK_ISA=NAME forces a row of kernels, as `limbeck kernels` names them; unset or empty, the best that this CPU has.
LIMBECK_GEMM=own, =cublaslt or =wgmma has all matrix products on a GPU made by kernels of ours, by NVIDIA's library, or by kernels
of ours for sm_90 alone; unset or empty, each by what is expected to be faster: the library, where it is installed, for
large ones, else own.
LIMBECK_GRAPHS=0 has a GPU's training steps launched kernel by kernel, and batches not filled up to few sizes; =fill fills them
up, for the numbers that steps have as CUDA graphs, which they are if it is unset or empty.
LIMBECK_CACHE=DIR is where eval keeps token ids between calls, and --device cuda its compiled kernels; unset, the user's cache
directory or, if that cannot be written, the temporary one.
RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT (or what srun and mpirun set) make several processes train together.

Exit codes:
  0  done
  1  failed: a file, a recipe, a model, the disk; a signal during run, train, prune, distill,
     quantize or sweep, which save first. Other commands end by the signal
  2  wrong use: flags, --set keys and values, LIMBECK_ISA and its like, RANK and WORLD_SIZE
  3  a quality gate (--max-drop) is not met";

const PREDICT: &str = "\
Each line of standard input has an answer: a blank one is an empty text. One that is not UTF-8 ends the
program with an error that names it, after the answers to the lines before it.";

/// Fine-tune, prune, distil, quantize and deploy text classifiers.
#[derive(Debug, Parser)]
#[command(name = "limbeck", version, after_help = AFTER)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// All four stages, then the table. Without a recipe: the demo, which needs no file and no network
    Run(Run),
    /// First stage: fine-tune the model of the recipe
    Train(Stage),
    /// Second stage: delete heads and feed-forward units, mask weights
    Prune(Stage),
    /// Third stage: the pruned model learns from the baseline
    #[command(alias = "distil")]
    Distill(Stage),
    /// Fourth stage: write the int8 .limbeck file
    Quantize(Stage),
    /// Many variants of a recipe, each a run of its own; then what they cost and what they are worth
    Sweep(Sweep),
    /// Accuracy with its 95 % interval, macro-F1, confusion matrix
    Eval(Eval),
    /// Classify texts; without TEXT, one text a line of standard input. Prints JSON lines
    #[command(after_help = PREDICT)]
    Predict(Predict),
    /// Latency of models against each other, interleaved; `bench gemm`: of matrix products on a GPU
    Bench(Bench),
    /// Parameters, bytes, sparsity, heads, multiply-adds and time, part by part
    Inspect(Inspect),
    /// What int8 and int4 do to each matrix: signal to noise, static scales of activations, divergence of the logits
    Sensitivity(Sensitivity),
    /// Write a model in another format
    Export(Export),
    /// The table of a finished run, as Markdown
    Report(Report),
    /// Instruction sets of this CPU, and which kernels run
    Kernels(Kernels),
}

#[derive(Debug, Args)]
pub struct Run {
    /// Recipe file; none: the demo
    pub recipe: Option<PathBuf>,
    /// Fail with exit code 3 if the int8 file is more than so many points of accuracy below the baseline
    #[arg(long, value_name = "POINTS", value_parser = points, allow_negative_numbers = true)]
    pub max_drop: Option<f64>,
    #[command(flatten)]
    pub options: StageOptions,
}

#[derive(Debug, Args)]
pub struct Stage {
    /// Recipe file
    pub recipe: PathBuf,
    #[command(flatten)]
    pub options: StageOptions,
}

#[derive(Debug, Args)]
pub struct StageOptions {
    /// Model to start from: a Hugging Face directory (recipe key model.path)
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Directory of the data files (recipe key data.dir)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Directory of the run; default: runs/ and the recipe's name
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Any recipe key, as data.limit=8000 (training rows to use; 0 = all); may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Source of all randomness (recipe key seed)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Go on from what the run's directory holds
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub common: Common,
}

/// Flags of every command that computes.
#[derive(Debug, Args)]
pub struct Common {
    /// Threads; 0 = all (recipe key threads)
    #[arg(long, value_name = "N", value_parser = thread_count)]
    pub threads: Option<usize>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: Device,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Device {
    Cpu,
    Cuda,
}

/// Texts with labels for commands that have no recipe.
#[derive(Debug, Args)]
pub struct DataOptions {
    /// File of labelled texts: csv, tsv or jsonl; of a directory, its test.csv
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// What the file is, as data.header=true; may be repeated. Keys: format, header, label_column, text_columns,
    /// second_columns, first_label, test_limit and max_tokens of a recipe's [data]
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Eval {
    /// Hugging Face directory or .limbeck file, with a classification head
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataOptions,
    /// Compare with this model on the same texts (McNemar's exact test)
    #[arg(long, value_name = "MODEL")]
    pub against: Option<PathBuf>,
    /// Fail with exit code 3 if MODEL is more than so many points below --against
    #[arg(long, value_name = "POINTS", value_parser = points, allow_negative_numbers = true, requires = "against")]
    pub max_drop: Option<f64>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Predict {
    /// Hugging Face directory or .limbeck file, with a classification head
    pub model: PathBuf,
    /// Texts; none: one a line of standard input
    pub text: Vec<String>,
    /// Texts are pairs of sentences: two arguments each, or a line with a tab between them
    #[arg(long, conflicts_with = "first")]
    pub pairs: bool,
    /// Texts are second sentences of pairs with this first one, which decoupled layers pass once
    #[arg(long, value_name = "SENTENCE")]
    pub first: Option<String>,
    /// Longest text in tokens; the rest is cut. Default: what the model can read
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Threads; 0 = all
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = thread_count)]
    pub threads: usize,
    /// Print JSON, one object a line; this is so without it, too
    #[arg(long)]
    #[allow(
        dead_code,
        reason = "accepted for those who type it with every command; there is no other output"
    )]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Bench {
    /// Hugging Face directories or .limbeck files, with a classification head; with --train one directory,
    /// which needs no head
    #[arg(required = true)]
    pub model: Vec<PathBuf>,
    /// Texts a call or a step [default: 1; 32 with --train]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub batch: Option<u32>,
    /// Tokens a text [default: 128, or as many as every MODEL reads]
    #[arg(long, conflicts_with = "train", value_parser = clap::value_parser!(u32).range(3..))]
    pub seq: Option<u32>,
    /// Threads, which share even a text alone; 0 = all
    #[arg(long, default_value_t = 1, value_parser = thread_count)]
    pub threads: usize,
    /// Untimed calls or steps before [default: 10; 2 with --train]
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=MAX_COUNT))]
    pub warmup: Option<u32>,
    /// Timed calls or steps [default: 100; 10 with --train]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub repeat: Option<u32>,
    /// Time a training step of a model directory on the first texts of --data
    #[arg(long, requires = "data")]
    pub train: bool,
    /// File of labelled texts: csv, tsv or jsonl
    #[arg(long, value_name = "FILE", requires = "train")]
    pub data: Option<PathBuf>,
    /// Hugging Face directory of a model that answers the texts of each step first, to be imitated; a new head if it has none
    #[arg(long, value_name = "DIR", requires = "train")]
    pub teacher: Option<PathBuf>,
    /// Where a training step runs
    #[arg(long, value_enum, default_value = "cpu", requires = "train")]
    pub device: Device,
    /// How a training step multiplies matrices; on a GPU, how it stores activations too; default: f32 on a CPU, bf16 on a GPU
    #[arg(long, value_enum, requires = "train")]
    pub precision: Option<Precision>,
    /// Longest training text in tokens, the rest of which is cut; default: 256, or as many as the model reads
    #[arg(long, value_name = "N", requires = "train", value_parser = clap::value_parser!(u32).range(3..))]
    pub max_tokens: Option<u32>,
    /// Work once for each line "go" of standard input (the protocol of tools/compare)
    #[arg(long, conflicts_with = "json")]
    pub interactive: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    F32,
    Bf16,
    /// With --device cuda
    F16,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// Hugging Face directory or .limbeck file, with a classification head
    pub model: PathBuf,
    /// Tokens of the text that multiply-adds and times are for [default: 128, or as many as MODEL reads]
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..))]
    pub seq: Option<u32>,
    /// First check a .limbeck file: its data against their hash, and, bit for bit, the logits of the texts in it
    /// against those of when it was written
    #[arg(long)]
    pub check: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Sensitivity {
    /// Hugging Face directory, with a classification head
    pub model: PathBuf,
    /// File of labelled texts: csv, tsv or jsonl; of a directory, its train.csv. What is chosen by this table was chosen on
    /// these texts: do not test on them
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// What the file is, as for eval
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Texts, from the first on
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..=MAX_COUNT))]
    pub texts: u32,
    /// Print Markdown
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Report {
    /// The run's directory
    pub run: PathBuf,
    /// Put the table between the markers `<!-- table:RECIPE begin -->` and `<!-- table:RECIPE end -->` of this file
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Export {
    /// Hugging Face directory, with a classification head: the source, or what a stage left; no .limbeck file
    pub model: PathBuf,
    /// Directory, or file for the limbeck format; must not exist
    pub out: PathBuf,
    /// What to write
    #[arg(long, value_enum)]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A Hugging Face directory with the sizes that are left, factored and shared as they are; limbeck reads it
    Hf,
    /// A Hugging Face directory with deleted parts as zeros, factors multiplied and shared layers written out: stock transformers
    /// loads it, same logits
    HfPadded,
    /// One .limbeck file with f32 weights, mapped when used
    Limbeck,
    /// One .limbeck file with int8 weights and embeddings, mapped when used; needs no data
    LimbeckInt8,
}

#[derive(Debug, Args)]
pub struct Kernels {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

impl Common {
    /// Refuses a device that a command cannot compute on.
    pub fn cpu_only(&self, command: &str) -> Result<(), Failure> {
        match self.device {
            Device::Cpu => Ok(()),
            Device::Cuda => Err(Failure::Usage(format!(
                "--device cuda: `limbeck {command}` computes on the CPU; leave it out"
            ))),
        }
    }

    /// Where to train: of several GPUs, on the one of that number.
    pub fn training_device(&self, gpu: usize) -> Result<TrainingDevice, Failure> {
        match self.device {
            Device::Cpu => Ok(TrainingDevice::Cpu),
            Device::Cuda => Ok(TrainingDevice::cuda(gpu, &engine::usual_cache().join("cuda"))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
