//! Many texts at once: a session for each thread.

use super::model::Model;
use super::session::Session;
use crate::{Batch, Result};
use rayon::prelude::*;

/// Runs a [`Model`] on several threads of rayon's pool. Logits are the same bits with any number of them.
pub struct SessionPool<'m> {
    seats: Vec<(Session<'m>, Batch)>,
    logits: Vec<f32>,
}

impl<'m> SessionPool<'m> {
    /// A pool that shares texts among `threads` sessions, one at least.
    pub fn new(model: &'m Model, threads: usize) -> SessionPool<'m> {
        let seats = (0..threads.max(1)).map(|_| (Session::new(model), Batch::new())).collect();
        SessionPool { seats, logits: Vec::new() }
    }

    /// Logits of each text, given as its token ids: `[texts, labels]`.
    ///
    /// # Errors
    /// As [`Session::logits`], where a text's number is that among its session's, which read neighbours.
    pub fn logits(&mut self, texts: &[&[u32]]) -> Result<&[f32]> {
        let share = texts.len().div_ceil(self.seats.len()).max(1);
        if share >= texts.len() {
            return logits(&mut self.seats[0], texts);
        }
        let labels = self.seats[0].0.model().config().labels.len();
        self.logits.resize(texts.len() * labels, 0.0);
        let parts = self.logits.par_chunks_mut(share * labels).zip(texts.par_chunks(share));
        self.seats.par_iter_mut().zip(parts).try_for_each(|(seat, (part, texts))| -> Result<()> {
            part.copy_from_slice(logits(seat, texts)?);
            Ok(())
        })?;
        Ok(&self.logits)
    }
}

fn logits<'s>((session, batch): &'s mut (Session<'_>, Batch), texts: &[&[u32]]) -> Result<&'s [f32]> {
    batch.clear();
    texts.iter().zip(0..).for_each(|(text, sample)| batch.push(text, sample));
    session.logits(batch)
}
