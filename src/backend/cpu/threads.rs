//! Threads, and how rows are split into blocks for them: here bounds depend on sizes alone, never on the number
//! of threads.

use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

/// Threads that may be asked for, for each that the machine has. Those that wait look for work with everybody else:
/// the time that this takes grows with the square of their number, and would bring a machine to a halt.
const OVERSUBSCRIPTION: usize = 8;

/// Refuses more threads than would ever be of use here. 0 stands for as many as the machine has.
///
/// # Errors
/// [`Error::Setting`].
pub fn check_threads(threads: usize) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = cores * OVERSUBSCRIPTION;
    if threads <= most {
        return Ok(());
    }
    let problem = format!("{threads} are too many for a machine with {cores}");
    Err(Error::setting(
        "threads",
        problem,
        format!("ask for 1 to {most}, or 0 for as many as the machine has"),
    ))
}

/// Has this process compute on so many threads, the calling one among them. To be called once, before anything
/// is computed. Results do not depend on the number.
///
/// # Errors
/// [`Error::Setting`] if work has begun already, those of [`check_threads`], or the system gives no more threads.
pub fn set_threads(threads: usize) -> Result<()> {
    check_threads(threads)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).use_current_thread();
    pool.build_global().map_err(|error| Error::setting("threads", error.to_string(), "ask for fewer"))
}

/// Rows in a block of a row-wise operation on rows of `cols` floats: about 64 KiB.
pub fn rows_per_block(cols: usize) -> usize {
    ((1 << 14) / cols.max(1)).max(1)
}

/// Cuts `data`, rows of `cols`, at `bounds` (ascending, from 0 to all rows): one mutable piece each.
pub fn split_rows(
    mut data: &mut [f32],
    cols: usize,
    pieces: impl Iterator<Item = Range<usize>>,
) -> Vec<&mut [f32]> {
    let mut parts = Vec::new();
    for piece in pieces {
        let (part, rest) = data.split_at_mut(piece.len() * cols);
        parts.push(part);
        data = rest;
    }
    parts
}

/// Runs `block` over `blocks` in parallel; each adds to partial sums of its own, which are added up in the
/// order of the blocks into `totals`.
pub fn reduce<T>(
    blocks: impl IndexedParallelIterator<Item = T>,
    totals: &mut [&mut [f32]],
    block: impl Fn(T, &mut [Vec<f32>]) + Sync + Send,
) {
    let sizes: Vec<usize> = totals.iter().map(|total| total.len()).collect();
    let partial: Vec<Vec<Vec<f32>>> = blocks
        .map(|item| {
            let mut sums: Vec<Vec<f32>> = sizes.iter().map(|&n| vec![0.0; n]).collect();
            block(item, &mut sums);
            sums
        })
        .collect();
    for sums in partial {
        for (total, sum) in totals.iter_mut().zip(sums) {
            total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
        }
    }
}
