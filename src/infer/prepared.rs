//! First sentences of pairs, computed once and used with many second ones.
//!
//! ```text
//! [CLS] first [SEP] ──embeddings, decoupled layers──► Prepared ─┐
//!              second [SEP] ──embeddings, decoupled layers──────┴─► the layers that read both ──► logits
//! ```
//!
//! In a decoupled layer (Cao et al., arXiv:2005.00697) each sentence attends to itself alone. Token types and positions of a
//! first sentence do not depend on what comes behind it, so neither do the states that such layers make of it. Those
//! of a second sentence do: its positions go on where the first one's end. So first sentences can be kept, and second
//! ones cannot. The logits are those of [`Session::logits`] to the bit.

use super::{ModelRef, Session};
use crate::{Batch, Error, Result, Text};

/// A first sentence, as a model's decoupled layers leave it.
pub struct Prepared<'m> {
    model: ModelRef<'m>,
    ids: Vec<u32>,
    /// `[tokens, hidden]`.
    states: Vec<f32>,
}

impl Prepared<'_> {
    /// Its token ids, `[CLS]` and `[SEP]` included.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Whether a text is a pair whose first sentence is this one.
    pub fn begins(&self, Text { ids, first }: &Text<'_>) -> bool {
        *first == self.ids.len() && ids.len() > *first && ids.starts_with(&self.ids)
    }
}

impl<'m> Session<'m> {
    /// Computes what a model's decoupled layers make of a first sentence: `[CLS]`, its pieces, `[SEP]`. It takes four bytes
    /// for each feature of each token.
    ///
    /// # Errors
    /// [`Error::File`], with the model's name, if none of its layers is decoupled, or as [`Session::logits`].
    pub fn prepare(&mut self, first: &[u32]) -> Result<Prepared<'m>> {
        let model = self.model().clone();
        if model.config().decoupled == 0 {
            let problem = "nothing of a first sentence can be kept: no layer of the model is decoupled";
            return Err(Error::file(model.path(), problem, "train one with prune.decouple"));
        }
        let batch = Batch::from_texts([first]);
        self.check(&batch)?;
        self.run(&batch, 0..1, 0, |run| model.classifier.lower(run));
        let mut states = Vec::new();
        self.results(&mut states);
        Ok(Prepared { model, ids: first.to_vec(), states })
    }

    /// Logits of pairs whose first sentence was prepared: `[texts, labels]`, the same bits as [`Session::logits`] gives.
    ///
    /// # Errors
    /// [`Error::File`], with the model's name, if the sentence was prepared by another model; if a text does not begin with
    /// it, has no second sentence, or comes with token types of its own; or as [`Session::logits`].
    pub fn logits_after(&mut self, prepared: &Prepared<'_>, batch: &Batch) -> Result<&[f32]> {
        let model = self.model().clone();
        let wrong = |problem: String, mend: &str| Err(Error::file(model.path(), problem, mend));
        if !std::ptr::eq(&*model, &*prepared.model) {
            return wrong(
                "the first sentence was prepared by another model".into(),
                "prepare it with this one",
            );
        }
        if !batch.token_types.is_empty() {
            return wrong(
                "the batch has token types of its own".into(),
                "leave them away: pairs have theirs",
            );
        }
        let skip = prepared.ids.len();
        let text_of = |text: usize| Text { ids: &batch.ids[batch.text(text)], first: batch.first_lens[text] };
        if let Some(text) = (0..batch.texts()).find(|&text| !prepared.begins(&text_of(text))) {
            let problem = format!("text {text} of the batch is not the prepared sentence and a second one");
            return wrong(problem, "encode the pair so that the first sentence is not cut, or use `logits`");
        }
        let mut others = Vec::new();
        self.each_pass(batch, |session, texts| {
            session.run(batch, texts.clone(), skip, |run| model.classifier.lower(run));
            others.clear();
            session.results(&mut others);
            session.run(batch, texts, 0, |run| {
                let states = run.resume(&prepared.states, &others);
                model.classifier.upper(run, states)
            });
        })
    }
}
