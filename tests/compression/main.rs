//! Pruning, and what pruning rests on, on tiny networks: deletion, masks, importance, the first-token-only last
//! layer, smaller vocabularies, and dropout and sums that do not depend on batches or threads.
#![cfg(feature = "train")]

mod blocks;
#[path = "../common/mod.rs"]
mod common;
mod deletion;
mod exactness;
mod importance;
mod masks;
mod network;
mod vocabulary;
