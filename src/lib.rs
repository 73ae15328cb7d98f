//! limbeck: fine-tune, prune, distil, quantize and deploy BERT-family text classifiers.
//!
//! Dependencies point one way (`tests/layering.rs` holds them to it):
//!
//! ```text
//! limbeck-kernels → tensor · backend → ops → autograd → nn → models → checkpoint
//!                 → infer | train · compress → stages → report → the binary, in tools/
//! ```

pub mod error;
pub mod models;
#[cfg(feature = "train")]
pub mod report;
#[cfg(feature = "train")]
pub mod stages;

pub use error::{Error, Result};
