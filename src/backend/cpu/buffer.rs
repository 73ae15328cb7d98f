//! Cache-line aligned storage that returns to a pool when it is dropped.
//!
//! A training step makes about a gigabyte of intermediate results. Fresh from the system, that memory
//! costs a page fault for every 4 KiB, about a tenth of the step; from the pool it costs nothing.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Sixteen floats, one cache line, one AVX-512 register.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// `len` floats that begin at a multiple of 64 bytes.
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
    pool: Weak<Pool>,
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `lines` holds at least `len` floats (Pool::take), and Line is 16 floats without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.free().push(std::mem::take(&mut self.lines));
        }
    }
}

/// Buffers that nobody uses at the moment.
#[derive(Default)]
pub(super) struct Pool {
    free: Mutex<Vec<Vec<Line>>>,
    largest: AtomicUsize,
}

impl Pool {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Line>>> {
        self.free.lock().expect("nothing panics while it holds the list")
    }

    /// Gives what is free back to the system.
    pub(super) fn forget(&self) {
        self.free().clear();
    }

    /// The most floats that a buffer was asked to have.
    pub(super) fn largest(&self) -> usize {
        self.largest.load(Ordering::Relaxed)
    }

    /// A buffer of `len` floats, their values unspecified: a free one that is at most twice as large as
    /// needed, or a fresh one.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        self.largest.fetch_max(len, Ordering::Relaxed);
        let lines = len.div_ceil(16);
        let mut free = self.free();
        let fits = |have: usize| have >= lines && have <= 2 * lines + 64;
        let best = (0..free.len()).filter(|&i| fits(free[i].len())).min_by_key(|&i| free[i].len());
        let lines = match best {
            Some(i) => free.swap_remove(i),
            // An eighth of headroom: token counts differ from batch to batch.
            None => vec![Line([0.0; 16]); lines + lines / 8],
        };
        Buffer { lines, len, pool: Arc::downgrade(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let pool = Arc::new(Pool::default());
        let first = pool.take(1000);
        let place = first.as_ptr();
        assert_eq!(place as usize % 64, 0);
        drop(first);
        assert_eq!(pool.take(900).as_ptr(), place);
        assert_eq!(pool.take(0).len(), 0);
        assert!(!pool.free().is_empty());
        pool.forget();
        assert!(pool.free().is_empty());
    }
}
