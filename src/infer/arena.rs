//! Activations: a few slots of memory that are handed out, shared and taken back, but never freed.
//!
//! Every slot is as large as the largest activation of the largest batch so far, so which slot serves which
//! result does not matter, and after one batch of a size no batch of that size or below allocates. Fresh memory
//! comes zeroed from the operating system: of a slot that is never filled to its end, the end is never resident.

use limbeck_kernels::gemm::QuantizedRows;
use std::sync::Arc;

/// One activation: floats, and for the products of an int8 model the same rows in bytes.
#[derive(Default)]
pub(super) struct Slot {
    /// `[rows, cols]`.
    pub values: Vec<f32>,
    /// The values in int8, if `quantized`.
    pub int8: QuantizedRows,
    /// Whether `int8` stands for `values`.
    pub quantized: bool,
}

/// A claim on a slot. Clones share it; the slot is free when all are gone.
#[derive(Clone)]
pub(super) struct SlotRef {
    index: usize,
    _claim: Arc<()>,
}

/// The slots of one thread of a session.
#[derive(Default)]
pub(super) struct Arena {
    slots: Vec<(Slot, Arc<()>)>,
    rows: usize,
    cols: usize,
    int8: bool,
}

impl Arena {
    /// Makes every slot, from its next use on, large enough for `rows × cols`, in int8 too if asked.
    pub fn reserve(&mut self, rows: usize, cols: usize, int8: bool) {
        self.int8 = int8;
        self.rows = self.rows.max(rows);
        self.cols = self.cols.max(cols);
    }

    /// Takes a free slot's memory out, to be filled while others are read. It holds whatever it held.
    pub fn take(&mut self) -> (SlotRef, Slot) {
        let free = self.slots.iter().position(|(_, claim)| Arc::strong_count(claim) == 1);
        let index = free.unwrap_or_else(|| {
            self.slots.push((Slot::default(), Arc::new(())));
            self.slots.len() - 1
        });
        let (slot, claim) = &mut self.slots[index];
        let mut slot = std::mem::take(slot);
        let len = self.rows * self.cols;
        if slot.values.len() < len {
            // Dropped first: the two need not be there together.
            slot = Slot::default();
            slot = Slot { values: vec![0.0; len], ..slot };
            if self.int8 {
                slot.int8.reset(self.rows, self.cols);
            }
        }
        slot.quantized = false;
        (SlotRef { index, _claim: Arc::clone(claim) }, slot)
    }

    /// Puts a slot back under its claim.
    pub fn put(&mut self, claim: &SlotRef, slot: Slot) {
        self.slots[claim.index].0 = slot;
    }

    /// A slot, to read.
    pub fn get(&self, claim: &SlotRef) -> &Slot {
        &self.slots[claim.index].0
    }

    /// A slot, to quantize.
    pub fn get_mut(&mut self, claim: &SlotRef) -> &mut Slot {
        &mut self.slots[claim.index].0
    }
}

/// Makes `buffer` at least `len` long; what it holds is of no interest.
pub(super) fn grow<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.clear();
        buffer.resize(len, T::default());
    }
}
