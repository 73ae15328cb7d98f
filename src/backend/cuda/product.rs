//! The products of linear layers, and what can make them on a GPU: kernels of ours, or NVIDIA's cuBLASLt where it is installed.
//!
//! Which of them makes a product is the choice of [`Product::preferred`], unless `LIMBECK_GEMM` or [`Cuda::with_products`] names
//! one for all. It decides about time, and about the last bits of the sums: a run that is to be repeated bit for bit names one.

use super::{Cuda, Storage};
use crate::{Error, Result};
use std::fmt;

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
pub struct Product {
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

impl Product {
    /// Multiply-adds.
    pub fn multiply_adds(&self) -> usize {
        self.rows * self.outputs * self.inputs
    }

    /// How the result is stored.
    pub fn result(&self) -> Storage {
        if self.kind == Kind::WeightGradient { Storage::F32 } else { self.storage }
    }

    /// Which of those there are makes it, unless another is asked for. Kernels of ours do more beside the sums; a library has better
    /// ones for what is large and aligned, where sums are all that counts. The limit is an estimate, which `limbeck bench gemm`
    /// measures.
    fn preferred(&self, library: bool) -> Products {
        const LARGE: usize = 1 << 27;
        let aligned =
            [self.outputs, self.inputs].iter().all(|row| (row * self.storage.bytes()).is_multiple_of(16));
        match library && aligned && self.multiply_adds() >= LARGE {
            true => Products::CublasLt,
            false => Products::Own,
        }
    }
}

/// What can make products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Products {
    /// kernels/cuda/gemm.cu: every size, epilogues in the same kernel.
    Own,
    /// NVIDIA's library, where it is found. It has no GELU of the exact kind, so that an activation is a kernel of ours after it,
    /// and it adds a bias as activations are stored, not in f32.
    CublasLt,
}

impl Products {
    /// All of them.
    pub const ALL: [Products; 2] = [Products::Own, Products::CublasLt];

    /// The environment variable that names one for all products.
    pub const VARIABLE: &str = "LIMBECK_GEMM";

    /// What [`Products::VARIABLE`] calls it.
    pub fn name(self) -> &'static str {
        match self {
            Products::Own => "own",
            Products::CublasLt => "cublaslt",
        }
    }

    /// What [`Products::VARIABLE`] asks for; none if it is unset or empty.
    ///
    /// # Errors
    /// [`Error::Setting`]: it names nothing that there is.
    pub fn asked() -> Result<Option<Products>> {
        std::env::var_os(Products::VARIABLE).map_or(Ok(None), |name| Products::named(&name.to_string_lossy()))
    }

    fn named(name: &str) -> Result<Option<Products>> {
        if name.is_empty() {
            return Ok(None);
        }
        Products::ALL.into_iter().find(|products| products.name() == name).map(Some).ok_or_else(|| {
            let known = Products::ALL.map(Products::name).join(" or ");
            let mend = format!("set it to {known}, or unset it and let each product choose");
            Error::setting(Products::VARIABLE, format!("{name:?} makes no products"), mend)
        })
    }
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Cuda {
    /// The same GPU, all products made by one, or, for none, each by what is preferred for it.
    ///
    /// # Errors
    /// [`Error::Setting`]: that one is not there.
    pub fn with_products(&self, products: Option<Products>) -> Result<Cuda> {
        let cuda = Cuda { products, ..self.clone() };
        if products == Some(Products::CublasLt) && cuda.cublaslt()?.is_none() {
            let problem = "there is no cuBLASLt: neither libcublasLt.so nor libcublasLt.so.13 or .12 is on the library path";
            let mend = format!(
                "install the CUDA toolkit, or pip install nvidia-cublas and add its folder to LD_LIBRARY_PATH; or set it to {}",
                Products::Own
            );
            return Err(Error::setting(Products::VARIABLE, problem, mend));
        }
        Ok(cuda)
    }

    /// Whether the library may make products: then a run's numbers are those of the library too.
    ///
    /// # Errors
    /// [`Error::Device`]: a library is there and does not work.
    pub fn may_use_library(&self) -> Result<bool> {
        Ok(self.products != Some(Products::Own) && self.cublaslt()?.is_some())
    }

    /// Those that there are.
    ///
    /// # Errors
    /// [`Error::Device`]: a library is there and does not work.
    pub fn offered(&self) -> Result<Vec<Products>> {
        let library = self.cublaslt()?.is_some();
        Ok(Products::ALL.into_iter().filter(|products| library || *products == Products::Own).collect())
    }

    /// What makes this product. A library may still refuse it, and then it is ours.
    ///
    /// # Errors
    /// [`Error::Device`]: a library is there and does not work.
    pub fn products(&self, product: &Product) -> Result<Products> {
        match self.products {
            Some(products) => Ok(products),
            // Looked for only once something would be given to it.
            None if product.preferred(true) == Products::Own => Ok(Products::Own),
            None => Ok(product.preferred(self.cublaslt()?.is_some())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_aligned_products_are_the_librarys_where_there_is_one() {
        let product = |rows, inputs| Product {
            kind: Kind::Forward,
            rows,
            outputs: 768,
            inputs,
            storage: Storage::Bf16,
            accumulate: false,
        };
        assert_eq!(product(12_800, 768).preferred(true), Products::CublasLt);
        assert_eq!(product(12_800, 768).preferred(false), Products::Own);
        assert_eq!(product(12_800, 771).preferred(true), Products::Own);
        assert_eq!(product(50, 768).preferred(true), Products::Own);
    }

    #[test]
    fn names_are_those_of_the_variable() {
        for products in Products::ALL {
            assert_eq!(Products::named(products.name()).unwrap(), Some(products));
        }
        assert_eq!(Products::named("").unwrap(), None);
        let error = Products::named("cutlass").unwrap_err().to_string();
        assert!(error.contains("own or cublaslt") && error.contains("LIMBECK_GEMM"), "{error}");
    }
}
