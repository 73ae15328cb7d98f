//! The products of a linear layer by a library, where [`Cuda::gemm_backend`] chooses it. Each is none, or false, where it does not, or
//! where the library has no algorithm: then the kernels of ours make it.

use super::super::WeightGradient;
use super::{code, kept_of};
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, GemmBackend, GemmProblem, Grid, Kind, Operands, Storage};
use crate::models::config::Activation;
use crate::tensor::{Shape, Tensor};

/// A result, and what the backward pass needs of it.
type Forward = (Tensor<Cuda>, Option<Tensor<Cuda>>);

impl Cuda {
    /// The library adds the bias, rounded as activations are; the activation is a kernel of ours, of sums that have been rounded.
    pub(super) fn library_forward(
        &self,
        x: &Tensor<Cuda>,
        weight: &Tensor<Cuda>,
        bias: &Tensor<Cuda>,
        activation: Activation,
        keep: bool,
    ) -> Result<Option<Forward>> {
        let shape = Shape::new(x.rows(), weight.rows());
        let product = self.product_of(Kind::Forward, [shape.rows, shape.cols, x.cols()], false);
        if self.gemm_backend(&product)? != GemmBackend::CublasLt {
            return Ok(None);
        }
        let (x, bias) = (self.activation(x)?, self.activation(bias)?);
        let z = self.activations(shape)?;
        let operands = Operands {
            a: weight.buffer().memory(),
            b: x.buffer().memory(),
            bias: Some(bias.buffer().memory()),
            out: z.buffer().memory(),
        };
        if !self.multiply_by_library(&product, &operands)? {
            return Ok(None);
        }
        if activation == Activation::Identity {
            return Ok(Some((z, None)));
        }
        // Only GELU's derivative needs z; otherwise y takes its place.
        let (y, z) = match keep && activation == Activation::Gelu {
            true => (self.activations(shape)?, Some(z)),
            false => (z, None),
        };
        let of = z.as_ref().unwrap_or(&y).buffer();
        let arguments: [&dyn Argument; 4] = [of, &code(activation), y.buffer(), &(shape.len() as u64)];
        let grid = Grid::elements(shape.len());
        self.launch("elementwise", self.storage(), "activation_forward", grid, &arguments)?;
        let kept = kept_of(activation, keep, &y, z);
        Ok(Some((y, kept)))
    }

    /// Into `dx`, which is stored as activations are.
    pub(super) fn library_input_gradient(
        &self,
        dz: &Tensor<Cuda>,
        weight: &Tensor<Cuda>,
        dx: &Tensor<Cuda>,
        accumulate: bool,
    ) -> Result<bool> {
        let product = self.product_of(Kind::InputGradient, [dz.rows(), dz.cols(), dx.cols()], accumulate);
        if self.gemm_backend(&product)? != GemmBackend::CublasLt {
            return Ok(false);
        }
        let (a, b) = (weight.buffer().memory(), dz.buffer().memory());
        self.multiply_by_library(&product, &Operands { a, b, bias: None, out: dx.buffer().memory() })
    }

    /// One of several: a library has no launch for them all.
    pub(super) fn library_weight_gradient(&self, of: &mut WeightGradient<'_, Cuda>) -> Result<bool> {
        let product = self.gradient_product(of);
        if self.gemm_backend(&product)? != GemmBackend::CublasLt {
            return Ok(false);
        }
        let (x, dz) = (self.activation(of.x)?, self.activation(of.dz)?);
        let out = of.dw.buffer_mut();
        assert_eq!(out.storage(), Storage::F32, "linear: gradients of parameters are f32");
        let (a, b) = (x.buffer().memory(), dz.buffer().memory());
        self.multiply_by_library(&product, &Operands { a, b, bias: None, out: out.memory() })
    }

    /// What a weight's gradient is to whoever may make it.
    pub(super) fn gradient_product(&self, of: &WeightGradient<'_, Cuda>) -> GemmProblem {
        let sums = of.sums();
        self.product_of(Kind::WeightGradient, [sums.depth, sums.rows, sums.cols], of.accumulate)
    }

    pub(super) fn product_of(
        &self,
        kind: Kind,
        [rows, outputs, inputs]: [usize; 3],
        accumulate: bool,
    ) -> GemmProblem {
        GemmProblem { kind, rows, outputs, inputs, storage: self.storage(), accumulate }
    }
}
