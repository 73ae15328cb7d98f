//! Tells the binary which commit and compiler made it; no figure is printed without them.

use std::path::Path;
use std::process::Command;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let git = |arguments: &[&str]| said(Command::new("git").arg("-C").arg(&root).args(arguments));
    // Every commit appends to the reflog; every edit that could make the tree dirty touches a source folder.
    if let Some(folder) = git(&["rev-parse", "--absolute-git-dir"]) {
        for file in ["HEAD", "logs/HEAD"] {
            let path = Path::new(&folder).join(file);
            if path.exists() {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
    }
    for folder in ["build.rs", "Cargo.toml", "src", "recipes", "../src", "../kernels/src"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let commit = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    let rustc = said(Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into())).arg("--version"));
    println!("cargo:rustc-env=LIMBECK_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=LIMBECK_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
}

/// What a command prints, if it exists and succeeds.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
