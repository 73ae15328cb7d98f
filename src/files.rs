//! Files on disk: mapped for reading, replaced as a whole when written.
//!
//! Checkpoints, token caches and `.limbeck` files all pass through here, so that the two promises hold
//! for each of them: reading costs page faults and no copy, and a reader finds either the old file or
//! the complete new one, whatever happens to the writer (a full disk, a signal, a crash).

use crate::{Error, Result};
use memmap2::Mmap;
use sha2::{Digest, Sha256};
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Opens a file for reading, which must be one: a pipe would be waited for, a device has no end, and files are read
/// more than once.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] if there is none, or if it is a directory, a pipe or a device.
pub fn open(path: &Path) -> Result<File> {
    // Looked at first: to open a pipe is to wait for its writer.
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::file(path, "there is no such file", "check the path"),
        _ => Error::io("open", path)(error),
    })?;
    if metadata.is_dir() {
        return Err(Error::file(path, "this is a directory", "name the file in it"));
    }
    if !metadata.is_file() {
        return Err(special(path));
    }
    File::open(path).map_err(Error::io("open", path))
}

/// The error about what is neither a file nor a directory.
fn special(path: &Path) -> Error {
    Error::file(path, "this is not a regular file but a pipe or a device", "copy it to a file first")
}

/// Reads a whole file; see [`open`].
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// Reads a whole text file; see [`open`].
///
/// # Errors
/// As [`open`]; [`Error::File`] with the line if it is not UTF-8.
pub fn read_to_string(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Error::File {
            path: path.to_owned(),
            line: Some(1 + valid.iter().filter(|byte| **byte == b'\n').count()),
            problem: "this is not UTF-8".to_owned(),
            mend: "convert the file, for example with iconv -t UTF-8".to_owned(),
        }
    })
}

/// Maps a file for reading.
///
/// # Errors
/// As [`open`]; [`Error::File`] if it is empty.
pub fn map(path: &Path) -> Result<Mmap> {
    let file = open(path)?;
    if file.metadata().map_err(Error::io("open", path))?.len() == 0 {
        return Err(Error::file(path, "the file is empty", "fetch or write it again"));
    }
    // SAFETY: the map is read only. Files that this program writes are replaced, never changed in place
    // (`replace`); that no other program truncates a file while it is mapped is asked of the user.
    unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))
}

/// Writes a file as a whole: into a temporary file beside it, flushed to the disk, then renamed over `path`.
///
/// `write` gets the buffered temporary file. If anything fails the temporary file is removed and what was at
/// `path` stays as it was. A symbolic link is followed, and what is replaced keeps its permissions.
///
/// # Errors
/// [`Error::Io`] naming `path`, [`Error::File`] if that is a pipe or a device, or what `write` returned.
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let target = &target(path)?;
    let former = fs::metadata(target).ok();
    if former.as_ref().is_some_and(|former| !former.is_file() && !former.is_dir()) {
        return Err(special(path));
    }
    let temporary = Temporary::file(target)?;
    let file = OpenOptions::new().write(true).open(&temporary.path).map_err(Error::io("write", path))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    write(&mut writer)?;
    let file = writer.into_inner().map_err(|error| Error::io("write", path)(error.into_error()))?;
    if let Some(former) = former {
        file.set_permissions(former.permissions()).map_err(Error::io("write", path))?;
    }
    file.sync_all().map_err(Error::io("write", path))?;
    drop(file);
    temporary.rename(target)
}

/// Where a chain of symbolic links ends, whether anything is there or not.
fn target(path: &Path) -> Result<PathBuf> {
    let mut target = path.to_owned();
    // As many as Linux follows.
    for _ in 0..40 {
        match fs::read_link(&target) {
            Ok(next) => target = parent(&target).join(next),
            Err(_) => return Ok(target),
        }
    }
    Err(Error::file(path, "its symbolic links have no end", "name the file itself"))
}

/// Writes bytes as a whole file; see [`replace`].
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn replace_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes).map_err(Error::io("write", path)))
}

