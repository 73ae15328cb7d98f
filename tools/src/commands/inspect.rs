//! `limbeck inspect`: what a model is made of, part by part.

use crate::cli::Inspect;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::report;

pub fn inspect(typed: &Inspect) -> Result<(), Failure> {
    let inspection = report::inspect(&typed.model, typed.seq as usize)?;
    let mut output = Output::new();
    if typed.json {
        output.json(&inspection)?;
    } else {
        output.text(inspection)?;
    }
    output.flush()
}
