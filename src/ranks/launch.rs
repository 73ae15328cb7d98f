//! How several processes are started, and how each finds out which it is.
//!
//! | started by | number, how many | where the first listens |
//! |---|---|---|
//! | `torchrun` and the like | `RANK`, `WORLD_SIZE` | `MASTER_ADDR`, `MASTER_PORT` |
//! | Slurm's `srun` | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS` | the same, or the first of `SLURM_STEP_NODELIST`'s address |
//! | Open MPI's `mpirun` | `OMPI_COMM_WORLD_RANK`, `OMPI_COMM_WORLD_SIZE` | the same; with the feature `mpi`, MPI itself |
//!
//! Which GPU is whose say `LOCAL_RANK`, `SLURM_LOCALID` or `OMPI_COMM_WORLD_LOCAL_RANK`.

use super::{Alone, Ranks, Tcp};
use crate::{Error, Result};

/// Where the first rank listens if nobody says: torchrun's port.
const PORT: u16 = 29_500;

/// How this process was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// This process's number, from 0.
    pub rank: usize,
    /// How many there are; 1 or more.
    pub size: usize,
    /// Its number among those of its machine: which GPU is its own.
    pub local_rank: usize,
    /// Host and port where the first rank listens.
    pub address: String,
    /// Whether Open MPI started it.
    pub by_mpi: bool,
}

impl Launch {
    /// What `variable` says, by the environment or a test.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the variable that makes no sense.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Launch> {
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
            let wrong = || {
                Error::setting(
                    name,
                    format!("{text:?} is no number"),
                    "unset it, or start with torchrun, srun or mpirun",
                )
            };
            text.parse().map(Some).map_err(|_| wrong())
        };
        let families = [
            ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
            ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
        ];
        for (rank, size, local) in families {
            let (Some(number_of_all), Some(own)) = (number(size)?, number(rank)?) else { continue };
            if number_of_all == 0 || own >= number_of_all {
                let problem = format!("{own} of {number_of_all} ranks, which are counted from 0");
                return Err(Error::setting(
                    rank,
                    problem,
                    format!("make it less than {size}, or unset both"),
                ));
            }
            let host = variable("MASTER_ADDR").unwrap_or_else(|| "127.0.0.1".into());
            let port = number("MASTER_PORT")?.unwrap_or(usize::from(PORT));
            return Ok(Launch {
                rank: own,
                size: number_of_all,
                local_rank: number(local)?.unwrap_or(0),
                address: format!("{host}:{port}"),
                by_mpi: rank.starts_with("OMPI"),
            });
        }
        Ok(Launch { rank: 0, size: 1, local_rank: 0, address: String::new(), by_mpi: false })
    }

    /// What this process's environment says.
    ///
    /// # Errors
    /// As [`Launch::read`].
    pub fn of_environment() -> Result<Launch> {
        Launch::read(|name| std::env::var(name).ok())
    }
}

/// Meets the other processes.
///
/// # Errors
/// [`Error::Ranks`]: one does not come.
pub fn join(launch: &Launch) -> Result<Box<dyn Ranks>> {
    match launch {
        Launch { size: 1, .. } => Ok(Box::new(Alone)),
        #[cfg(feature = "mpi")]
        Launch { by_mpi: true, .. } => Ok(Box::new(super::mpi::Mpi::join()?)),
        launch => Ok(Box::new(Tcp::join(launch)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Launch> {
        Launch::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_variables_of_torchrun_slurm_and_open_mpi() {
        assert_eq!(launch(&[]).unwrap().size, 1);
        let found =
            launch(&[("RANK", "1"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "node7")])
                .unwrap();
        let expected =
            Launch { rank: 1, size: 4, local_rank: 1, address: "node7:29500".into(), by_mpi: false };
        assert_eq!(found, expected);
        let found =
            launch(&[("OMPI_COMM_WORLD_RANK", "2"), ("OMPI_COMM_WORLD_SIZE", "3"), ("MASTER_PORT", "77")])
                .unwrap();
        assert_eq!(
            (found.rank, found.size, found.by_mpi, found.address.as_str()),
            (2, 3, true, "127.0.0.1:77")
        );
        let found =
            launch(&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_LOCALID", "0")]).unwrap();
        assert_eq!((found.rank, found.size), (0, 2));
        // A batch script by itself is one process, however many tasks its steps will have.
        assert_eq!(launch(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]).unwrap().size, 1);
    }

    #[test]
    fn nonsense_names_the_variable() {
        for (variables, name) in [
            ([("RANK", "x"), ("WORLD_SIZE", "2")], "RANK"),
            ([("RANK", "2"), ("WORLD_SIZE", "2")], "RANK"),
            ([("RANK", "0"), ("WORLD_SIZE", "-1")], "WORLD_SIZE"),
        ] {
            let error = launch(&variables).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
