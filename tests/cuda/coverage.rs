//! Whether the tests together have run every kernel there is, in every order of threads.

use crate::device::in_emulation;
use limbeck_emulation::not_launched;

unsafe extern "C" {
    safe fn atexit(then: extern "C" fn()) -> i32;
    safe fn _exit(status: i32) -> !;
}

/// What has been launched is known when all tests are done, so this one has it asked when the process ends, which fails then.
/// Nothing is asked where tests were chosen by name.
#[test]
fn every_kernel_runs() {
    let chosen = std::env::args()
        .skip(1)
        .any(|argument| !argument.starts_with('-') && argument.parse::<u32>().is_err());
    if in_emulation() && !chosen {
        assert_eq!(atexit(fail_if_any_is_left), 0);
    }
}

extern "C" fn fail_if_any_is_left() {
    let left = not_launched();
    if !left.is_empty() {
        eprintln!("kernels that no test has launched in these orders:\n{}", left.join("\n"));
        _exit(101);
    }
}
