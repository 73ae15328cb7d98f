//! `limbeck inspect`: what a model is made of, part by part, and whether a `.limbeck` file is what was written.

use crate::cli::Inspect;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::infer::Model;
use limbeck::report::{self, Inspection};
use serde::Serialize;
use std::path::Path;

/// What is printed as JSON.
#[derive(Serialize)]
struct Findings {
    #[serde(flatten)]
    inspection: Inspection,
    /// Texts whose logits are the same bits as when the file was written; absent if that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked_texts: Option<usize>,
}

pub fn inspect(typed: &Inspect) -> Result<(), Failure> {
    let checked_texts = typed.check.then(|| check(&typed.model)).transpose()?;
    let inspection = report::inspect(&typed.model, typed.seq.map(|seq| seq as usize))?;
    let mut output = Output::new();
    if typed.json {
        output.json(&Findings { inspection, checked_texts })?;
    } else {
        output.text(inspection)?;
        if let Some(texts) = checked_texts {
            output.text(format!(
                "\nchecked: the data have their hash; the logits of {texts} texts are the same bits as when the file was \
                 written\n"
            ))?;
        }
    }
    output.flush()
}

/// Checks a `.limbeck` file against what it says of itself. Returns the number of texts that were computed.
fn check(path: &Path) -> Result<usize, Failure> {
    let model = Model::open(path)?;
    let Some(metadata) = model.metadata() else {
        let path = path.display();
        return Err(Failure::Usage(format!(
            "--check: only a .limbeck file can be checked, and {path} is none; leave it out, or give the file"
        )));
    };
    model.check_golden()?;
    Ok(metadata.golden.len())
}
