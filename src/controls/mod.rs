//! Controls: what a task takes when nothing of it is understood.
//!
//! A compressed network is worth something if it is better than what costs nothing. The control here is the plainest
//! classifier that is any good: which words a text has, and which pairs of neighbours, weighted by a linear model.
//!
//! ```text
//! text ──words──► word ids ──hashed 1- and 2-grams──► buckets, counts of length 1 ──weights──► logits
//! ```
//!
//! [`Words`] makes ids of words where a network's tokenizer makes ids of pieces, so that both are fed, and timed, alike.

mod features;
mod file;
mod linear;
mod words;

pub use features::Features;
pub use linear::{Linear, Settings};
pub use words::Words;
