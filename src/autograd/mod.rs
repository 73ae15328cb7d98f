//! A tape of coarse operations.
//!
//! [`Tape`] runs each operation at once and, when it records, keeps a [`Node`] that owns what the operation's
//! backward pass needs. The list is already in order, so [`Tape::backward`] walks it from the end: no graph,
//! no sorting, no lookup. Dropping a variable frees its memory as soon as no node holds it.

mod grads;
mod tape;

pub use grads::Grads;
pub use tape::{Context, Node, Recorded, Tape, Var, VarId};
