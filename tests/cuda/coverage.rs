//! Whether the tests together have run every kernel there is, in every order of threads.

use crate::device::in_emulation;
use limbeck_emulation::not_launched;

/// Sources are compiled for every type of activations. This is what has nothing to do for one of them, or is launched for one
/// alone: `(source, types, kernel)`.
const NEVER: [(&str, &[&str], &str); 7] = [
    ("elementwise", &["float"], "add_float"),
    ("elementwise", &["float"], "add_to_float"),
    ("elementwise", &["float"], "cast_from_float"),
    ("elementwise", &["float"], "cast_to_float"),
    ("attention_rows", &["Bf16", "F16"], "attention_rows_keys"),
    ("sums", &["Bf16", "F16"], "sum_slices"),
    ("terms", &["Bf16", "F16"], "block_sums"),
];

unsafe extern "C" {
    safe fn atexit(then: extern "C" fn()) -> i32;
    safe fn _exit(status: i32) -> !;
}

/// What has been launched is known when all tests are done, so this one has it asked when the process ends, which fails then.
/// Nothing is asked where tests were chosen by name, or left out.
#[test]
fn every_kernel_runs() {
    let chosen = std::env::args().skip(1).any(|argument| match argument.strip_prefix("--") {
        Some(option) => option.starts_with("skip") || option.starts_with("exact"),
        None => !argument.starts_with('-') && argument.parse::<u32>().is_err(),
    });
    if in_emulation() && !chosen {
        assert_eq!(atexit(fail_if_any_is_left), 0);
    }
}

extern "C" fn fail_if_any_is_left() {
    let is_expected = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        NEVER.iter().any(|(source, types, kernel)| {
            words[0] == *source && types.contains(&words[1]) && words[2] == *kernel
        })
    };
    let (expected, left): (Vec<String>, Vec<String>) =
        not_launched().into_iter().partition(|line| is_expected(line));
    if !left.is_empty() {
        eprintln!("kernels that no test has launched in these orders:\n{}", left.join("\n"));
        _exit(101);
    }
    let is_launched = |(source, _, kernel): &&(&str, &[&str], &str)| {
        !expected
            .iter()
            .any(|line| line.starts_with(&format!("{source} ")) && line.split(' ').nth(2) == Some(kernel))
    };
    if let Some(entry) = NEVER.iter().find(is_launched) {
        eprintln!("{entry:?} stands in NEVER, and a test has launched it");
        _exit(101);
    }
}
