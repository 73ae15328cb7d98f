//! Prediction: an arena for each thread, no copy of the weights.
//!
//! ```text
//! .limbeck file ──map──► Model (shared, read only) ──► Session (one thread or a team) ──► logits
//!                 │                                      │
//!                 checked against its own                runs `Classifier::forward` over an arena
//!                 configuration, never copied            of activations that is reused, not freed
//! ```
//!
//! A `.limbeck` file is a safetensors file ([`mod@format`] says what it holds), whose int8 matrices lie in the order
//! in which the inner loop reads them. Opening one costs page faults, and processes that open the same file
//! share its memory.
//!
//! An int8 session quantizes activations per token, each row once, while it is still in the first-level cache:
//! whoever produces a row that a product will read (a norm, the embeddings, attention, a nonlinearity) leaves
//! both the floats and the bytes. Between the products everything is f32 over sixteen virtual lanes in a fixed
//! order, so that logits are the same bits on every CPU, in every batch, beside every other text and with any number of
//! threads. Those of a session divide the tokens of a pass and show each other rows where attention needs them (`shared_rows`).

mod arena;
mod bytes;
pub mod format;
mod golden;
mod load;
mod model;
mod prepared;
mod run;
mod session;
mod shared;
mod shared_rows;
mod timing;
mod weights;
#[cfg(feature = "train")]
mod write;

pub use model::{Model, Stored, StoredAs};
pub use prepared::Prepared;
pub use session::Session;
pub use shared::{ModelRef, SharedVocabulary};
pub use timing::PartTimes;
#[cfg(feature = "train")]
pub use write::{Image, Tensor};

/// Embeds a `.limbeck` file in the program, aligned as [`Model::from_bytes`] asks for; the path is as in
/// [`include_bytes!`], and the result is a `&'static [u8]`.
///
/// ```
/// static MODEL: &[u8] = limbeck::include_model!("../../tests/fixtures/tiny.limbeck");
/// let model = limbeck::infer::Model::from_bytes(MODEL)?;
/// assert_eq!(model.config().labels, ["no", "yes"]);
/// # Ok::<(), limbeck::Error>(())
/// ```
#[macro_export]
macro_rules! include_model {
    ($path:expr) => {{
        #[repr(C, align(64))]
        struct Aligned<Bytes: ?Sized>(Bytes);
        static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &MODEL.0
    }};
}
