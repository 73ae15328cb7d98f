//! The products of linear layers, and what can make them on a GPU: kernels of ours, for every GPU or for Hopper's alone, or
//! NVIDIA's cuBLASLt where it is installed.
//!
//! Which of them makes a product is the choice of [`GemmProblem::preferred`], unless `LIMBECK_GEMM` or [`Cuda::with_gemm_backend`] names
//! one for all. It decides about time, and about the last bits of the sums: a run that is to be repeated bit for bit names one.

use super::probe::driver_version;
use super::{Cuda, Storage};
use crate::{Error, Result};
use std::fmt;

/// The first CUDA driver, as it gives its version, that makes tensor maps for TMA.
const NEEDED_DRIVER: i32 = 12_000;

/// Which product of a linear layer `y = activation(x·Wᵀ + b)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `y`.
    Forward,
    /// `dx = dz·W`.
    InputGradient,
    /// `dW = dzᵀ·x`.
    WeightGradient,
}

/// A product, by which plans and algorithms are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmProblem {
    /// Which it is.
    pub kind: Kind,
    /// Rows of the layer's input.
    pub rows: usize,
    /// Of the layer.
    pub outputs: usize,
    /// Of the layer.
    pub inputs: usize,
    /// Of both operands; a weight's gradient is f32 always, any other result is stored as its operands.
    pub storage: Storage,
    /// Whether it is added to what is there.
    pub accumulate: bool,
}

impl GemmProblem {
    /// Multiply-adds.
    pub fn multiply_adds(&self) -> usize {
        self.rows * self.outputs * self.inputs
    }

    /// How the result is stored.
    pub fn result(&self) -> Storage {
        if self.kind == Kind::WeightGradient { Storage::F32 } else { self.storage }
    }

    /// Whether [`GemmBackend::Wgmma`] makes it: of two-byte elements, in rows that begin at multiples of 16 bytes.
    pub fn suits_wgmma(&self) -> bool {
        self.storage != Storage::F32 && self.aligned() && self.multiply_adds() > 0
    }

    /// Whether rows of operands begin at multiples of 16 bytes.
    fn aligned(&self) -> bool {
        [self.outputs, self.inputs].iter().all(|row| (row * self.storage.bytes()).is_multiple_of(16))
    }

    /// Which of those there are makes it, unless another is asked for. Kernels of ours do more beside the sums; a library has better
    /// ones for what is large and aligned, where sums are all that counts. The limit is an estimate, which `limbeck bench gemm`
    /// measures. [`GemmBackend::Wgmma`] is not among them: what a GPU does with those kernels has not been measured, and `mma.sync` has
    /// run on more kinds.
    fn preferred(&self, library: bool) -> GemmBackend {
        const LARGE: usize = 1 << 27;
        match library && self.aligned() && self.multiply_adds() >= LARGE {
            true => GemmBackend::CublasLt,
            false => GemmBackend::Own,
        }
    }
}

/// What can make products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GemmBackend {
    /// kernels/cuda/gemm.cu: every size, epilogues in the same kernel.
    Own,
    /// NVIDIA's library, where it is found. It has no GELU of the exact kind, so that an activation is a kernel of ours after it,
    /// and it adds a bias as activations are stored, not in f32.
    CublasLt,
    /// kernels/cuda/gemm_wgmma.cu: Hopper's tensor cores at their full rate, on sm_90 alone. What [`GemmProblem::suits_wgmma`] leaves out
    /// is made by [`GemmBackend::Own`].
    Wgmma,
}

impl GemmBackend {
    /// All of them.
    pub const ALL: [GemmBackend; 3] = [GemmBackend::Own, GemmBackend::CublasLt, GemmBackend::Wgmma];

    /// The environment variable that names one for all products.
    pub const VARIABLE: &str = "LIMBECK_GEMM";

    /// What [`GemmBackend::VARIABLE`] calls it.
    pub fn name(self) -> &'static str {
        match self {
            GemmBackend::Own => "own",
            GemmBackend::CublasLt => "cublaslt",
            GemmBackend::Wgmma => "wgmma",
        }
    }

    /// What [`GemmBackend::VARIABLE`] asks for; none if it is unset or empty.
    ///
    /// # Errors
    /// [`Error::Variable`]: it names nothing that there is.
    pub fn asked() -> Result<Option<GemmBackend>> {
        std::env::var_os(GemmBackend::VARIABLE)
            .map_or(Ok(None), |name| GemmBackend::named(&name.to_string_lossy()))
    }

    fn named(name: &str) -> Result<Option<GemmBackend>> {
        if name.is_empty() {
            return Ok(None);
        }
        GemmBackend::ALL.into_iter().find(|products| products.name() == name).map(Some).ok_or_else(|| {
            let known = GemmBackend::ALL.map(GemmBackend::name).join(" or ");
            let mend = format!("set it to {known}, or unset it and let each product choose");
            Error::variable(GemmBackend::VARIABLE, format!("{name:?} makes no products"), mend)
        })
    }
}

