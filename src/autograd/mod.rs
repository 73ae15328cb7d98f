//! A tape of coarse operations.
//!
//! [`Tape`] runs each operation at once and, when it records, keeps a [`Node`] that owns what the operation's
//! backward pass needs. The list is already in order, so [`Tape::backward`] walks it from the end: no graph,
//! no sorting, no lookup. Where several ranks train, gradients are summed over them in buckets on the way. Dropping a variable frees its memory as soon as no node holds it.

mod buckets;
mod grads;
mod tape;
mod var_id;

pub use grads::Grads;
pub use tape::{Context, Node, OutputGrad, Recorded, Tape, Var};
pub use var_id::VarId;
