//! The four stages. Each takes an artifact and gives an artifact; they share nothing in memory.

pub mod recipe;
