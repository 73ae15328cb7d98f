//! `limbeck`: fine-tune, prune, distil, quantize and deploy text classifiers from one binary.
//!
//! What was typed ([`cli`]) becomes a call of one command ([`commands`]); commands call the library
//! ([`engine`]). Data go to standard output ([`output`]), everything else to standard error
//! ([`progress`]). Exit codes: 0 done, 1 failed, 2 wrong use, 3 a quality gate not met ([`failure`]).

mod cli;
mod commands;
mod engine;
mod failure;
mod output;
mod printable;
mod progress;
mod signals;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let typed = cli::Cli::parse();
    match signals::survive_file_size_limit().and_then(|()| commands::call(typed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
