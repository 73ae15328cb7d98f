//! Rows that the threads of one pass show each other.
//!
//! Each thread has some neighbouring tokens of a pass. All that it does to them needs no other thread's rows, but for
//! attention, and a mean over a text.

use crate::team::Seat;
use std::cell::UnsafeCell;
use std::ops::Range;

/// Memory for two activations of all tokens of a pass; written by all seats, each its own rows, then read by all.
#[derive(Default)]
pub(super) struct Board {
    /// Where the rows of each seat begin, and where the last one's end; ascending.
    bounds: Vec<usize>,
    sheets: [UnsafeCell<Vec<f32>>; 2],
}

// SAFETY: the cells are read and written in `exchange` alone, which says why that is sound.
unsafe impl Sync for Board {}

impl Board {
    /// Divides `rows` rows of at most `cols` columns evenly among `seats`.
    pub fn divide(&mut self, rows: usize, cols: usize, seats: usize) {
        self.bounds.clear();
        self.bounds.extend((0..=seats).map(|seat| seat * rows / seats));
        if seats > 1 {
            for sheet in &mut self.sheets {
                super::arena::grow(sheet.get_mut(), rows * cols);
            }
        }
    }

    /// The rows of a seat.
    pub fn rows(&self, seat: &Seat<'_>) -> Range<usize> {
        self.bounds[seat.index()]..self.bounds[seat.index() + 1]
    }

    /// Shows all rows of up to two activations to `read`, of which this seat gives its own: `[own rows, cols]` each,
    /// the same number and width at every seat. All seats must come here in the same order.
    pub fn exchange<const N: usize, R>(
        &self,
        seat: &Seat<'_>,
        own: [&[f32]; N],
        cols: usize,
        read: impl FnOnce([&[f32]; N]) -> R,
    ) -> R {
        const { assert!(N <= 2) };
        if seat.count() == 1 {
            return read(own);
        }
        let rows = self.rows(seat);
        let len = self.bounds[self.bounds.len() - 1] * cols;
        for (sheet, own) in self.sheets.iter().zip(own) {
            // SAFETY: the cell holds a vector that nobody grows while the board is borrowed.
            let (memory, all) = unsafe { ((*sheet.get()).as_mut_ptr(), (*sheet.get()).len()) };
            assert!(own.len() == rows.len() * cols && len <= all, "rows that were divided");
            // SAFETY: in bounds; bounds ascend and no two seats have one index, so that no other seat writes these rows,
            // and none reads them between the last meeting below and the first.
            unsafe { std::slice::from_raw_parts_mut(memory.add(rows.start * cols), own.len()) }
                .copy_from_slice(own);
        }
        seat.meet();
        // SAFETY: in bounds; between the two meetings nobody writes.
        let all = std::array::from_fn(|i| unsafe { &(&*self.sheets[i].get())[..len] });
        let result = read(all);
        seat.meet();
        result
    }
}
