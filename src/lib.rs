//! limbeck: fine-tune, prune, distil, quantize and deploy BERT-family text classifiers.
//!
//! Dependencies point one way (`tests/layering.rs` holds them to it):
//!
//! ```text
//! limbeck-kernels → tensor · backend → ops → autograd → nn → models → checkpoint
//!                 → infer | train · compress → stages → report → the binary, in tools/
//! ```

pub mod checkpoint;
pub mod checkpoint;
#[cfg(feature = "train")]
pub mod data;
pub mod error;
pub mod files;
pub mod models;
pub mod tokenizer;

pub use error::{Error, Result};
