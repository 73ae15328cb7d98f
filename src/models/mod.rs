//! The networks: what they are made of and how text flows through them.

mod classifier;
pub mod config;
mod logits;
#[cfg(feature = "train")]
pub mod mlm;
pub mod parts;

pub use classifier::{Classifier, Head, Rows, Taps};
pub use config::ModelConfig;
pub use logits::{highest, probabilities};
