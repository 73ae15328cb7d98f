//! `limbeck inspect`: what a model is made of, part by part.

use crate::cli::Inspect;
use crate::engine;
use crate::failure::Failure;
use crate::output::Output;
use limbeck_kernels::Kernels;

pub fn inspect(typed: &Inspect) -> Result<(), Failure> {
    let inspection = engine::inspect(&typed.model, typed.seq as usize, Kernels::select()?)?;
    let mut output = Output::new();
    if typed.json {
        output.json(&inspection)?;
    } else {
        output.text(inspection)?;
    }
    output.flush()
}