/// Whether a file's name is a [`Temporary`]'s: one that is there while nobody writes is of a writer that was killed.
pub fn is_partial(name: &OsStr) -> bool {
    target_of(&name.to_string_lossy()).is_some()
}

/// The name that a [`Temporary`] of this name is written for, `.TARGET.PID-RANDOM.partial`; `None` if it is none.
fn target_of(name: &str) -> Option<&str> {
    let (target, unique) = name.strip_prefix('.')?.strip_suffix(".partial")?.rsplit_once('.')?;
    let (pid, random) = unique.split_once('-')?;
    let ours =
        pid.bytes().all(|byte| byte.is_ascii_digit()) && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    ours.then_some(target)
}

/// A file or directory beside the one that is to be written, removed when dropped.
///
/// It is locked as long as its writer lives: the lock ends with the process, however that ends, and says so to
/// processes that cannot see each other (containers that share a folder). What a killed writer left is removed when
/// the same target is written again.
pub struct Temporary {
    /// Where to write.
    pub path: PathBuf,
    _lock: Option<File>,
}

impl Temporary {
    /// An empty file in the directory of `path`, which is created.
    ///
    /// # Errors
    /// [`Error::Io`] naming `path`, or its directory; [`Error::File`] if `path` names no file.
    pub fn file(path: &Path) -> Result<Temporary> {
        Temporary::new(path, |path| OpenOptions::new().write(true).create_new(true).open(path).map(drop))
    }

    /// An empty directory in the directory of `path`, which is created.
    ///
    /// # Errors
    /// As [`Temporary::file`].
    pub fn directory(path: &Path) -> Result<Temporary> {
        Temporary::new(path, |path| fs::create_dir(path))
    }

    fn new(path: &Path, create: impl Fn(&Path) -> io::Result<()>) -> Result<Temporary> {
        let Some(name) = path.file_name() else {
            return Err(Error::file(path, "this names no file", "give a path that ends in a name"));
        };
        let (name, parent) = (name.to_string_lossy(), parent(path));
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        remove_leftovers_of(parent, Some(&name));
        loop {
            // Process ids repeat, in containers at once; the keys of the standard hasher are random.
            let random = RandomState::new().build_hasher().finish();
            let unique = parent.join(format!(".{name}.{}-{random:016x}.partial", std::process::id()));
            match create(&unique) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("write", path)(error)),
            }
            let lock = lock(&unique);
            // Before it was locked another process may have taken it for a leftover.
            if unique.exists() {
                return Ok(Temporary { path: unique, _lock: lock });
            }
        }
    }

    /// Gives the written file its real name, and makes the change of the directory last.
    ///
    /// # Errors
    /// [`Error::Io`] naming `path`.
    pub fn rename(self, path: &Path) -> Result<()> {
        fs::rename(&self.path, path).map_err(Error::io("write", path))?;
        // Directories can be flushed on Unix only; elsewhere opening one fails, which changes nothing.
        if let Ok(directory) = File::open(parent(path)) {
            let _ = directory.sync_all();
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes a file or directory, if it is there.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// The directory a path lies in; `.` for a bare name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Waits for the lock of a file or directory. `None` where there is no such thing: then nothing is swept either.
fn lock(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    (cfg!(unix) && file.lock().is_ok()).then_some(file)
}

/// Removes what killed writers left in a directory that is this program's own, whatever they were writing.
pub fn remove_leftovers(directory: &Path) {
    remove_leftovers_of(directory, None);
}

/// Removes what killed writers of `name`, or of anything, left in a directory: what has the name of a [`Temporary`]
/// and nobody holds. A failure here must not stop the write.
fn remove_leftovers_of(directory: &Path, name: Option<&str>) {
    let ours = |entry: &fs::DirEntry| {
        let found = entry.file_name();
        target_of(&found.to_string_lossy()).is_some_and(|target| name.is_none_or(|name| name == target))
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.filter(ours).map(|entry| entry.path()) {
        // The lock is kept while the leftover goes: its writer, if it has just begun, waits and takes another name.
        if let Ok(file) = File::open(&path)
            && cfg!(unix)
            && file.try_lock().is_ok()
        {
            remove(&path);
        }
    }
}

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Two lower-case digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
