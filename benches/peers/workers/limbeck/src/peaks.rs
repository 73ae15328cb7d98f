//! What this CPU can do at most: arithmetic on registers, and reading memory, on so many cores at once.

use crate::peak;
use limbeck_kernels::Kernels;
use limbeck_peers_protocol::Failure;
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// Passes over the memory, of which the fastest counts.
const PASSES: usize = 8;

/// Gop/s and GB/s of all threads together (null where no probe is known), with the kernels that would be chosen.
///
/// # Errors
/// If `LIMBECK_ISA` names kernels that this CPU lacks.
pub fn measure(threads: usize, mib: usize) -> Result<Value, Failure> {
    let isa = Kernels::select()?.isa();
    Ok(json!({
        "kernels": isa.name(),
        "threads": threads,
        "int8": together(threads, || peak::int8(isa)),
        "bf16": together(threads, || peak::bf16(isa)),
        "f32": together(threads, || peak::f32(isa)),
        "bytes": together(threads, || Some(reading(mib << 20))),
    }))
}

/// The sum over threads that begin at the same moment.
fn together(threads: usize, probe: impl Fn() -> Option<f64> + Sync) -> Option<f64> {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let waiting = || {
            start.wait();
            probe()
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(waiting)).collect();
        running.into_iter().map(|one| one.join().expect("a probe does not panic")).sum()
    })
}

/// GB/s of reading so many bytes of one's own in order.
fn reading(bytes: usize) -> f64 {
    const LANES: usize = 16;
    let memory = vec![1_u64; bytes / 8];
    let pass = |_| {
        let start = Instant::now();
        let mut sums = [0_u64; LANES];
        for chunk in black_box(&memory).chunks_exact(LANES) {
            sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum |= value);
        }
        black_box(sums);
        start.elapsed().as_secs_f64()
    };
    bytes as f64 / (0..PASSES).map(pass).fold(f64::INFINITY, f64::min) / 1e9
}
