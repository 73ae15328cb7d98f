//! `limbeck bench --interactive`: another program says when, so that two programs can be measured in turns.
//!
//! The protocol: one line `ready` and what is to be known of this program, as JSON; then, for each line `go` of
//! standard input, the work once and one line of JSON with its `seconds`, by our own clock. The end of standard
//! input ends the program. `tools/compare/common.py` holds the other end.

use crate::failure::Failure;
use crate::output::Output;
use limbeck::Error;
use serde_json::Value;
use std::io::{self, BufRead};
use std::path::Path;

/// Serves until standard input ends. `work` does what is measured, once, and times itself.
pub fn serve(about: &Value, mut work: impl FnMut() -> Result<Value, Failure>) -> Result<(), Failure> {
    let mut output = Output::new();
    output.text("ready ")?;
    output.json_line(about)?;
    output.flush()?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(Error::io("read", Path::new("standard input")))?;
        match line.trim() {
            "" => {}
            "go" => {
                output.json_line(&work()?)?;
                output.flush()?;
            }
            other => return Err(Failure::Usage(format!("{other:?} is no request; say \"go\""))),
        }
    }
    Ok(())
}
