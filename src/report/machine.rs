//! Where figures were measured. No figure is printed without it.

use limbeck_kernels::Kernels;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// What was built, from which source, by which compiler: the binary's to know, not the library's, so that
/// a commit rebuilds the binary alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Version of the package.
    pub version: Cow<'static, str>,
    /// Git commit, with `-dirty` if the tree had changes; `unknown` outside a repository.
    pub commit: Cow<'static, str>,
    /// What `rustc --version` says.
    pub rustc: Cow<'static, str>,
}

/// A machine, as far as it decides speed, and the build that ran on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's name for itself.
    pub cpu: String,
    /// Logical CPUs that this process may use.
    pub cpus: usize,
    /// Operating system and architecture, as `linux x86_64`.
    pub system: String,
    /// The kernel row in use, as `avx512`.
    pub kernels: Cow<'static, str>,
    /// Threads in use.
    pub threads: usize,
    /// The program.
    #[serde(flatten)]
    pub build: Build,
}

impl Machine {
    /// This machine, running `kernels` on `threads` threads.
    pub fn here(kernels: Kernels, threads: usize, build: Build) -> Machine {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Machine {
            cpu: cpu_name(&info).unwrap_or_else(|| "an unknown CPU".to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            kernels: kernels.isa().name().into(),
            threads,
            build,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cpus, system, kernels, threads, build } = self;
        writeln!(f, "{cpu}, {cpus} logical CPUs, {system}; kernels {kernels}, threads {threads}")?;
        write!(f, "limbeck {}, commit {}, {}", build.version, build.commit, build.rustc)
    }
}

/// The CPU's name in the text of `/proc/cpuinfo`: x86 says `model name`, some Arm systems `Model`. Where a hypervisor leaves the
/// number out of it, family and model say which generation it is.
fn cpu_name(info: &str) -> Option<String> {
    let field = |wanted: &str| {
        let mut fields = info.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim())
    };
    let name = field("model name").or_else(|| field("Model")).filter(|name| !name.is_empty())?;
    Some(match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) if !name.contains(|c: char| c.is_ascii_digit()) => {
            format!("{name} (family {family}, model {model})")
        }
        _ => name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_named() {
        let x86 = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU 9000\n\nmodel name\t: another\n";
        assert_eq!(cpu_name(x86).as_deref(), Some("Some CPU 9000"));
        let guest = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: Some CPU\n";
        assert_eq!(cpu_name(guest).as_deref(), Some("Some CPU (family 26, model 2)"));
        assert_eq!(cpu_name("processor : 0\nModel : Some Board 5\n").as_deref(), Some("Some Board 5"));
        assert_eq!(cpu_name(""), None);
    }

    #[test]
    fn json_names_everything() {
        let build = Build { version: "1.2.3".into(), commit: "abc".into(), rustc: "rustc 1.95".into() };
        let machine = Machine::here(Kernels::select().unwrap(), 2, build);
        let json = serde_json::to_value(&machine).unwrap();
        for key in ["cpu", "cpus", "system", "kernels", "threads", "version", "commit", "rustc"] {
            assert!(!json[key].is_null(), "{key}");
        }
    }
}
