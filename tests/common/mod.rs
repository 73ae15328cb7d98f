//! What several tests need.

use std::path::PathBuf;

/// A file or directory of the shared folder (`LIMBECK_SHARED`, or `../shared` beside the checkout), which holds
/// data and reference numbers that are not part of the project. Absent, the test that asked says so, loudly,
/// and proves nothing.
#[allow(dead_code, reason = "each test binary uses its own part of this module")]
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
    eprintln!("\n*** SKIPPED: {} is absent, so this test has tested NOTHING ***\n", found.display());
    None
}
