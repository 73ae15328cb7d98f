//! Writers that fail or are killed, links, and what is no file.

use super::*;

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_failed_write_keeps_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights");
    replace_bytes(&path, b"old").unwrap();
    let full = replace(&path, |file| {
        file.write_all(&[7; 3 << 20]).map_err(Error::io("write", &path))?;
        Err(Error::io("write", &path)(io::Error::from(io::ErrorKind::StorageFull)))
    });
    assert!(matches!(full, Err(Error::Io { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(entries(directory.path()), 1, "the temporary file is gone");
    replace_bytes(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(entries(directory.path()), 1);
}

#[cfg(unix)]
#[test]
fn leftovers_of_killed_writers_are_swept_and_living_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let pid = std::process::id();
    fs::write(at(".model.1-0.partial"), b"left").unwrap();
    fs::create_dir(at(&format!(".model.{pid}-00ff.partial"))).unwrap();
    fs::write(at(&format!(".model.{pid}-00ff.partial")).join("part"), b"left").unwrap();
    let others = [".other.1-0.partial", ".model.notes.partial", "model.1-0.partial", ".model.1-0"];
    others.iter().for_each(|name| fs::write(at(name), b"not ours").unwrap());
    let living = [Temporary::file(&at("model")).unwrap(), Temporary::directory(&at("model")).unwrap()];
    replace_bytes(&at("model"), b"new").unwrap();
    assert!(living.iter().all(|temporary| temporary.path.exists()), "their writers live");
    assert!(others.iter().all(|name| at(name).exists()));
    assert_eq!(entries(directory.path()), 1 + others.len() + living.len());
    drop(living);
    assert_eq!(entries(directory.path()), 1 + others.len());
    // Of all targets together.
    let living = Temporary::file(&at("model")).unwrap();
    remove_leftovers(directory.path());
    assert!(!at(others[0]).exists() && living.path.exists());
    assert!(others[1..].iter().all(|name| at(name).exists()), "these are of no writer");
}

/// The limit on a file's size fails a write as a full disk does: the error must arrive, whether the buffer meets
/// it on the way or when it is emptied at the end, and what was there must stay. The limit holds for a whole
/// process, so the test starts itself in one of its own.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error() {
    const INSIDE: &str = "LIMBECK_TEST_FULL_DISK";
    if let Some(path) = std::env::var_os(INSIDE) {
        for length in [100 << 10, 3 << 20] {
            let full = replace_bytes(Path::new(&path), &vec![7; length]);
            assert!(matches!(full, Err(Error::Io { .. })), "{length} bytes were written: {full:?}");
        }
        // Small files fit, so it was the limit.
        return replace_bytes(&Path::new(&path).with_file_name("small"), b"fits").unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights");
    replace_bytes(&path, b"old").unwrap();
    // Blocks of at most 1,024 bytes. The signal that comes with the error would end the process.
    let shell = "trap '' XFSZ; ulimit -f 32; exec \"$0\" --exact files::tests::a_full_disk_is_an_error";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", shell]).arg(std::env::current_exe().unwrap()).env(INSIDE, &path);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read(path.with_file_name("small")).unwrap(), b"fits");
    assert_eq!(entries(directory.path()), 2, "the temporary files are gone");
}

#[test]
fn directories_and_empty_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    assert!(map(directory.path()).is_err());
    let path = directory.path().join("empty");
    fs::write(&path, b"").unwrap();
    assert!(map(&path).unwrap_err().to_string().contains("empty"));
    assert!(map(&directory.path().join("absent")).unwrap_err().to_string().contains("absent"));
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, Path::new("/dev/zero")] {
        for error in [
            open(path).map(drop).unwrap_err(),
            map(path).map(drop).unwrap_err(),
            read_to_string(path).map(drop).unwrap_err(),
            replace_bytes(path, b"new").unwrap_err(),
        ] {
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
    }
}

#[test]
fn texts_that_are_not_utf_8_are_refused_with_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text");
    fs::write(&path, b"one\ntwo \xff\n").unwrap();
    assert!(read_to_string(&path).unwrap_err().to_string().contains("text, line 2: this is not UTF-8; "));
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_permissions_kept() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("docs")).unwrap();
    fs::write(at("docs/table.md"), "old").unwrap();
    fs::set_permissions(at("docs/table.md"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("docs/table.md", at("link")).unwrap();
    symlink("link", at("second")).unwrap();
    replace_bytes(&at("second"), b"new").unwrap();
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("docs/table.md"));
    assert_eq!(fs::read_link(at("second")).unwrap(), Path::new("link"));
    assert_eq!(fs::read(at("docs/table.md")).unwrap(), b"new");
    let mode = fs::metadata(at("docs/table.md")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    symlink("round", at("round")).unwrap();
    assert!(replace_bytes(&at("round"), b"new").unwrap_err().to_string().contains("no end"));
}

#[test]
fn known_digests() {
    // FIPS 180-2, appendix B.1.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256(b"abc"), abc);
}
