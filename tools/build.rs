//! Tells the binary which commit and compiler made it; no figure is printed without them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    // Asked when it runs: a build folder can be copied to another checkout, together with this program.
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = package.join("..");
    // A source archive inside of somebody's repository has no commit of its own.
    let git = |arguments: &[&str]| {
        root.join(".git").exists().then_some(())?;
        said(Command::new("git").arg("-C").arg(&root).args(arguments))
    };
    // Every commit changes the branch's file or the reflog; every edit that could make the tree dirty touches a
    // source folder.
    for path in heads(&root, &git) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    for folder in ["build.rs", "Cargo.toml", "src", "recipes", "../src", "../kernels/src"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    // Another checkout, to which the build folder was copied: .cargo/config.toml sets it.
    println!("cargo:rerun-if-env-changed=LIMBECK_CHECKOUT");
    let commit = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    let rustc = said(Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into())).arg("--version"));
    println!("cargo:rustc-env=LIMBECK_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=LIMBECK_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
}

/// The files of git that say which commit is checked out. Those in the checkout are named relative to the package, so
/// that a build folder that was copied from elsewhere looks at the checkout it is in.
fn heads(root: &Path, git: &impl Fn(&[&str]) -> Option<String>) -> Vec<PathBuf> {
    let folder = |asked: &str| git(&["rev-parse", asked]).map(PathBuf::from);
    let (Some(own), Some(common)) = (folder("--absolute-git-dir"), folder("--git-common-dir")) else {
        return Vec::new();
    };
    // Git answers relative to `root` where it can.
    let common = root.join(common);
    let mut files = vec![own.join("HEAD"), own.join("logs/HEAD"), common.join("packed-refs")];
    // A branch is a file of its own; a detached head is all in HEAD.
    let head = fs::read_to_string(own.join("HEAD")).unwrap_or_default();
    files.extend(head.trim().strip_prefix("ref: ").map(|branch| common.join(branch)));
    // In a worktree `.git` is a file that names the folder.
    files.extend(Some(root.join(".git")).filter(|path| path.is_file()));
    let here = fs::canonicalize(root).ok();
    let relative = |path: PathBuf| {
        let path = fs::canonicalize(path).ok()?;
        let inside = here
            .as_ref()
            .and_then(|here| path.strip_prefix(here).ok())
            .map(|path| Path::new("..").join(path));
        Some(inside.unwrap_or(path))
    };
    files.into_iter().filter_map(relative).collect()
}

/// What a command prints, if it exists and succeeds.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
