//! The one list of kernel rows. Dispatch, tests, benches and `limbeck kernels` all walk it.

use crate::gemm::{self, GemmKernels};
use crate::isa::{Isa, IsaError};
use crate::rows::{self, RowKernels};

/// Every kernel of one instruction set. No field is optional: each row can be run, tested and timed whole.
#[derive(Debug)]
pub(crate) struct KernelTable {
    pub(crate) isa: Isa,
    pub(crate) gemm: GemmKernels,
    pub(crate) rows: RowKernels,
}

/// Best first.
static TABLES: &[KernelTable] = &[
    #[cfg(target_arch = "x86_64")]
    KernelTable { isa: Isa::Avx512, gemm: gemm::avx512::GEMM, rows: rows::AVX512 },
    #[cfg(target_arch = "x86_64")]
    KernelTable { isa: Isa::AvxVnni, gemm: gemm::avx_vnni::GEMM, rows: rows::AVX2 },
    #[cfg(target_arch = "x86_64")]
    KernelTable { isa: Isa::Avx2, gemm: gemm::avx2::GEMM, rows: rows::AVX2 },
    #[cfg(target_arch = "aarch64")]
    KernelTable { isa: Isa::NeonDotprod, gemm: gemm::neon_dotprod::GEMM, rows: rows::NEON },
    #[cfg(target_arch = "aarch64")]
    KernelTable { isa: Isa::Neon, gemm: gemm::neon::GEMM, rows: rows::NEON },
    KernelTable { isa: Isa::Scalar, gemm: gemm::scalar::GEMM, rows: rows::SCALAR },
];

/// A row of kernels that this CPU can run. Holding one is the proof that its functions may be called:
/// the only constructors below check the CPU first.
#[derive(Clone, Copy, Debug)]
pub struct Kernels(pub(crate) &'static KernelTable);

impl Kernels {
    /// Every row this CPU can run, best first.
    pub fn available() -> impl Iterator<Item = Kernels> {
        TABLES.iter().filter(|table| table.isa.is_available()).map(Kernels)
    }

    /// The row of `isa`.
    ///
    /// # Errors
    /// [`IsaError::Unavailable`] if this CPU lacks it.
    pub fn of(isa: Isa) -> Result<Kernels, IsaError> {
        Self::available()
            .find(|kernels| kernels.isa() == isa)
            .ok_or(IsaError::Unavailable { isa, needs: isa.features() })
    }

    /// The best row, or the one that the environment variable `LIMBECK_ISA` names; an empty one names none.
    ///
    /// # Errors
    /// A name that is unknown or that this CPU lacks; never a quiet fallback.
    pub fn select() -> Result<Kernels, IsaError> {
        let asked = std::env::var_os("LIMBECK_ISA").filter(|name| !name.is_empty());
        let Some(name) = asked else {
            return Ok(Self::available().next().expect("the scalar row is always available"));
        };
        match Isa::ALL.into_iter().find(|isa| name == isa.name()) {
            Some(isa) => Self::of(isa),
            None => Err(IsaError::Unknown { name: name.to_string_lossy().into_owned() }),
        }
    }

    /// The instruction set of this row.
    pub fn isa(self) -> Isa {
        self.0.isa
    }
}
