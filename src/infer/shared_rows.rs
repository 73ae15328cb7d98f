//! Rows that the threads of one pass show each other.
//!
//! Each thread has some neighbouring tokens of a pass. All that it does to them needs no other thread's rows, but for
//! attention, and a mean over a text.

use crate::team::Member;
use std::cell::UnsafeCell;
use std::ops::Range;

/// A float that one member writes and all read, at other times.
#[derive(Default)]
#[repr(transparent)]
struct Place(UnsafeCell<f32>);

// SAFETY: places are written and read in `exchange` alone, which says why that is sound.
unsafe impl Sync for Place {}

/// Memory for two activations of all tokens of a pass; written by all members, each its own rows, then read by all.
#[derive(Default)]
pub(super) struct SharedRows {
    /// Where the rows of each member begin, and where the last one's end; ascending.
    bounds: Vec<usize>,
    activations: [Vec<Place>; 2],
}

impl SharedRows {
    /// Divides `rows` rows of at most `cols` columns evenly among `members`.
    pub fn divide(&mut self, rows: usize, cols: usize, members: usize) {
        self.bounds.clear();
        self.bounds.extend((0..=members).map(|member| member * rows / members));
        if members > 1 {
            for activation in &mut self.activations {
                activation.resize_with(activation.len().max(rows * cols), Place::default);
            }
        }
    }

    /// The rows of a member.
    pub fn rows(&self, member: &Member<'_>) -> Range<usize> {
        self.bounds[member.index()]..self.bounds[member.index() + 1]
    }

    /// Shows all rows of up to two activations to `read`, of which this member gives its own: `[own rows, cols]` each,
    /// the same number and width for every member.
    ///
    /// # Safety
    /// Every member of the one team that works with these rows comes here, on its own thread, and all in the same order.
    pub unsafe fn exchange<const N: usize, R>(
        &self,
        member: &Member<'_>,
        own: [&[f32]; N],
        cols: usize,
        read: impl FnOnce([&[f32]; N]) -> R,
    ) -> R {
        const { assert!(N <= 2) };
        if member.count() == 1 {
            return read(own);
        }
        let rows = self.rows(member);
        for (activation, own) in self.activations.iter().zip(own) {
            let places = &activation[rows.start * cols..rows.end * cols];
            assert_eq!(own.len(), places.len(), "rows that were divided");
            // SAFETY: bounds ascend and no two members of a team have one index, so that no other member writes these rows,
            // and none reads them between the last barrier below and the first.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    own.as_ptr(),
                    places.as_ptr().cast::<f32>().cast_mut(),
                    own.len(),
                )
            };
        }
        member.barrier();
        let all = std::array::from_fn(|i| {
            let places = &self.activations[i][..self.bounds[member.count()] * cols];
            // SAFETY: a place is a float, and between the two barriers nobody writes.
            unsafe { std::slice::from_raw_parts(places.as_ptr().cast(), places.len()) }
        });
        let result = read(all);
        member.barrier();
        result
    }
}
