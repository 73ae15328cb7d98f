//! Checkpoints: damaged files, the safetensors crate as oracle, configurations, directories.
#![cfg(feature = "train")]

#[path = "../common/mod.rs"]
mod common;

mod configurations;
mod directories;
mod tensors;
