//! What can go wrong, said so that the reader can mend it: each variant names the file, the tensor or
//! the line, the problem, and where it is known the mend.

use limbeck_kernels::IsaError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that a user can act on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as "read" or "write".
        action: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// A file's content is not what it must be.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where that makes sense.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        mend: String,
    },
    /// A tensor in a checkpoint is missing, has another shape or kind, or holds a value that is no number.
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        mend: String,
    },
    /// An environment variable says what cannot be.
    #[cfg(feature = "train")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        mend: String,
    },
    /// A recipe key, or a command-line value, is wrong.
    Setting {
        /// The key, dotted: `train.learning_rate`.
        key: String,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        mend: String,
    },
    /// The output directory holds something that must not be overwritten.
    Occupied {
        /// The directory.
        path: PathBuf,
        /// What was found there.
        found: String,
        /// What to do about it.
        mend: String,
    },
    /// Training produced a value that is no number.
    #[cfg(feature = "train")]
    Diverged {
        /// The optimizer step, counted from 1.
        step: u64,
        /// The loss at that step.
        loss: f32,
        /// Which parameter is to blame, as a sentence: the first whose value or gradient is not finite, or, where
        /// all are finite, the one with the largest value.
        blame: String,
        /// What to do about it.
        mend: String,
    },
    /// The GPU asked for cannot be had, or has failed.
    Device {
        /// What is missing, or what the driver said.
        problem: String,
        /// What to do about it.
        mend: String,
    },
    /// The processes that train together cannot go on.
    Ranks {
        /// Which, and why.
        problem: String,
        /// What to do about it.
        mend: String,
    },
    /// The instruction set asked for cannot be had.
    Isa(IsaError),
    /// A signal asked the program to stop; what it had done is saved.
    Interrupted {
        /// Where the state was saved, if anything was under way.
        checkpoint: Option<PathBuf>,
    },
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }

    /// An [`Error::File`] without a line.
    pub fn file(path: &Path, problem: impl Into<String>, mend: impl Into<String>) -> Error {
        Error::File { path: path.to_owned(), line: None, problem: problem.into(), mend: mend.into() }
    }

    /// An [`Error::Tensor`].
    pub fn tensor(path: &Path, tensor: &str, problem: impl Into<String>, mend: impl Into<String>) -> Error {
        Error::Tensor {
            path: path.to_owned(),
            tensor: tensor.to_owned(),
            problem: problem.into(),
            mend: mend.into(),
        }
    }

    /// An [`Error::Interrupted`] of what has no state to save, if a signal has set `stop`.
    ///
    /// # Errors
    /// That one.
    pub fn if_stopped(stop: &AtomicBool) -> Result<()> {
        if stop.load(Ordering::Relaxed) { Err(Error::Interrupted { checkpoint: None }) } else { Ok(()) }
    }

    /// An error about a missing or damaged file, with another mend: this program made the file, and can make it again.
    #[cfg(feature = "train")]
    pub(crate) fn with_mend(self, mend: &str) -> Error {
        match self {
            Error::File { path, line, problem, .. } => Error::File { path, line, problem, mend: mend.into() },
            Error::Tensor { path, tensor, problem, .. } => {
                Error::Tensor { path, tensor, problem, mend: mend.into() }
            }
            Error::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Error::file(&path, "the file is missing", mend)
            }
            other => other,
        }
    }

    /// An [`Error::Device`].
    #[cfg(feature = "cuda")]
    pub(crate) fn device(problem: impl Into<String>, mend: impl Into<String>) -> Error {
        Error::Device { problem: problem.into(), mend: mend.into() }
    }

    /// An [`Error::Variable`].
    #[cfg(feature = "train")]
    pub fn variable(name: &'static str, problem: impl Into<String>, mend: impl Into<String>) -> Error {
        Error::Variable { name, problem: problem.into(), mend: mend.into() }
    }

    /// An [`Error::Setting`].
    pub fn setting(key: impl Into<String>, problem: impl Into<String>, mend: impl Into<String>) -> Error {
        Error::Setting { key: key.into(), problem: problem.into(), mend: mend.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { path, action, .. } => write!(f, "cannot {action} {}", path.display()),
            Error::File { path, line: Some(line), problem, mend } => {
                write!(f, "{}, line {line}: {problem}; {mend}", path.display())
            }
            Error::File { path, line: None, problem, mend } => {
                write!(f, "{}: {problem}; {mend}", path.display())
            }
            Error::Tensor { path, tensor, problem, mend } => {
                write!(f, "{}, tensor {tensor}: {problem}; {mend}", path.display())
            }
            #[cfg(feature = "train")]
            Error::Variable { name, problem, mend } => write!(f, "{name}: {problem}; {mend}"),
            Error::Setting { key, problem, mend } => write!(f, "{key}: {problem}; {mend}"),
            Error::Occupied { path, found, mend } => {
                write!(f, "{} holds {found}, which is kept; {mend}", path.display())
            }
            #[cfg(feature = "train")]
            Error::Diverged { step, loss, blame, mend } => {
                write!(f, "step {step}: the loss is {loss}; {blame}; {mend}")
            }
            Error::Device { problem, mend } | Error::Ranks { problem, mend } => {
                write!(f, "{problem}; {mend}")
            }
            Error::Isa(error) => error.fmt(f),
            Error::Interrupted { checkpoint: Some(path) } => {
                write!(f, "stopped by a signal; continue with --resume ({} holds the state)", path.display())
            }
            Error::Interrupted { checkpoint: None } => write!(
                f,
                "stopped by a signal; the same command begins again, or a run goes on with --resume"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Isa(error) => Some(error),
            _ => None,
        }
    }
}

impl From<IsaError> for Error {
    fn from(error: IsaError) -> Error {
        Error::Isa(error)
    }
}

/// What to call a value that is not finite. The formatting of floats, which this does without, is a good part of a small program.
pub(crate) fn not_finite(value: f32) -> &'static str {
    match value {
        _ if value.is_nan() => "NaN",
        _ if value > 0.0 => "inf",
        _ => "-inf",
    }
}
