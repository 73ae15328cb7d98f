//! How a command fails: what is said, and the exit code.

use crate::printable::printable;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The library could not do it. Exit code 1; 2 where an environment variable is wrong.
    Failed(limbeck::Error),
    /// What was typed makes no sense. Exit code 2.
    Usage(String),
    /// Some trials of a sweep did not succeed; the others did. A line each. Exit code 1.
    Trials(Vec<String>),
    /// The result is there, but worse than `--max-drop` allows. Exit code 3.
    Gate(String),
    /// Whoever read our output has stopped reading, as `head` does. Nothing is said.
    ReaderGone,
}

impl From<limbeck::Error> for Failure {
    fn from(error: limbeck::Error) -> Failure {
        Failure::Failed(error)
    }
}

impl From<limbeck_kernels::IsaError> for Failure {
    fn from(error: limbeck_kernels::IsaError) -> Failure {
        Failure::Failed(error.into())
    }
}

impl Failure {
    /// From writing to standard output.
    pub fn from_output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Failed(limbeck::Error::io("write", "standard output".as_ref())(error)),
        }
    }

    /// Says it on standard error, the chain of causes one line each, and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (lines, code) = match self {
            Failure::ReaderGone => return ExitCode::SUCCESS,
            Failure::Failed(error @ (limbeck::Error::Isa(_) | limbeck::Error::Variable { .. })) => {
                (chain(&error), 2)
            }
            Failure::Failed(error) => (chain(&error), 1),
            Failure::Usage(problem) => (vec![problem], 2),
            Failure::Trials(lines) => (lines, 1),
            Failure::Gate(problem) => (vec![problem], 3),
        };
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let (red, plain) = if colour { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        for (i, line) in lines.iter().enumerate() {
            let lead = if i == 0 { "error" } else { "  because" };
            eprintln!("{red}{lead}:{plain} {}", printable(line));
        }
        ExitCode::from(code)
    }
}

/// An error and its causes, leaving out a cause that only repeats what stands before it.
fn chain(error: &dyn Error) -> Vec<String> {
    let causes = std::iter::successors(Some(error), |error: &&dyn Error| (*error).source());
    let mut lines: Vec<String> = causes.map(|error| error.to_string().replace('\n', " ")).collect();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_one_line_each() {
        let error =
            limbeck::Error::io("read", "model.safetensors".as_ref())(io::Error::other("disk\non fire"));
        assert_eq!(chain(&error), ["cannot read model.safetensors", "disk on fire"]);
        let repeated = limbeck::Error::from(limbeck_kernels::IsaError::Unknown { name: "x".into() });
        assert_eq!(chain(&repeated).len(), 1);
    }
}
