//! limbeck: fine-tune, prune, distil, quantize and deploy BERT-family text classifiers.
//!
//! Dependencies point one way; `tests/layering.rs` reads this list and holds the code to it. A room may use
//! the rooms before it and those beside it (·), but not those across a bar (|).
//!
//! ```text
//! limbeck-kernels → error · files · json · batch · team · formats · ranks → tokenizer → data → models::config → nn → tensor · backend
//!                 → ops · autograd · params → models → checkpoint → infer | train → quantize → compress | controls
//!                 → stages → report → the binary, in tools/
//! ```

#[cfg(feature = "train")]
pub mod autograd;
#[cfg(feature = "train")]
pub mod backend;
mod batch;
pub mod checkpoint;
#[cfg(feature = "train")]
pub mod compress;
#[cfg(feature = "train")]
pub mod controls;
#[cfg(feature = "train")]
pub mod data;
pub mod error;
pub mod files;
pub mod formats;
pub mod infer;
mod json;
pub mod models;
pub mod nn;
#[cfg(feature = "train")]
pub mod ops;
#[cfg(feature = "train")]
pub mod params;
#[cfg(feature = "train")]
pub mod quantize;
#[cfg(feature = "train")]
pub mod ranks;
#[cfg(feature = "train")]
pub mod report;
#[cfg(feature = "train")]
pub mod stages;
#[doc(hidden)]
pub mod team;
#[cfg(feature = "train")]
pub mod tensor;
pub mod tokenizer;
#[cfg(feature = "train")]
pub mod train;

pub use batch::{Batch, Text};
pub use error::{Error, Result};
