//! Ranks over MPI.

use super::ProcessGroup;
use crate::{Error, Result};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use std::sync::Mutex;

/// All processes that `mpirun` started. It is not ended by being dropped: a process that ends without [`ProcessGroup::leave`] is one that has
/// failed, which `mpirun` notices, and ends the others.
pub struct Mpi {
    /// Held by whoever talks to the others: one thread at a time, as MPI is told.
    universe: Mutex<Option<Universe>>,
    rank: usize,
    size: usize,
    any_thread: bool,
}

impl Mpi {
    /// Meets the others.
    ///
    /// # Errors
    /// [`Error::Ranks`]: MPI was begun before.
    pub fn join() -> Result<Mpi> {
        // Any thread, one at a time; an MPI that gives less has sums made by the thread that begins it.
        let begun = mpi::initialize_with_threading(Threading::Serialized);
        let (universe, given) = begun.ok_or_else(|| Error::Ranks {
            problem: "MPI has begun already".into(),
            mend: "join the ranks once".into(),
        })?;
        let (rank, size) = (universe.world().rank() as usize, universe.world().size() as usize);
        let universe = Mutex::new(Some(universe));
        Ok(Mpi { universe, rank, size, any_thread: given >= Threading::Serialized })
    }

    /// Talks to the others.
    fn talk(&self, call: impl FnOnce(SimpleCommunicator)) -> Result<()> {
        let universe = self.universe.lock().expect("nothing panics while it talks to the others");
        let universe = universe.as_ref().ok_or_else(|| Error::Ranks {
            problem: "MPI has been left".into(),
            mend: "leave the ranks when all is done".into(),
        })?;
        call(universe.world());
        Ok(())
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // Without the end that a universe makes of MPI when it is dropped.
        if let Ok(universe) = self.universe.get_mut() {
            std::mem::forget(universe.take());
        }
    }
}

impl ProcessGroup for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        let own = values.to_vec();
        self.talk(|world| world.all_reduce_into(&own[..], values, SystemOperation::sum()))
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
        let own = values.to_vec();
        self.talk(|world| world.all_reduce_into(&own[..], values, SystemOperation::sum()))
    }

    fn any_thread(&self) -> bool {
        self.any_thread
    }

    fn leave(&self) {
        drop(self.universe.lock().map(|mut universe| universe.take()));
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        self.talk(|world| {
            let first = world.process_at_rank(0);
            let mut length = bytes.len() as u64;
            first.broadcast_into(&mut length);
            bytes.resize(length as usize, 0);
            first.broadcast_into(&mut bytes[..]);
        })
    }
}
