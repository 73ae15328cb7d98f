//! The training loop: which weights are kept, what ends it, what an interruption loses (nothing).
#![cfg(feature = "train")]

mod companions;
mod endings;
mod fixture;
