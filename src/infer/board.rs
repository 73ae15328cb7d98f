//! Rows that the threads of one pass show each other.
//!
//! Each thread has some neighbouring tokens of a pass. All that it does to them needs no other thread's rows, but for
//! attention, and a mean over a text.

use crate::team::Seat;
use std::cell::UnsafeCell;
use std::ops::Range;

/// A float that one seat writes and all read, at other times.
#[derive(Default)]
#[repr(transparent)]
struct Place(UnsafeCell<f32>);

// SAFETY: places are written and read in `exchange` alone, which says why that is sound.
unsafe impl Sync for Place {}

/// Memory for two activations of all tokens of a pass; written by all seats, each its own rows, then read by all.
#[derive(Default)]
pub(super) struct Board {
    /// Where the rows of each seat begin, and where the last one's end; ascending.
    bounds: Vec<usize>,
    sheets: [Vec<Place>; 2],
}

impl Board {
    /// Divides `rows` rows of at most `cols` columns evenly among `seats`.
    pub fn divide(&mut self, rows: usize, cols: usize, seats: usize) {
        self.bounds.clear();
        self.bounds.extend((0..=seats).map(|seat| seat * rows / seats));
        if seats > 1 {
            for sheet in &mut self.sheets {
                sheet.resize_with(sheet.len().max(rows * cols), Place::default);
            }
        }
    }

    /// The rows of a seat.
    pub fn rows(&self, seat: &Seat<'_>) -> Range<usize> {
        self.bounds[seat.index()]..self.bounds[seat.index() + 1]
    }

    /// Shows all rows of up to two activations to `read`, of which this seat gives its own: `[own rows, cols]` each,
    /// the same number and width at every seat.
    ///
    /// # Safety
    /// Every seat of the one team that works with this board comes here, on its own thread, and all in the same order.
    pub unsafe fn exchange<const N: usize, R>(
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
        for (sheet, own) in self.sheets.iter().zip(own) {
            let places = &sheet[rows.start * cols..rows.end * cols];
            assert_eq!(own.len(), places.len(), "rows that were divided");
            // SAFETY: bounds ascend and no two seats of a team have one index, so that no other seat writes these rows,
            // and none reads them between the last meeting below and the first.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    own.as_ptr(),
                    places.as_ptr().cast::<f32>().cast_mut(),
                    own.len(),
                )
            };
        }
        seat.meet();
        let all = std::array::from_fn(|i| {
            let places = &self.sheets[i][..self.bounds[seat.count()] * cols];
            // SAFETY: a place is a float, and between the two meetings nobody writes.
            unsafe { std::slice::from_raw_parts(places.as_ptr().cast(), places.len()) }
        });
        let result = read(all);
        seat.meet();
        result
    }
}
