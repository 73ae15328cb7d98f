//! Models that live as long as somebody uses them: what borrows from a model can keep it instead.

use super::model::Model;
use crate::tokenizer::WordPiece;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A model that somebody else owns, or that is kept by all who share it: a `Session<'static>` of an `Arc<Model>` can stand
/// in a struct beside it.
#[derive(Clone)]
pub enum ModelRef<'m> {
    /// Somebody else's.
    Borrowed(&'m Model),
    /// Everybody's.
    Shared(Arc<Model>),
}

impl Deref for ModelRef<'_> {
    type Target = Model;

    fn deref(&self) -> &Model {
        match self {
            ModelRef::Borrowed(model) => model,
            ModelRef::Shared(model) => model,
        }
    }
}

impl<'m> From<&'m Model> for ModelRef<'m> {
    fn from(model: &'m Model) -> Self {
        ModelRef::Borrowed(model)
    }
}

impl<'m> From<&'m Arc<Model>> for ModelRef<'m> {
    fn from(model: &'m Arc<Model>) -> Self {
        ModelRef::Borrowed(model)
    }
}

impl From<Arc<Model>> for ModelRef<'_> {
    fn from(model: Arc<Model>) -> Self {
        ModelRef::Shared(model)
    }
}

/// The packed vocabulary in a model's file, which keeps the model.
#[derive(Clone)]
pub struct SharedVocabulary {
    model: Arc<Model>,
    place: Range<usize>,
}

impl AsRef<[u8]> for SharedVocabulary {
    fn as_ref(&self) -> &[u8] {
        &self.model.weights.bytes[self.place.clone()]
    }
}

impl Model {
    /// As [`Model::tokenizer`], for as long as anybody wants it.
    pub fn shared_tokenizer(self: &Arc<Self>) -> Option<WordPiece<SharedVocabulary>> {
        let bytes = SharedVocabulary { model: Arc::clone(self), place: self.vocabulary.clone()? };
        Some(WordPiece::from_bytes(bytes).expect("checked when the file was opened"))
    }
}
