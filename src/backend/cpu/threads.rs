//! Threads, and how rows are split into blocks for them: here bounds depend on sizes alone, never on the number
//! of threads.

use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

/// More threads than any machine has; starting very many would bring one to a halt.
const MAX_THREADS: usize = 4096;

/// Has this process compute on so many threads, the calling one among them. To be called once, before anything
/// is computed. Results do not depend on the number.
///
/// # Errors
/// [`Error::Setting`] if work has begun already, or the system gives no more threads.
pub fn set_threads(threads: usize) -> Result<()> {
    if threads > MAX_THREADS {
        let mend = format!("ask for at most {MAX_THREADS}, or 0 for as many as the machine has");
        return Err(Error::setting("threads", format!("{threads} are too many"), mend));
    }
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
