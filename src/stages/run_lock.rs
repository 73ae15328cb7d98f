//! One process at a time in a run's directory.
//!
//! What is locked is the directory itself: nothing is written for it, so that a command that is refused leaves no
//! trace, and the lock ends with the process, however that ends.

use crate::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

/// The directory of a run, held as long as this lives.
pub struct RunLock {
    _directory: Option<File>,
}

impl RunLock {
    /// Takes the directory, which is created if it is not there. Where directories cannot be locked (some network
    /// file systems, systems other than Unix) it is taken without a lock.
    ///
    /// # Errors
    /// [`Error::Occupied`] if another process holds it; [`Error::File`] if there is something else than a directory;
    /// [`Error::Io`].
    pub fn take(out: &Path) -> Result<RunLock> {
        if let Ok(found) = fs::symlink_metadata(out) {
            match fs::metadata(out) {
                Ok(target) if target.is_dir() => {}
                Ok(_) => {
                    let problem = "this is a file, and a run needs a directory";
                    return Err(Error::file(out, problem, "choose another --out"));
                }
                Err(error) if found.is_symlink() && error.kind() == ErrorKind::NotFound => {
                    let target = fs::read_link(out).unwrap_or_default();
                    let problem = format!("a symbolic link to {}, which does not exist", target.display());
                    return Err(Error::file(out, problem, "create that directory, or choose another --out"));
                }
                Err(error) => return Err(Error::io("open", out)(error)),
            }
        }
        fs::create_dir_all(out).map_err(Error::io("create", out))?;
        let Ok(directory) = File::open(out) else { return Ok(RunLock { _directory: None }) };
        match directory.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Error::Occupied {
                path: out.to_owned(),
                found: "a run that another limbeck is working on".to_owned(),
                mend: "wait until that one ends (then --resume goes on), or choose another --out".to_owned(),
            }),
            Err(TryLockError::Error(_)) => Ok(RunLock { _directory: None }),
            Ok(()) => Ok(RunLock { _directory: Some(directory) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_directory_is_taken_once_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("runs/new");
        let held = RunLock::take(&out).unwrap();
        let refused = RunLock::take(&out).err().expect("it is held").to_string();
        assert!(refused.contains("another limbeck is working on, which is kept; wait"), "{refused}");
        drop(held);
        RunLock::take(&out).unwrap();
        // By way of a link it is the same directory.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&out, &link).unwrap();
        let held = RunLock::take(&link).unwrap();
        assert!(RunLock::take(&out).is_err());
        drop(held);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "mine").unwrap();
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
        for (out, words) in [
            (&file, "file: this is a file, and a run needs a directory; choose another --out"),
            (&link, "nowhere, which does not exist; create that directory, or choose another --out"),
            (&file.join("run"), "file/run"),
        ] {
            let refused = RunLock::take(out).err().expect("no directory").to_string();
            assert!(refused.contains(words), "{refused}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        assert!(!folder.path().join("nowhere").exists());
    }
}
