//! Who computes: one session on this thread, or several threads that share the texts.

use limbeck::Batch;
use limbeck::infer::{Model, Session, SessionPool};
use limbeck_peers_protocol::Failure;

/// Texts, and what computes their logits.
pub struct Seats<'m> {
    workers: Workers<'m>,
    batch: Batch,
}

enum Workers<'m> {
    One(Session<'m>),
    /// Texts are shared among threads; one text alone is computed on one of them.
    Many(SessionPool<'m>),
}

impl<'m> Seats<'m> {
    /// Room for `threads` threads. This is the one place that knows how limbeck is told of them.
    pub fn new(model: &'m Model, threads: usize) -> Seats<'m> {
        let workers = match threads {
            0 | 1 => Workers::One(Session::new(model)),
            _ => Workers::Many(SessionPool::new(model, threads)),
        };
        Seats { workers, batch: Batch::new() }
    }

    /// Takes the texts of the next calls of [`Seats::logits`].
    pub fn place(&mut self, texts: &[&[u32]]) {
        self.batch.clear();
        texts.iter().zip(0..).for_each(|(text, sample)| self.batch.push(text, sample));
    }

    /// Logits of each text, end to end.
    ///
    /// # Errors
    /// Those of a session.
    pub fn logits(&mut self) -> Result<Vec<f32>, Failure> {
        Ok(match &mut self.workers {
            Workers::One(session) => session.logits(&self.batch)?.to_vec(),
            Workers::Many(pool) => {
                let text = |i| &self.batch.ids[self.batch.text(i)];
                let texts: Vec<&[u32]> = (0..self.batch.texts()).map(text).collect();
                pool.logits(&texts)?.to_vec()
            }
        })
    }
}
