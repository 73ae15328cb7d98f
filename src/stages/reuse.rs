//! What runs share: the trials of a sweep begin with the same baseline, which is trained once.
//!
//! Files get a second name where the file system has that, and are copied where it has not. Either is safe, because
//! nothing of ours writes into a file that is there: files are replaced.

use super::{Stage, StageContext};
use crate::files::{self, Temporary};
use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

impl StageContext<'_> {
    /// Takes `donor`'s artifact of a stage that leaves a directory for this run's own, with the log of how it was
    /// trained. Does nothing if this run has one already.
    ///
    /// # Errors
    /// Those of [`StageContext::enter`] and [`StageContext::need`]; [`Error::Occupied`] if the donor's recipe decides
    /// the artifact differently; [`Error::Io`].
    pub fn reuse_artifact(&self, stage: Stage, donor: &StageContext<'_>) -> Result<()> {
        if !self.enter(stage)? {
            return Ok(());
        }
        if self.recipe_hash(stage) != donor.recipe_hash(stage) {
            return Err(Error::Occupied {
                path: donor.out.to_owned(),
                found: format!("a {} of another recipe", stage.variant()),
                mend: "choose another --out".to_owned(),
            });
        }
        let (source, target) = (donor.need(stage)?, self.artifact(stage));
        let (log, own) = (donor.metrics(), self.metrics());
        if log.exists() && !own.exists() {
            files::replace_bytes(&own, &files::read(&log)?)?;
        }
        let temporary = Temporary::directory(&target)?;
        for file in files_in(&source)? {
            share(&file, &temporary.path)?;
        }
        temporary.rename(&target)
    }

    /// Gives this run what `donor` has computed from texts, their tokens and a teacher's logits, as far as it lacks it.
    /// Each file says itself what it was made from, so that none is used for anything else.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn share_cache(&self, donor: &StageContext<'_>) -> Result<()> {
        if !donor.cache().exists() {
            return Ok(());
        }
        fs::create_dir_all(self.cache()).map_err(Error::io("create", &self.cache()))?;
        files_in(&donor.cache())?.iter().try_for_each(|file| share(file, &self.cache()))
    }
}

/// The whole files in a directory.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).map_err(Error::io("read", directory))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", directory))?;
        if entry.path().is_file() && !files::is_partial(&entry.file_name()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Puts a file into another directory, too, if that has none of its name.
fn share(file: &Path, directory: &Path) -> Result<()> {
    let target = directory.join(file.file_name().expect("it stands in a directory"));
    if target.exists() || fs::hard_link(file, &target).is_ok() || target.exists() {
        return Ok(());
    }
    files::replace_bytes(&target, &files::read(file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_shared_whole_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("inner")).unwrap();
        fs::create_dir(&to).unwrap();
        for (name, text) in [("a", "first"), ("b", "second"), (".a.1-0.partial", "half")] {
            fs::write(from.join(name), text).unwrap();
        }
        fs::write(to.join("b"), "own").unwrap();
        files_in(&from).unwrap().iter().for_each(|file| share(file, &to).unwrap());
        assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
        assert_eq!(
            (fs::read(to.join("a")).unwrap(), fs::read(to.join("b")).unwrap()),
            (b"first".into(), b"own".into())
        );
        // What is replaced here stays as it was there.
        files::replace_bytes(&to.join("a"), b"new").unwrap();
        assert_eq!(fs::read(from.join("a")).unwrap(), b"first");
    }
}
