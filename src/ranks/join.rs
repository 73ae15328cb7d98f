//! Meeting: which kind of group the processes of a launch make.

use super::{Launch, ProcessGroup, SingleProcess, Tcp};
use crate::Result;

/// Meets the other processes.
///
/// # Errors
/// [`crate::Error::Ranks`]: one does not come.
pub fn join(launch: &Launch) -> Result<Box<dyn ProcessGroup>> {
    match launch {
        Launch { size: 1, .. } => Ok(Box::new(SingleProcess)),
        #[cfg(feature = "mpi")]
        Launch { by_mpi: true, .. } => Ok(Box::new(super::mpi::Mpi::join()?)),
        launch => Ok(Box::new(Tcp::join(launch)?)),
    }
}
