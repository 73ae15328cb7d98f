//! Who computes: a session of so many threads.

use limbeck::Batch;
use limbeck::infer::{Model, Session};
use limbeck_peers_protocol::Failure;

/// Texts, and what computes their logits.
pub struct Runner<'m> {
    session: Session<'m>,
    batch: Batch,
}

impl<'m> Runner<'m> {
    /// Room for `threads` threads. This is the one place that knows how limbeck is told of them.
    pub fn new(model: &'m Model, threads: usize) -> Runner<'m> {
        Runner { session: Session::with_threads(model, threads), batch: Batch::new() }
    }

    /// Takes the texts of the next calls of [`Runner::logits`].
    pub fn place(&mut self, texts: &[&[u32]]) {
        self.batch.refill(texts.iter().copied());
    }

    /// Logits of each text, end to end.
    ///
    /// # Errors
    /// Those of a session.
    pub fn logits(&mut self) -> Result<Vec<f32>, Failure> {
        Ok(self.session.logits(&self.batch)?.to_vec())
    }
}
