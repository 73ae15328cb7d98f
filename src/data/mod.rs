//! Labelled texts: tables on disk, and their token ids in a cache that is mapped.
//!
//! ```text
//! csv · tsv · jsonl ──table──► rows (label, text, a second sentence)
//!                  ──Tokenizer, on all threads──► cache file ──map──► TokenSet
//! ```
//!
//! A table is read as a stream, twice at most: once to check every row, count them, hash the file and find
//! its classes; once more, a chunk at a time, if no cache with that content exists. Memory does not grow
//! with the corpus, and processes share the cache's pages. [`demo`] makes a corpus without any file.

mod cache;
pub mod demo;
mod labels;
mod layout;
mod options;
mod prepare;
mod records;
mod table;
mod token_set;

pub use labels::{Labels, read_classes};
pub use options::{Classes, Column, Format, TableOptions};
pub use table::{Row, RowReader, TableSource};
pub use token_set::TokenSet;

/// A text and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Index of the class, as the logits are ordered.
    pub label: usize,
    /// The text.
    pub text: String,
}
