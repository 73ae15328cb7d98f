//! Instruction sets: their names, their features, and whether this CPU has them.
//!
//! The features of a set are written once, in its macro below, which feeds both detection and every
//! `#[target_feature]` of the package.

use std::fmt;

/// An instruction set that has a row of kernels, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512 with VNNI (int8 dot products) and BF16.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// Portable Rust, for CPUs that have neither.
    Scalar,
}

impl Isa {
    /// Every set, best first.
    pub const ALL: [Isa; 3] = [Isa::Avx512, Isa::Avx2, Isa::Scalar];

    /// The name used in `LIMBECK_ISA`, in benchmarks and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Scalar => "scalar",
        }
    }

    /// What a CPU must report for this set to run, in the spelling of `/proc/cpuinfo`'s cousins in Rust.
    pub const fn features(self) -> &'static [&'static str] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512!(names),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2!(names),
            _ => &[],
        }
    }

    /// Whether this CPU and operating system can run this set. Never changes its mind.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512!(detect),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2!(detect),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx512 | Isa::Avx2 => false,
            Isa::Scalar => true,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `LIMBECK_ISA` asked for something that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsaError {
    /// The name is not one of [`Isa::ALL`].
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// This CPU lacks the set.
    Unavailable {
        /// What was asked for.
        isa: Isa,
        /// The features that the CPU would need.
        needs: &'static [&'static str],
    },
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IsaError::Unknown { name } => {
                let known = Isa::ALL.map(Isa::name).join(", ");
                write!(f, "LIMBECK_ISA={name} is not an instruction set (known: {known})")
            }
            IsaError::Unavailable { isa, needs } => {
                write!(f, "LIMBECK_ISA={isa}: this CPU lacks it (it needs {})", needs.join(", "))
            }
        }
    }
}

impl std::error::Error for IsaError {}

/// Declares one instruction set: its features, their detection, and the attribute that enables them.
macro_rules! instruction_set {
    ($d:tt $name:ident: $($feature:tt),+) => {
        /// `names` lists the features, `detect` asks the CPU for them, and an item is compiled with them.
        macro_rules! $name {
            (names) => { &[$($feature),+] };
            (detect) => { $(std::arch::is_x86_feature_detected!($feature))&&+ };
            ($d($d item:item)+) => { $d($(#[target_feature(enable = $feature)])+ $d item)+ };
        }
        #[cfg(target_arch = "x86_64")]
        pub(crate) use $name;
    };
}

instruction_set!($ avx2: "avx2", "fma");
instruction_set!($ avx512: "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16");
