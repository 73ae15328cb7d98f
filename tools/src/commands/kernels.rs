//! `limbeck kernels`: what this CPU can do, and what of it runs; whether there is a GPU, and if not, what is missing.

use crate::cli::Kernels as Typed;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::backend::cuda::probe::{Found, probe};
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
        output.json(&json!({ "kernels": rows, "selected": selected.name(), "cuda": cuda_json() }))?;
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
        output.text("LIMBECK_ISA chooses another row that this CPU has.\n\n")?;
        output.text(cuda_text())?;
    }
    output.flush()
}

/// The GPUs that `--device cuda` would find, or why it would find none.
fn cuda_text() -> String {
    match probe() {
        Ok(found) => found.iter().map(|gpu| format!("cuda: {gpu}\n")).collect(),
        Err(error) => format!("cuda: absent: {error}\n"),
    }
}

fn cuda_json() -> Value {
    match probe() {
        Ok(found) => {
            let gpu = |gpu: &Found| {
                let (major, minor) = gpu.capability;
                json!({ "ordinal": gpu.ordinal, "name": gpu.name, "capability": [major, minor], "memory_bytes": gpu.memory })
            };
            json!({ "devices": found.iter().map(gpu).collect::<Vec<_>>() })
        }
        Err(error) => json!({ "devices": [], "absent": error.to_string() }),
    }
}
