//! Where it may not or cannot write: a full disk, directories that hold something.

use crate::fixture::{Folder, contents, limbeck, refused, said, succeeds};
use limbeck::stages::RunLock;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// `command` where no file may grow beyond so many blocks: writing more fails, as on a full disk.
fn with_full_disk(command: &Command, blocks: u32) -> Command {
    let mut limited = Command::new("sh");
    // A signal comes with the error, and would kill a program that is not prepared.
    limited.args(["-c", "ulimit -f \"$0\"; exec \"$@\""]).arg(blocks.to_string());
    limited.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    limited
}

/// Names of files and directories that were begun and not finished.
fn unfinished(path: &Path) -> Vec<OsString> {
    let names =
        contents(path).into_keys().flat_map(|path| path.iter().map(OsString::from).collect::<Vec<_>>());
    names.filter(|name| name.to_string_lossy().ends_with(".partial")).collect()
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let folder = Folder::new();
    succeeds(&mut folder.run("model", "data", "whole", &[]));
    let (whole, out) = (folder.path("whole"), folder.path("out"));
    let artifacts = ["baseline", "pruned", "distilled", "int8.limbeck"];
    let (mut failures, mut stopped_at) = (0, std::collections::BTreeSet::new());
    // A block is 512 bytes or 1 KiB. What a try has finished the next one keeps.
    for blocks in [0, 1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 1 << 20] {
        let output =
            with_full_disk(&folder.run("model", "data", "out", &["--resume"]), blocks).output().unwrap();
        let said = said(&output);
        assert!(!out.exists() || unfinished(&out).is_empty(), "{blocks} blocks: {:?}", unfinished(&out));
        let done: Vec<&str> = artifacts.into_iter().filter(|name| out.join(name).exists()).collect();
        for name in done.iter().filter(|name| !name.ends_with("limbeck")) {
            let file = format!("{name}/model.safetensors");
            assert_eq!(fs::read(out.join(&file)).unwrap(), fs::read(whole.join(&file)).unwrap(), "{file}");
            succeeds(&mut folder.predict(&format!("out/{name}"), "a b"));
        }
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), Some(1), "{blocks} blocks: {said}");
        assert!(said.starts_with("error: cannot ") && said.contains("because: "), "{said}");
        assert!(said.contains("out"), "the file is named: {said}");
        assert!(said.contains("; make room, and go on with --resume"), "{said}");
        failures += 1;
        stopped_at.insert(done.len());
    }
    assert!(
        failures >= 3 && stopped_at.len() >= 2,
        "it failed at different places: {failures} {stopped_at:?}"
    );
    let (int8, expected) =
        (fs::read(out.join("int8.limbeck")).unwrap(), fs::read(whole.join("int8.limbeck")).unwrap());
    assert!(int8 == expected, "what was interrupted by full disks ends in the same bytes");
    assert!(out.join("report.json").exists());
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let folder = Folder::new();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    if !Path::new("/dev/full").exists() {
        // Not eprintln!, which the test harness keeps to itself when a test passes.
        let skipped = b"\n*** SKIPPED: there is no /dev/full here, so this test has tested NOTHING ***\n\n";
        return std::io::Write::write_all(&mut std::io::stderr(), skipped).unwrap();
    }
    for command in [&mut folder.predict("model", "a"), &mut limbeck(&["kernels"])] {
        let output =
            command.stdout(full()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot write standard output"), "{said}");
    }
}

#[test]
fn a_full_disk_while_exporting() {
    let folder = Folder::new();
    for format in ["hf", "hf-padded", "limbeck"] {
        let mut export = limbeck(&["export", "--format", format]);
        export.arg(folder.path("model")).arg(folder.path("exported"));
        folder.refused(&mut with_full_disk(&export, 2), &["cannot write ", "exported", "because: "]);
        assert!(!folder.path("exported").exists());
        succeeds(&mut export);
        // What is there stays.
        folder.refused(&mut export, &["exported", "; "]);
        match format {
            "limbeck" => fs::remove_file(folder.path("exported")).unwrap(),
            _ => fs::remove_dir_all(folder.path("exported")).unwrap(),
        }
    }
}

