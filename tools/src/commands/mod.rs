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
use limbeck::report::statistics::exceeds;
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
        Some(allowed) if exceeds(drop, allowed) => Err(Failure::Gate(format!(
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
        // In binary digits some of these differences are a little larger than what they are of texts.
        for (right, lost) in (100..1000).flat_map(|right| [5, 10, 20].map(|lost| (right, lost))) {
            let [baseline, accuracy] = [right, right - lost].map(|right| f64::from(right) / 1000.0);
            assert!(
                gate(baseline, accuracy, Some(f64::from(lost) / 10.0)).is_ok(),
                "{right} less {lost} texts"
            );
            assert!(gate(baseline, accuracy - 0.001, Some(f64::from(lost) / 10.0)).is_err());
        }
        assert!(matches!(gate(0.9, 0.89, Some(0.5)), Err(Failure::Gate(_))));
    }
}
