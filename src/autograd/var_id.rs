//! Places of results on a tape, which gradients are kept by.

/// A result's place on the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VarId(pub(super) u32);

impl VarId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}
