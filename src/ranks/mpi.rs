//! Ranks over MPI.

use super::Ranks;
use crate::{Error, Result};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use std::mem::ManuallyDrop;
use std::sync::{Mutex, MutexGuard};

/// All processes that `mpirun` started. It is not ended by being dropped: a process that ends without [`Ranks::leave`] is one that has
/// failed, which `mpirun` notices, and ends the others.
pub struct Mpi {
    /// Held by whoever talks to the others: one thread at a time, as MPI is told.
    universe: Mutex<ManuallyDrop<Universe>>,
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
        let universe = Mutex::new(ManuallyDrop::new(universe));
        Ok(Mpi { universe, rank, size, any_thread: given >= Threading::Serialized })
    }

    fn universe(&self) -> MutexGuard<'_, ManuallyDrop<Universe>> {
        self.universe.lock().expect("nothing panics while it talks to the others")
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        let own = values.to_vec();
        self.universe().world().all_reduce_into(&own[..], values, SystemOperation::sum());
        Ok(())
    }

    fn sum_wide(&self, values: &mut [f64]) -> Result<()> {
        let own = values.to_vec();
        self.universe().world().all_reduce_into(&own[..], values, SystemOperation::sum());
        Ok(())
    }

    fn any_thread(&self) -> bool {
        self.any_thread
    }

    fn leave(&self) {
        // SAFETY: nobody uses MPI after leaving it; a second call would be one.
        unsafe { ManuallyDrop::drop(&mut self.universe()) };
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let universe = self.universe();
        let world = universe.world();
        let first = world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        first.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        first.broadcast_into(&mut bytes[..]);
        Ok(())
    }
}
