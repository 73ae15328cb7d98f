//! Pruning, and what pruning rests on, on tiny networks: deletion, masks, importance, the first-token-only last
//! layer, smaller vocabularies, factored words and matrices, shared layers, and dropout and sums that do not depend on batches or threads.
#![cfg(feature = "train")]

mod blocks;
#[path = "../common/mod.rs"]
mod common;
mod deletion;
mod embedding_factors;
mod emptied;
mod exactness;
mod importance;
mod layers;
mod masks;
mod matrix_factors;
mod network;
#[allow(dead_code, reason = "its noise is for int8")]
#[path = "../oracle/mod.rs"]
mod oracle;
mod rounds;
mod sensitivity;
mod sharing;
mod slopes;
mod vocabulary;
mod width;
