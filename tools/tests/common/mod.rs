//! Calling the binary.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary, with these arguments and nothing on standard input; tokens are kept in the folder of the tests.
pub fn limbeck(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.env("LIMBECK_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What comes of a call.
pub fn call(arguments: &[&str]) -> Output {
    limbeck(arguments).output().unwrap()
}

/// What comes of a call with this on standard input.
pub fn fed(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Standard output and standard error of what succeeded.
#[track_caller]
pub fn succeeded(output: Output) -> [String; 2] {
    let [out, told] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{told}");
    [out, told]
}

/// Standard output and standard error of a call that succeeds.
#[track_caller]
pub fn said(arguments: &[&str]) -> [String; 2] {
    println!("{arguments:?}");
    succeeded(call(arguments))
}

/// What a call that fails says.
#[track_caller]
pub fn refused(arguments: &[&str]) -> String {
    let output = call(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}
