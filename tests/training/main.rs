//! The training loop: which weights are kept, what ends it, what an interruption loses (nothing); and what is learnt from
//! the inside of a teacher.
#![cfg(feature = "train")]

mod companions;
mod endings;
mod fixture;
mod ranks;
mod tutor;
