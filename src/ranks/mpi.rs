//! Ranks over MPI.

use super::Ranks;
use crate::{Error, Result};
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use std::cell::RefCell;
use std::mem::ManuallyDrop;

/// All processes that `mpirun` started. It is not ended by being dropped: a process that ends without [`Ranks::leave`] is one that has
/// failed, which `mpirun` notices, and ends the others.
pub struct Mpi {
    universe: RefCell<ManuallyDrop<Universe>>,
}

impl Mpi {
    /// Meets the others.
    ///
    /// # Errors
    /// [`Error::Ranks`]: MPI was begun before.
    pub fn join() -> Result<Mpi> {
        let universe = mpi::initialize();
        universe.map(|universe| Mpi { universe: RefCell::new(ManuallyDrop::new(universe)) }).ok_or_else(
            || Error::Ranks { problem: "MPI has begun already".into(), mend: "join the ranks once".into() },
        )
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.universe.borrow().world().rank() as usize
    }

    fn size(&self) -> usize {
        self.universe.borrow().world().size() as usize
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        let own = values.to_vec();
        self.universe.borrow().world().all_reduce_into(&own[..], values, SystemOperation::sum());
        Ok(())
    }

    fn sum_wide(&self, values: &mut [f64]) -> Result<()> {
        let own = values.to_vec();
        self.universe.borrow().world().all_reduce_into(&own[..], values, SystemOperation::sum());
        Ok(())
    }

    fn leave(&self) {
        // SAFETY: nobody uses MPI after leaving it; a second call would be one.
        unsafe { ManuallyDrop::drop(&mut self.universe.borrow_mut()) };
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let first = self.universe.borrow().world();
        let first = first.process_at_rank(0);
        let mut length = bytes.len() as u64;
        first.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        first.broadcast_into(&mut bytes[..]);
        Ok(())
    }
}
