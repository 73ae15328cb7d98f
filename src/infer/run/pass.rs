//! Which rows go through a network together.

use super::super::model::Model;
use super::super::shared_rows::SharedRows;
use crate::Batch;
use limbeck_kernels::Kernels;
use std::ops::Range;

/// One pass of some of a batch's texts.
pub(in super::super) struct Pass<'r> {
    pub model: &'r Model,
    pub kernels: Kernels,
    pub batch: &'r Batch,
    /// These texts, by their places in the batch.
    pub texts: Range<usize>,
    /// Tokens at the beginning of each text that have no rows in this pass.
    pub skip: usize,
    pub shared_rows: &'r SharedRows,
}

impl Pass<'_> {
    /// Where a text begins among the rows of the pass; texts are counted from its first. Behind the last: their number.
    pub fn begin(&self, text: usize) -> usize {
        let offsets = &self.batch.offsets[self.texts.start..];
        offsets[text] - offsets[0] - text * self.skip
    }

    /// The rows within which those of a text attend to each other: the whole text's, or each sentence's.
    pub fn attended(
        &self,
        text: usize,
        decoupled: bool,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let rows = self.begin(text)..self.begin(text + 1);
        let first = self.batch.first_lens[self.texts.start + text] - self.skip;
        let cut = if decoupled { rows.start + first } else { rows.end };
        let sentences = [rows.start..cut, cut..rows.end].into_iter();
        sentences.filter(|rows| !rows.is_empty()).map(move |rows| (text, rows))
    }
}
