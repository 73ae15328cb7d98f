//! Checkpoints: safetensors files, and the Hugging Face directories that hold them.
//!
//! ```text
//! config.json ──config_json──► ModelConfig ──models──► parameter names and shapes
//! model.safetensors ──tensor_file──► TensorFile ──names──► the tensor for each name
//! ```
//!
//! The shapes in the file are checked against the configuration before anything is computed, and every error
//! names the file and the tensor. Layers may have any head count and feed-forward width: what
//! `config.json` has no key for lies in its `"limbeck"` block, which other programs ignore.

mod config_json;
#[cfg(feature = "train")]
mod directory;
mod half_precision;
mod header;
mod label_names;
mod names;
mod tensor_file;
#[cfg(feature = "train")]
mod values;
#[cfg(feature = "train")]
mod write;

#[cfg(feature = "train")]
pub use config_json::config_to_json;
pub use config_json::{is_stock, parse_config, read_config};
#[cfg(feature = "train")]
pub use directory::{Expected, HfDirectory, ValueSource, WEIGHTS};
pub(crate) use half_precision::{bf16_to_f32, f16_to_f32};
pub use header::Dtype;
pub(crate) use header::{ALIGNMENT, Entry, Header, parse as parse_header};
pub use names::{find, is_head, is_of_classes, layer_of};
pub use tensor_file::{DATA_HASH, TensorFile};
#[cfg(feature = "train")]
pub use values::{check_complete, fresh, read_value, read_values};
#[cfg(feature = "train")]
pub(crate) use write::{TensorInfo, header_text};
#[cfg(feature = "train")]
pub use write::{TensorToWrite, Values, write_tensors};
