//! The commands, one file each; [`call`] picks the one that was typed.

mod bench;
mod eval;
mod export;
mod inspect;
mod kernels;
mod predict;
mod report;
mod sensitivity;
mod stages;
mod sweep;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use limbeck::report::Build;
use limbeck::stages::Stage;
use std::borrow::Cow;

/// What made this binary.
const BUILD: Build = Build {
    version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
    commit: Cow::Borrowed(env!("LIMBECK_COMMIT")),
    rustc: Cow::Borrowed(env!("LIMBECK_RUSTC")),
};

/// Does what was typed.
pub fn call(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Run(typed) => stages::run(&typed),
        Command::Train(typed) => stages::one(Stage::Train, &typed),
        Command::Prune(typed) => stages::one(Stage::Prune, &typed),
        Command::Distill(typed) => stages::one(Stage::Distill, &typed),
        Command::Quantize(typed) => stages::one(Stage::Quantize, &typed),
        Command::Sweep(typed) => sweep::sweep(&typed),
        Command::Eval(typed) => eval::eval(&typed),
        Command::Predict(typed) => predict::predict(&typed),
        Command::Bench(typed) => bench::bench(&typed),
        Command::Inspect(typed) => inspect::inspect(&typed),
        Command::Sensitivity(typed) => sensitivity::sensitivity(&typed),
        Command::Export(typed) => export::export(&typed),
        Command::Report(typed) => report::report(&typed),
        Command::Kernels(typed) => kernels::kernels(&typed),
    }
}

/// Refuses an accuracy that lies more than `max_drop` points below the baseline's.
fn gate(baseline: f64, accuracy: f64, max_drop: Option<f64>) -> Result<(), Failure> {
    let drop = 100.0 * (baseline - accuracy);
    match max_drop {
        Some(allowed) if drop > allowed => Err(Failure::Gate(format!(
            "accuracy is {drop:.2} points below the baseline; --max-drop is {allowed}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_lets_through_what_is_asked_for() {
        assert!(gate(0.9, 0.5, None).is_ok());
        assert!(gate(0.9, 0.896, Some(0.5)).is_ok());
        assert!(gate(0.9, 0.95, Some(0.0)).is_ok(), "better is never refused");
        assert!(matches!(gate(0.9, 0.89, Some(0.5)), Err(Failure::Gate(_))));
    }
}