impl fmt::Display for GemmBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Cuda {
    /// The same GPU, all products made by one, or, for none, each by what is preferred for it.
    ///
    /// # Errors
    /// [`Error::Variable`]: that one is not there.
    pub fn with_gemm_backend(&self, products: Option<GemmBackend>) -> Result<Cuda> {
        let cuda = Cuda { products, ..self.clone() };
        if products == Some(GemmBackend::CublasLt) && cuda.cublaslt()?.is_none() {
            let problem = "there is no cuBLASLt: neither libcublasLt.so nor libcublasLt.so.13 or .12 is on the library path";
            let mend = format!(
                "install the CUDA toolkit, or pip install nvidia-cublas and add its folder to LD_LIBRARY_PATH; or set it to {}",
                GemmBackend::Own
            );
            return Err(Error::variable(GemmBackend::VARIABLE, problem, mend));
        }
        if products == Some(GemmBackend::Wgmma) && !cuda.has_wgmma()? {
            let (major, minor) = self.capability();
            let problem = format!(
                "the GPU is sm_{major}{minor}, CUDA driver {}: wgmma is an instruction of sm_90, for drivers from {NEEDED_DRIVER} on",
                driver_version()?
            );
            let mend = format!("set it to {}, or unset it and let each product choose", GemmBackend::Own);
            return Err(Error::variable(GemmBackend::VARIABLE, problem, mend));
        }
        Ok(cuda)
    }

    /// What else than [`GemmBackend::Own`] this device may multiply with, so that a run's last bits depend on it: what was asked for, or
    /// cuBLASLt where it is installed. `None` if only kernels of ours run.
    ///
    /// # Errors
    /// [`Error::Device`]: a library is there and does not work.
    pub fn other_gemm_backend(&self) -> Result<Option<GemmBackend>> {
        match self.products {
            Some(GemmBackend::Own) => Ok(None),
            Some(products) => Ok(Some(products)),
            None => Ok(self.cublaslt()?.map(|_| GemmBackend::CublasLt)),
        }
    }

    fn has_wgmma(&self) -> Result<bool> {
        Ok(self.capability() == (9, 0) && driver_version()? >= NEEDED_DRIVER)
    }

    /// Those that there are.
    ///
    /// # Errors
    /// [`Error::Device`]: a library is there and does not work.
    pub fn gemm_backends(&self) -> Result<Vec<GemmBackend>> {
        let (library, wgmma) = (self.cublaslt()?.is_some(), self.has_wgmma()?);
        let there = |products: &GemmBackend| match products {
            GemmBackend::Own => true,
            GemmBackend::CublasLt => library,
            GemmBackend::Wgmma => wgmma,
        };
        Ok(GemmBackend::ALL.into_iter().filter(there).collect())
    }

    /// What makes this product. It may still refuse it, and then [`GemmBackend::Own`] makes it.
    ///
    /// # Errors
    /// [`Error::Device`]: a library is there and does not work.
    pub fn gemm_backend(&self, product: &GemmProblem) -> Result<GemmBackend> {
        match self.products {
            Some(products) => Ok(products),
            // Looked for only once something would be given to it.
            None if product.preferred(true) == GemmBackend::Own => Ok(GemmBackend::Own),
            None => Ok(product.preferred(self.cublaslt()?.is_some())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_aligned_products_are_the_librarys_where_there_is_one() {
        let product = |rows, inputs| GemmProblem {
            kind: Kind::Forward,
            rows,
            outputs: 768,
            inputs,
            storage: Storage::Bf16,
            accumulate: false,
        };
        assert_eq!(product(12_800, 768).preferred(true), GemmBackend::CublasLt);
        assert_eq!(product(12_800, 768).preferred(false), GemmBackend::Own);
        assert_eq!(product(12_800, 771).preferred(true), GemmBackend::Own);
        assert_eq!(product(50, 768).preferred(true), GemmBackend::Own);
    }

    #[test]
    fn wgmma_makes_aligned_products_of_two_bytes_and_none_by_itself() {
        for (storage, inputs, suits) in [
            (Storage::Bf16, 768, true),
            (Storage::F16, 40, true),
            (Storage::Bf16, 44, false),
            (Storage::Bf16, 0, false),
            (Storage::F32, 768, false),
        ] {
            let product = GemmProblem {
                kind: Kind::Forward,
                rows: 12_800,
                outputs: 768,
                inputs,
                storage,
                accumulate: false,
            };
            assert_eq!(product.suits_wgmma(), suits, "{product:?}");
            assert!([true, false].iter().all(|library| product.preferred(*library) != GemmBackend::Wgmma));
        }
    }

    #[test]
    fn names_are_those_of_the_variable() {
        for products in GemmBackend::ALL {
            assert_eq!(GemmBackend::named(products.name()).unwrap(), Some(products));
        }
        assert_eq!(GemmBackend::named("").unwrap(), None);
        let error = GemmBackend::named("cutlass").unwrap_err().to_string();
        assert!(error.contains("own or cublaslt or wgmma") && error.contains("LIMBECK_GEMM"), "{error}");
    }
}
