//! `limbeck kernels`: what this CPU can do, and what of it runs.

use crate::cli::Kernels as Typed;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::report::cells::aligned;
use limbeck_kernels::{Isa, Kernels};
use serde_json::{Value, json};

pub fn kernels(typed: &Typed) -> Result<(), Failure> {
    let selected = Kernels::select()?.isa();
    let mut output = Output::new();
    if typed.json {
        let rows: Vec<Value> = Isa::ALL
            .iter()
            .map(|isa| {
                json!({
                    "name": isa.name(),
                    "needs": isa.features(),
                    "available": isa.is_available(),
                    "selected": *isa == selected,
                })
            })
            .collect();
        output.json(&json!({ "kernels": rows, "selected": selected.name() }))?;
    } else {
        let mut lines = vec![["kernels", "this CPU", "needs"].map(str::to_owned)];
        for isa in Isa::ALL {
            let state = match (isa.is_available(), isa == selected) {
                (_, true) => "runs",
                (true, false) => "available",
                (false, false) => "lacks it",
            };
            let needs = if isa.features().is_empty() { "nothing".into() } else { isa.features().join(" ") };
            lines.push([isa.name().to_owned(), state.to_owned(), needs]);
        }
        output.text(aligned(&lines))?;
        output.text("LIMBECK_ISA chooses another row that this CPU has.\n")?;
    }
    output.flush()
}
