//! The CUDA half of every operation, against the CPU half.
//!
//! Without a GPU it runs in the emulation (`kernels/emulation`): the same sources, compiled for the CPU, behind a stand-in driver that
//! the unchanged launching code talks to, in ascending, descending and shuffled orders of threads. Where there is a
//! GPU it runs on that instead; with `LIMBECK_REQUIRE_CUDA=1` it fails where there is none.
#![cfg(feature = "cuda")]

mod attention;
mod attention_oracle;
#[path = "../common/mod.rs"]
mod common;
mod coverage;
mod device;
mod graphs;
mod linear;
mod relation;
mod rows;
mod step;
mod terms;
mod vocabulary;
