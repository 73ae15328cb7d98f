//! How several processes are started, and how each finds out which it is.
//!
//! | started by | number, how many | where the first listens |
//! |---|---|---|
//! | `torchrun` and the like | `RANK`, `WORLD_SIZE` | `MASTER_ADDR`, `MASTER_PORT` |
//! | Slurm's `srun` | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS` | the same, or the first machine of `SLURM_STEP_NODELIST` |
//! | Open MPI's `mpirun` | `OMPI_COMM_WORLD_RANK`, `OMPI_COMM_WORLD_SIZE` | the same; with the feature `mpi`, MPI itself |
//!
//! Which GPU is whose say `LOCAL_RANK`, `SLURM_LOCALID` or `OMPI_COMM_WORLD_LOCAL_RANK`.
//!
//! torchrun itself may listen on `MASTER_PORT`, for PyTorch's processes to meet there, and says so by
//! `TORCHELASTIC_USE_AGENT_STORE`: ours then meet at another port, which follows from that one.

use crate::{Error, Result};

/// Where the first rank listens if nobody says: torchrun's port.
const PORT: u16 = 29_500;

/// How far from torchrun's port ours is, where torchrun listens there itself.
const ASIDE: u16 = 1000;

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

/// The most processes; a larger number is taken for a typing error.
const MAX_RANKS: usize = 1 << 16;

impl Launch {
    /// What `variable` says, by the environment or a test.
    ///
    /// # Errors
    /// [`Error::Variable`] naming the variable that makes no sense.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Launch> {
        let number = |name: &'static str| -> Result<Option<usize>> {
            let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
            let wrong = || {
                Error::variable(
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
            let (number_of_all, own) = match (number(size)?, number(rank)?) {
                (Some(number_of_all), Some(own)) => (number_of_all, own),
                // Slurm and Open MPI may set one for other purposes; torchrun sets both.
                (Some(_), None) if rank == "RANK" => return Err(half(size, rank)),
                (None, Some(_)) if rank == "RANK" => return Err(half(rank, size)),
                _ => continue,
            };
            if !(1..=MAX_RANKS).contains(&number_of_all) {
                let problem = format!("{number_of_all} processes");
                return Err(Error::variable(size, problem, format!("make it 1 to {MAX_RANKS}, or unset it")));
            }
            if own >= number_of_all {
                let problem = format!("{own} of {number_of_all} ranks, which are counted from 0");
                return Err(Error::variable(
                    rank,
                    problem,
                    format!("make it less than {size}, or unset both"),
                ));
            }
            let own_host = || match rank.starts_with("SLURM") {
                true => variable("SLURM_STEP_NODELIST").and_then(|nodes| first_host(&nodes)),
                false => None,
            };
            let host = variable("MASTER_ADDR").filter(|host| !host.is_empty()).or_else(own_host);
            let host = host.unwrap_or_else(|| "127.0.0.1".into());
            let port = port(number("MASTER_PORT")?)?;
            let taken = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|says| says == "True");
            let port = if taken { port.checked_add(ASIDE).unwrap_or_else(|| port - ASIDE) } else { port };
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

    /// Who is waited for while ranks [`join`](super::join()), and where, for people; `None` for a process alone.
    pub fn waiting(&self) -> Option<String> {
        let others = match self.size {
            1 => return None,
            2 => "another rank".to_owned(),
            size => format!("{} other ranks", size - 1),
        };
        let place =
            if cfg!(feature = "mpi") && self.by_mpi { "by MPI" } else { &format!("at {}", self.address) };
        Some(format!("waiting for {others} {place}"))
    }
}

fn half(set: &'static str, missing: &str) -> Error {
    Error::variable(
        set,
        format!("it is set, and {missing} is not"),
        "set both, or unset both: then it is one process",
    )
}

/// The port that `MASTER_PORT` names.
fn port(named: Option<usize>) -> Result<u16> {
    let Some(named) = named else { return Ok(PORT) };
    u16::try_from(named).ok().filter(|port| *port > 0).ok_or_else(|| {
        let mend = "make it one of 1 to 65535, the same for all ranks, or unset it";
        Error::variable("MASTER_PORT", format!("{named} is no port"), mend)
    })
}

/// The first machine of a list of Slurm's, as `gpu[03-05,9],login1` or `rack[1-2]node[07,09]`; none if it is empty.
fn first_host(nodes: &str) -> Option<String> {
    let (mut host, mut rest) = (String::new(), nodes.chars());
    while let Some(letter) = rest.next().filter(|letter| *letter != ',') {
        if letter != '[' {
            host.push(letter);
            continue;
        }
        let ranges: String = rest.by_ref().take_while(|letter| *letter != ']').collect();
        host.extend(ranges.chars().take_while(|letter| !matches!(letter, '-' | ',')));
    }
    (!host.is_empty()).then_some(host)
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
        assert_eq!(launch(&[]).unwrap().waiting(), None);
        let found =
            launch(&[("RANK", "1"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "node7")])
                .unwrap();
        let expected =
            Launch { rank: 1, size: 4, local_rank: 1, address: "node7:29500".into(), by_mpi: false };
        assert_eq!(found, expected);
        assert_eq!(found.waiting().unwrap(), "waiting for 3 other ranks at node7:29500");
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
    fn numbers_of_processes_that_cannot_be_are_named() {
        for wrong in ["0", "65537", "18446744073709551615"] {
            let error = launch(&[("RANK", "0"), ("WORLD_SIZE", wrong)]).unwrap_err().to_string();
            assert!(error.contains("WORLD_SIZE") && error.contains("1 to 65536"), "{error}");
        }
    }

    #[test]
    fn half_of_a_pair_is_refused() {
        for (set, missing) in [("RANK", "WORLD_SIZE"), ("WORLD_SIZE", "RANK")] {
            let error = launch(&[(set, "1")]).unwrap_err().to_string();
            assert!(error.contains(&format!("{missing} is not")), "{error}");
        }
    }

    #[test]
    fn torchrun_keeps_its_own_port() {
        let of = |port: &str, agent: &str| {
            let variables = [
                ("RANK", "0"),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "localhost"),
                ("MASTER_PORT", port),
                ("TORCHELASTIC_USE_AGENT_STORE", agent),
            ];
            launch(&variables).unwrap().address
        };
        assert_eq!(of("29500", "False"), "localhost:29500");
        assert_eq!(of("29500", "True"), "localhost:30500");
        assert_eq!(of("65000", "True"), "localhost:64000");
    }

    #[test]
    fn the_first_machine_of_slurm_is_where_ranks_meet() {
        for (nodes, first) in [
            ("gpu7", "gpu7"),
            ("gpu[03-05,9],login1", "gpu03"),
            ("a1,a2", "a1"),
            ("rack[1-2]node[07,09].cluster", "rack1node07.cluster"),
        ] {
            let all = [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_STEP_NODELIST", nodes)];
            assert_eq!(launch(&all).unwrap().address, format!("{first}:29500"));
            let named = [&all[..], &[("MASTER_ADDR", "other")]].concat();
            assert_eq!(launch(&named).unwrap().address, "other:29500");
        }
    }

    #[test]
    fn nonsense_names_the_variable() {
        let ports =
            ["0", "70000", "x"].map(|port| [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", port)]);
        for variables in &ports {
            let error = launch(variables).unwrap_err().to_string();
            assert!(error.starts_with("MASTER_PORT"), "{error}");
        }
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
