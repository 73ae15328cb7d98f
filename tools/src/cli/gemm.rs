//! `limbeck bench gemm`, as it is typed.

use super::values::MAX_COUNT;
use clap::{Args, Subcommand, ValueEnum};
use limbeck::backend::cuda::Storage;

const GEMM: &str = "\
All that make products take turns: kernels of ours for every GPU (own), those for sm_90 alone (wgmma), and cuBLASLt if it is on the
library path. A layer's product is timed with its bias and activation. `error` is how far the worst of 512 sums is from the same in f64, the root of their mean square being 1.";

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Matrix products of a network's layers on a GPU, by everything that makes them
    #[command(after_help = GEMM)]
    Gemm(BenchGemm),
}

#[derive(Debug, Args)]
pub struct BenchGemm {
    /// Tokens of a step, which are the rows of activations
    #[arg(long, default_value_t = 12_800, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub tokens: u32,
    /// Width of the network; default: of DistilBERT-base
    #[arg(long, default_value_t = 768, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub hidden: u32,
    /// Its feed-forward units
    #[arg(long, default_value_t = 3072, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub intermediate: u32,
    /// How activations are stored
    #[arg(long, value_enum, default_value = "bf16")]
    pub precision: Stored,
    /// Side of square matrices that are multiplied besides, for the device's peak; 0: none
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(..=MAX_COUNT))]
    pub square: u32,
    /// Untimed turns before
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=MAX_COUNT))]
    pub warmup: u32,
    /// Timed turns of ten calls
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub repeat: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// How activations are stored on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stored {
    Bf16,
    F16,
    F32,
}

impl Stored {
    pub fn storage(self) -> Storage {
        match self {
            Stored::Bf16 => Storage::Bf16,
            Stored::F16 => Storage::F16,
            Stored::F32 => Storage::F32,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Stored::Bf16 => "bf16",
            Stored::F16 => "f16",
            Stored::F32 => "f32",
        }
    }
}
