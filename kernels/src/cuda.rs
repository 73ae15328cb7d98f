//! The CUDA half of the kernels, as text: `kernels/cuda/*.cu`, which NVRTC compiles on the machine that has the GPU,
//! and `kernels/emulation` compiles for tests.
//!
//! | to | touch |
//! |---|---|
//! | add a kernel | its source in `kernels/cuda`, declared by `KERNEL(threads)`; whoever launches it (`limbeck::ops`) |
//! | add a source | its line in [`SOURCES`] |
//! | use another instruction | `kernels/cuda/intrinsics.cuh`, of sm_90a alone `hopper.cuh`: as PTX, and as what it means |

/// A file that NVRTC compiles, once for each type that it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its name, without `.cu`.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The types of activations that there are kernels for: what `Real` is defined as.
    pub types: &'static [&'static str],
    /// The architectures that it is for, as NVRTC names them; none for every one from sm_80 on.
    pub architectures: Option<&'static [&'static str]>,
}

/// All types of activations.
const ALL: &[&str] = &["float", "Bf16", "F16"];
/// Of what tensor cores compute.
const HALVES: &[&str] = &["Bf16", "F16"];
/// Of what has no activations.
const FLOAT: &[&str] = &["float"];
/// Of instructions that no other architecture has.
const HOPPER: &[&str] = &["sm_90a"];

macro_rules! sources {
    ($($name:literal: $types:expr $(, for $architectures:expr)?;)*) => {
        /// Every source there is: loading, the compile gate, the emulation and `limbeck kernels` walk this list.
        pub const SOURCES: &[Source] = &[
            $(Source {
                name: $name,
                text: include_str!(concat!("../cuda/", $name, ".cu")),
                types: $types,
                architectures: [$($architectures)?].first().copied(),
            },)*
        ];
    };
}

sources! {
    "attention_backward": HALVES;
    "attention_forward": HALVES;
    "attention_rows": ALL;
    "attention_tiles": HALVES;
    "dropout": ALL;
    "elementwise": ALL;
    "embedding": ALL;
    "gemm": ALL;
    "gemm_wgmma": HALVES, for HOPPER;
    "loss": FLOAT;
    "narrow": ALL;
    "norm": ALL;
    "optimizer": FLOAT;
    "pool": ALL;
    "relation": ALL;
    "sums": ALL;
    "terms": ALL;
    "vocabulary": ALL;
}

/// What sources include, by name.
pub const HEADERS: &[(&str, &str)] = &[
    ("prelude.cuh", include_str!("../cuda/prelude.cuh")),
    ("intrinsics.cuh", include_str!("../cuda/intrinsics.cuh")),
    ("activation.cuh", include_str!("../cuda/activation.cuh")),
    ("gemm_epilogue.cuh", include_str!("../cuda/gemm_epilogue.cuh")),
    ("gemm_tile.cuh", include_str!("../cuda/gemm_tile.cuh")),
    ("gemm_fma.cuh", include_str!("../cuda/gemm_fma.cuh")),
    ("gemm_staged.cuh", include_str!("../cuda/gemm_staged.cuh")),
    ("gemm_mma.cuh", include_str!("../cuda/gemm_mma.cuh")),
    ("hopper.cuh", include_str!("../cuda/hopper.cuh")),
    ("gemm_wgmma.cuh", include_str!("../cuda/gemm_wgmma.cuh")),
    ("attention.cuh", include_str!("../cuda/attention.cuh")),
    ("attention_mma.cuh", include_str!("../cuda/attention_mma.cuh")),
];

/// A kernel of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: &'static str,
    /// The most threads its blocks may have.
    pub threads: u32,
    /// What it takes.
    pub parameters: Vec<Parameter>,
}

/// The type of a kernel's parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// An address in device memory.
    Pointer,
    /// `int`.
    Int,
    /// `u32`.
    Unsigned,
    /// `u64`.
    Long,
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// A struct of the source, by its name.
    Struct(&'static str),
}

impl Parameter {
    /// Reads `const float* x`; none for a type that is not in the list.
    fn read(declaration: &'static str) -> Option<Parameter> {
        let words = declaration.split_whitespace().filter(|word| *word != "const");
        match words.collect::<Vec<_>>()[..] {
            _ if declaration.contains('*') => Some(Parameter::Pointer),
            ["int", _] => Some(Parameter::Int),
            ["u32", _] => Some(Parameter::Unsigned),
            ["u64", _] => Some(Parameter::Long),
            ["float", _] => Some(Parameter::Float),
            ["double", _] => Some(Parameter::Double),
            ["__grid_constant__", name, _] => Some(Parameter::Struct(name)),
            _ => None,
        }
    }
}

impl Source {
    /// The source of that name.
    pub fn find(name: &str) -> Option<&'static Source> {
        SOURCES.iter().find(|source| source.name == name)
    }

    /// Whether it is for this architecture, as NVRTC names it.
    pub fn is_for(&self, architecture: &str) -> bool {
        self.architectures.is_none_or(|all| all.contains(&architecture))
    }

    /// Its kernels: what `KERNEL(threads)` declares, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = Declared> {
        self.text.split("\nKERNEL(").skip(1).filter_map(|declaration| {
            let (threads, rest) = declaration.split_once(')')?;
            let (name, rest) = rest.split_once('(')?;
            let (parameters, _) = rest.split_once(')')?;
            Some(Declared {
                name: name.trim(),
                threads: threads.trim().parse().ok()?,
                parameters: parameters.split(',').map(Parameter::read).collect::<Option<_>>()?,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_declares_kernels_of_names_of_their_own() {
        let mut names: Vec<&str> =
            SOURCES.iter().flat_map(|source| source.kernels()).map(|k| k.name).collect();
        for source in SOURCES {
            let declared = source.kernels().count();
            assert_eq!(declared, source.text.matches("\nKERNEL(").count(), "{}", source.name);
            assert!(declared > 0, "{} declares no kernel", source.name);
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "two kernels of one name");
    }
}
