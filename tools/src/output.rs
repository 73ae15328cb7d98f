//! Standard output: data only. A reader that stops reading ends the command quietly.

use crate::failure::Failure;
use crate::printable::printable;
use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};

/// Standard output, buffered.
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Takes standard output for the rest of the command.
    pub fn new() -> Output {
        Output(BufWriter::new(io::stdout().lock()))
    }

    /// Writes text, without what a terminal would obey: names in a model's file are its author's.
    pub fn text(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        self.0.write_all(printable(&text.to_string()).as_bytes()).map_err(Failure::from_output)
    }

    /// Writes one value as indented JSON and a newline.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.0, value)
            .map_err(|error| Failure::from_output(error.into()))?;
        self.text("\n")
    }

    /// Writes one value as a line of JSON.
    pub fn json_line(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.0, value).map_err(|error| Failure::from_output(error.into()))?;
        self.text("\n")
    }

    /// Hands everything to the reader now.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(Failure::from_output)
    }
}
