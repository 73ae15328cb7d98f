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
    /// AVX2 with FMA and the int8 dot products of VNNI in their VEX encoding, for CPUs without AVX-512.
    AvxVnni,
    /// AVX2 with FMA.
    Avx2,
    /// NEON with the dot product instructions for int8 (Armv8.2 and later).
    NeonDotprod,
    /// NEON, which every 64-bit Arm CPU has.
    Neon,
    /// Portable Rust, for CPUs that have none of these.
    Scalar,
}

impl Isa {
    /// Every set, best first.
    pub const ALL: [Isa; 6] =
        [Isa::Avx512, Isa::AvxVnni, Isa::Avx2, Isa::NeonDotprod, Isa::Neon, Isa::Scalar];

    /// The name used in `LIMBECK_ISA`, in benchmarks and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx2 => "avx2",
            Isa::NeonDotprod => "neon-dotprod",
            Isa::Neon => "neon",
            Isa::Scalar => "scalar",
        }
    }

    /// What a CPU must report for this set to run, in the spelling of `/proc/cpuinfo`'s cousins in Rust.
    pub const fn features(self) -> &'static [&'static str] {
        match self {
            Isa::Avx512 => avx512!(names),
            Isa::AvxVnni => avx_vnni!(names),
            Isa::Avx2 => avx2!(names),
            Isa::NeonDotprod => neon_dotprod!(names),
            Isa::Neon => neon!(names),
            Isa::Scalar => &[],
        }
    }

    /// Whether this CPU and operating system can run this set. Never changes its mind.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Avx512 => avx512!(detect),
            Isa::AvxVnni => avx_vnni!(detect),
            Isa::Avx2 => avx2!(detect),
            Isa::NeonDotprod => neon_dotprod!(detect),
            Isa::Neon => neon!(detect),
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
    ($d:tt $name:ident ($arch:tt, $detected:ident): $($feature:tt),+) => {
        /// `names` lists the features, `detect` asks the CPU for them (one of another architecture has none), and an
        /// item is compiled with them.
        macro_rules! $name {
            (names) => { &[$($feature),+] };
            (detect) => {{
                #[cfg(target_arch = $arch)]
                { $(std::arch::$detected!($feature))&&+ }
                #[cfg(not(target_arch = $arch))]
                { false }
            }};
            ($d($d item:item)+) => { $d($(#[target_feature(enable = $feature)])+ $d item)+ };
        }
        pub(crate) use $name;
    };
}

macro_rules! x86_64 {
    ($d:tt $name:ident: $($feature:tt),+) => {
        instruction_set!($d $name ("x86_64", is_x86_feature_detected): $($feature),+);
    };
}

macro_rules! aarch64 {
    ($d:tt $name:ident: $($feature:tt),+) => {
        instruction_set!($d $name ("aarch64", is_aarch64_feature_detected): $($feature),+);
    };
}

x86_64!($ avx2: "avx2", "fma");
x86_64!($ avx_vnni: "avx2", "fma", "avxvnni");
x86_64!($ avx512: "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16");
aarch64!($ neon: "neon");
aarch64!($ neon_dotprod: "neon", "dotprod");
