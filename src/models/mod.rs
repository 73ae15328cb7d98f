//! The networks: what they are made of and how text flows through them.

pub mod config;
