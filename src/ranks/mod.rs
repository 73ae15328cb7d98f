//! Processes that train one network together, each on a part of every batch.
//!
//! All ranks run the same stages in step. In each optimizer step a rank computes the gradients of its part of the batch; they are
//! summed over ranks, and every rank takes the same step with the sum. Samples and dropout are keyed by seed, step and text, so
//! that any number of ranks sees the same data; what differs is the order in which gradients are added. Only the first rank writes:
//! artifacts, states and logs are in its directory, which all ranks must see.
//!
//! ```text
//! launch   how the processes were started: the variables of torchrun, Slurm or Open MPI
//! join     which kind of group they make
//! tcp      sums through the first rank, over sockets
//! mpi      sums by MPI (feature `mpi`)
//! overlap  sums by a thread of their own, while gradients are still computed
//! ```

mod join;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
mod overlap;
mod tcp;

pub use join::join;
pub use launch::Launch;
#[cfg(feature = "cuda")]
pub(crate) use overlap::Failing;
pub use overlap::{OneThread, Submit, SummedBuckets, while_summing};
pub use tcp::Tcp;

use crate::{Error, Result};

/// The processes, seen from one of them. Whatever thread calls, it is one at a time.
pub trait ProcessGroup: Sync {
    /// This one's number, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sums over ranks, in place and in the order of ranks; the same bits on each.
    ///
    /// # Errors
    /// [`Error::Ranks`]: another rank has failed.
    fn sum(&self, values: &mut [f32]) -> Result<()>;

    /// Adds up the ranks' values in double precision, as [`sum`](ProcessGroup::sum) does in single.
    ///
    /// # Errors
    /// [`Error::Ranks`].
    fn sum_f64(&self, values: &mut [f64]) -> Result<()>;

    /// Gives what the first rank has to all.
    ///
    /// # Errors
    /// [`Error::Ranks`].
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()>;

    /// Whether another thread than the one that joined may take part in collectives.
    fn any_thread(&self) -> bool {
        true
    }

    /// Tells all that this one has failed: what they wait for is an error then, as it is when the process ends, and so is whatever
    /// another thread of this one waits for.
    fn abort(&self) {}

    /// A check that fails once another rank has gone, to be polled while ranks are waited for by other means than this trait (NCCL).
    /// `None` if the launcher ends all processes when one ends.
    ///
    /// # Errors
    /// [`Error::Ranks`].
    fn watch(&self) -> Result<Option<Watch>> {
        Ok(None)
    }

    /// Shuts down: every rank calls it when all work is done. One that disconnects without it has failed.
    fn leave(&self) {}
}

/// Fails if a rank has gone; waits for none.
pub type Watch = Box<dyn Fn() -> Result<()> + Send>;

/// One process alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProcess;

impl ProcessGroup for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _values: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn sum_f64(&self, _values: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _bytes: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}

impl dyn ProcessGroup + '_ {
    /// Whether this is the one that writes.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether there are others.
    pub fn is_distributed(&self) -> bool {
        self.size() > 1
    }

    /// Waits for all.
    ///
    /// # Errors
    /// [`Error::Ranks`].
    pub fn barrier(&self) -> Result<()> {
        self.sum_f64(&mut [0.0])
    }

    /// What `decide` gives on the first rank, where alone it runs, on all ranks. If it fails there, all fail. It must not
    /// ask the group for anything itself: the others would take that for the answer.
    ///
    /// # Errors
    /// Those of `decide`; [`Error::Ranks`] on the others.
    pub fn from_first<T: Message>(&self, decide: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.is_distributed() {
            return decide();
        }
        if self.is_first() {
            let decided = decide();
            let mut told = match &decided {
                Ok(value) => [vec![1], value.encode()].concat(),
                Err(error) => [vec![0], error.to_string().into_bytes()].concat(),
            };
            // Whoever fails has a better error than that nobody listens.
            let heard = self.broadcast(&mut told);
            return decided.and_then(|value| heard.map(|()| value));
        }
        let mut told = Vec::new();
        self.broadcast(&mut told)?;
        match told.split_first() {
            Some((1, value)) => Ok(T::decode(value)),
            Some((_, error)) => Err(Error::Ranks {
                problem: format!("the first rank stopped: {}", String::from_utf8_lossy(error)),
                mend: "see what it says".into(),
            }),
            None => unreachable!("a word of at least one byte"),
        }
    }

    /// Runs `make` on the first rank, and then on the others, which find what the first has made.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn first_then<T>(&self, make: impl Fn() -> Result<T>) -> Result<T> {
        if !self.is_distributed() {
            return make();
        }
        let mut made = None;
        self.from_first(|| {
            made = Some(make()?);
            Ok(())
        })?;
        made.map_or_else(make, Ok)
    }

    /// Fails on all ranks unless all say the same of `what`: what they compute is to be the same bits.
    ///
    /// # Errors
    /// [`Error::Ranks`] naming what the first rank and this one say.
    pub fn agree(&self, what: &str, own: &str) -> Result<()> {
        let first = self.from_first(|| Ok(own.to_owned()))?;
        let mut others = [f64::from(u8::from(first != own))];
        self.sum_f64(&mut others)?;
        if others[0] == 0.0 {
            return Ok(());
        }
        let problem = match first == own {
            true => format!("{} of {} ranks have another {what} than {own}", others[0], self.size()),
            false => format!("the {what} of rank {} is {own}, and that of the first {first}", self.rank()),
        };
        Err(Error::Ranks {
            problem,
            mend: "start the same program with the same recipe, on equal machines".into(),
        })
    }

    /// The part of `count` things that is this rank's: parts are consecutive, and the earlier ones are larger by one where `count` does
    /// not divide evenly.
    pub fn part(&self, count: usize) -> std::ops::Range<usize> {
        part(self.rank(), self.size(), count)
    }
}

fn part(rank: usize, size: usize, count: usize) -> std::ops::Range<usize> {
    let (each, more) = (count / size, count % size);
    let first = rank * each + rank.min(more);
    first..first + each + usize::from(rank < more)
}

/// What one rank can send to others.
pub trait Message: Sized {
    /// As bytes.
    fn encode(&self) -> Vec<u8>;

    /// From those bytes.
    fn decode(bytes: &[u8]) -> Self;
}

impl Message for () {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(_bytes: &[u8]) {}
}

impl Message for bool {
    fn encode(&self) -> Vec<u8> {
        vec![u8::from(*self)]
    }

    fn decode(bytes: &[u8]) -> bool {
        bytes == [1]
    }
}

impl Message for String {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_cover_everything_once() {
        for size in 1..6 {
            for count in 0..20 {
                let parts: Vec<_> = (0..size).map(|rank| part(rank, size, count)).collect();
                let all: Vec<usize> = parts.iter().cloned().flatten().collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
                assert!(parts.iter().all(|part| part.len().abs_diff(parts[0].len()) <= 1));
            }
        }
    }
}
