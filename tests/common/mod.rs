//! What several tests need: the shared folder, and the largest of some errors.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::io::Write;
use std::path::PathBuf;

/// A file or directory of the shared folder (`LIMBECK_SHARED`, or `../shared` beside the checkout), which holds
/// data and reference numbers that are not part of the project. Absent, the test that asked says so, loudly,
/// and proves nothing; with `LIMBECK_REQUIRE_SHARED` set, it fails.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LIMBECK_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(
        std::env::var_os("LIMBECK_REQUIRE_SHARED").is_none(),
        "LIMBECK_REQUIRE_SHARED is set and {} is absent",
        found.display()
    );
    say(&format!("SKIPPED: {} is absent, so this test has tested NOTHING", found.display()));
    None
}

/// Says something that must be heard. Not eprintln!, which the test harness keeps to itself when a test passes.
pub fn say(text: &str) {
    std::io::stderr().write_all(format!("\n*** {text} ***\n\n").as_bytes()).unwrap();
}

/// The largest of these errors; NaN if one of them is, so that no bound holds for it.
pub fn worst(errors: impl IntoIterator<Item = f64>) -> f64 {
    let keep = |worst: f64, error: f64| if error <= worst || worst.is_nan() { worst } else { error };
    errors.into_iter().fold(0.0, keep)
}

/// The largest difference; NaN if one of them is.
pub fn largest_difference<T: Copy + Into<f64>>(found: &[T], expected: &[T]) -> f64 {
    assert_eq!(found.len(), expected.len());
    worst(found.iter().zip(expected).map(|(&found, &expected)| (found.into() - expected.into()).abs()))
}

/// The largest difference, as a share of the largest magnitude expected; NaN if one of either is.
pub fn distance<T: Copy + Into<f64>>(found: &[T], expected: &[T]) -> f64 {
    largest_difference(found, expected) / magnitude(expected).max(1e-30)
}

/// The largest magnitude; NaN if one of the values is.
pub fn magnitude<T: Copy + Into<f64>>(values: &[T]) -> f64 {
    worst(values.iter().map(|&value| value.into().abs()))
}

/// Of a key projection's bias the name of the query projection's. A key's bias shifts every score of a query
/// alike, so that its gradient is zero but for rounding.
pub fn query_of_key_bias(name: &str) -> Option<String> {
    [("k_lin.bias", "q_lin.bias"), ("key.bias", "query.bias")]
        .into_iter()
        .find_map(|(key, query)| Some(format!("{}{query}", name.strip_suffix(key)?)))
}
