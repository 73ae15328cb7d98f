//! The training loop: which weights are kept, what ends it, what an interruption loses (nothing); and what is learnt from
//! the features of a teacher.
#![cfg(feature = "train")]

mod callbacks;
mod features;
mod fixture;
mod ranks;
mod stopping;