#[test]
fn directories_that_hold_something_are_kept() {
    let folder = Folder::new();
    fs::create_dir(folder.path("thesis")).unwrap();
    fs::write(folder.path("thesis/chapter-1.txt"), "It was a dark and stormy night.").unwrap();
    fs::write(folder.path("thesis/recipe.toml"), "flour and eggs").unwrap();
    for resume in [&[][..], &["--resume"]] {
        let mut command = folder.run("model", "data", "thesis", resume);
        folder.refused(
            &mut command,
            &["thesis holds files that are not of a run, which is kept; choose another --out"],
        );
    }
    // A file where the directory should be, and a link to nothing.
    let words = "small.toml: this is a file, and a run needs a directory; choose another --out";
    folder.refused(&mut folder.run("model", "data", "small.toml", &[]), &[words]);
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("link")).unwrap();
    let words = "nowhere, which does not exist; create that directory";
    refused(&mut folder.run("model", "data", "link", &[]), &["link: a symbolic link to ", words]);
    assert!(!folder.path("nowhere").exists());
    fs::remove_file(folder.path("link")).unwrap();
    folder.refused(&mut folder.run("model", "data", "small.toml/out", &[]), &["small.toml"]);

    // A finished run, the same run again, and another.
    succeeds(&mut folder.run("model", "data", "run", &[]));
    folder.refused(
        &mut folder.run("model", "data", "run", &[]),
        &["run holds a finished train stage", "--resume"],
    );
    for resume in [&[][..], &["--resume"]] {
        let more = [&["--set", "train.steps=5"][..], resume].concat();
        let mut other = folder.run("model", "data", "run", &more);
        folder.refused(
            &mut other,
            &[
                "run holds a run of another recipe (\"small\"; train.steps = 4 there, 5 here), which is kept; ",
                "choose another --out",
            ],
        );
    }
    // A run that was half done: one stage is missing.
    fs::remove_dir_all(folder.path("run/pruned")).unwrap();
    folder.refused(&mut folder.run("model", "data", "run", &[]), &["finished train stage"]);
    // One whose run.json is no JSON.
    fs::write(folder.path("run/run.json"), "{").unwrap();
    folder.refused(&mut folder.run("model", "data", "run", &["--resume"]), &["run/run.json", "damaged"]);
}

#[test]
fn one_process_at_a_time() {
    let folder = Folder::new();
    let held = RunLock::take(&folder.path("run")).unwrap();
    for resume in [&[][..], &["--resume"]] {
        let words =
            "run holds a run that another limbeck is working on, which is kept; wait until that one ends";
        folder.refused(&mut folder.run("model", "data", "run", resume), &[words]);
    }
    assert!(contents(&folder.path("run")).is_empty());
    drop(held);
    // A process that another test is just starting has the lock open too, until it runs its own program.
    for _ in 0..100 {
        if folder.run("model", "data", "run", &[]).output().unwrap().status.success() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the lock was never free");
}

#[test]
fn what_killed_writers_left_is_swept() {
    let folder = Folder::new();
    // A run that has begun and made nothing yet.
    refused(&mut folder.run("model", "dta", "run", &[]), &["dta"]);
    fs::create_dir_all(folder.path("run/cache")).unwrap();
    for name in ["run/.pruned.1-0a.partial", "run/cache/.texts.1-0a.partial"] {
        fs::write(folder.path(name), "half").unwrap();
    }
    succeeds(&mut folder.run("model", "data", "run", &[]));
    assert!(unfinished(&folder.path("run")).is_empty(), "{:?}", unfinished(&folder.path("run")));
}

#[test]
fn an_earlier_stage_that_is_missing_is_named() {
    let folder = Folder::new();
    for (stage, missing) in [("prune", "baseline"), ("distill", "pruned"), ("quantize", "int8")] {
        let mut command = limbeck(&[stage, "--quiet"]);
        command.arg(folder.path("small.toml")).arg("--out").arg(folder.path("out"));
        command.arg("--model").arg(folder.path("model")).arg("--data").arg(folder.path("data"));
        let missing = if stage == "quantize" { "distilled" } else { missing };
        refused(&mut command, &[missing, "the artifact of an earlier stage is missing; run `limbeck "]);
    }
}
