//! The row kernels on every row of the table, against the f64 oracle; the oracle against finite differences.

#[path = "../harness/mod.rs"]
mod harness;
#[allow(dead_code, reason = "shared with the attention tests; each uses a part")]
#[path = "../oracle/mod.rs"]
mod oracle;

mod bits;
mod functions;
mod memory;
mod norm;
mod training;

use harness::Guarded;

/// A kernel of one slice in, one slice out.
fn map(x: &[f32], kernel: impl Fn(&[f32], &mut [f32])) -> Vec<f32> {
    let mut y = Guarded::new(x.len());
    kernel(x, y.inside());
    y.checked()
}
