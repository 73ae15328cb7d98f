//! The products of a linear layer by the kernels for sm_90 (`gemm_wgmma.cu`), where [`Cuda::gemm_backend`] chooses them and they suit the
//! product. Each is none, or false, where they do not: then the kernels for every GPU make it.

use super::super::WeightGradient;
use super::plan::{Plan, Sums};
use super::{code, kept_of};
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, GemmBackend, GemmProblem, Grid, Kind, TensorMap};
use crate::models::config::Activation;
use crate::tensor::{Shape, Tensor};
use limbeck_kernels::cuda::Parameter;
use std::ffi::c_void;

/// A result, and what the backward pass needs of it.
type Forward = (Tensor<Cuda>, Option<Tensor<Cuda>>);

/// The argument of `weight_gradients_wgmma`, as gemm_wgmma.cu lays it out.
#[repr(C, align(128))]
struct Group {
    dz: [TensorMap; Group::CAPACITY],
    x: [TensorMap; Group::CAPACITY],
    at: [Entry; Group::CAPACITY],
    /// Up to a multiple of 128 bytes, so that none of them is unwritten: launches are compared byte by byte.
    rest: [u64; 12],
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Entry {
    dw: u64,
    m: i32,
    n: i32,
    k: i32,
    slice: i32,
    accumulate: i32,
    blocks: i32,
}

impl Group {
    const CAPACITY: usize = 13;
}

const _: () = assert!(size_of::<Group>() == 2 * 13 * 128 + 13 * 32 + 12 * 8, "no byte between fields");

// SAFETY: the struct of that name in gemm_wgmma.cu: twice 13 maps, then 13 times an address and six ints.
unsafe impl Argument for Group {
    fn kind(&self) -> Parameter {
        Parameter::Struct("WgmmaGradients")
    }

    fn pointer(&self) -> *const c_void {
        std::ptr::from_ref(self).cast()
    }

    fn bytes(&self) -> usize {
        size_of::<Group>()
    }
}

impl Cuda {
    pub(super) fn wgmma_forward(
        &self,
        x: &Tensor<Cuda>,
        weight: &Tensor<Cuda>,
        bias: &Tensor<Cuda>,
        activation: Activation,
        keep: bool,
    ) -> Result<Option<Forward>> {
        let sums = Sums { rows: x.rows(), cols: weight.rows(), depth: x.cols() };
        if !self.by_wgmma(&self.product_of(Kind::Forward, [sums.rows, sums.cols, sums.depth], false))? {
            return Ok(None);
        }
        let (shape, x) = (Shape::new(sums.rows, sums.cols), self.activation(x)?);
        let y = self.activations(shape)?;
        let z = (keep && activation == Activation::Gelu).then(|| self.activations(shape)).transpose()?;
        let (of_x, of_weight) = (self.map_of(&x)?, self.map_of(weight)?);
        let [m, n, k] = [sums.rows, sums.cols, sums.depth].map(|size| size as i32);
        let (code, kept) = (code(activation), z.as_ref().map(Tensor::buffer));
        let arguments: [&dyn Argument; 9] =
            [&of_x, &of_weight, bias.buffer(), &code, &m, &n, &k, y.buffer(), &kept];
        self.launch_product("linear_forward_wgmma", sums, &arguments)?;
        let kept = kept_of(activation, keep, &y, z);
        Ok(Some((y, kept)))
    }

    /// Into `dx`, which is stored as activations are.
    pub(super) fn wgmma_input_gradient(
        &self,
        dz: &Tensor<Cuda>,
        weight: &Tensor<Cuda>,
        dx: &Tensor<Cuda>,
        accumulate: bool,
    ) -> Result<bool> {
        let sums = Sums { rows: dz.rows(), cols: dx.cols(), depth: dz.cols() };
        let product = self.product_of(Kind::InputGradient, [sums.rows, sums.depth, sums.cols], accumulate);
        if !self.by_wgmma(&product)? {
            return Ok(false);
        }
        let (of_dz, of_weight) = (self.map_of(dz)?, self.map_of(weight)?);
        let [m, n, k] = [sums.rows, sums.depth, sums.cols].map(|size| size as i32);
        let arguments: [&dyn Argument; 7] =
            [&of_dz, &of_weight, &m, &n, &k, &i32::from(accumulate), dx.buffer()];
        self.launch_product("input_gradient_wgmma", sums, &arguments)?;
        Ok(true)
    }

    /// Whether these kernels make that weight's gradient.
    pub(super) fn wgmma_makes_gradient(&self, of: &WeightGradient<'_, Cuda>) -> Result<bool> {
        self.by_wgmma(&self.gradient_product(of))
    }

    /// Those, in as few launches as there can be.
    pub(super) fn wgmma_weight_gradients(&self, wanted: &mut [&mut WeightGradient<'_, Cuda>]) -> Result<()> {
        wanted.chunks_mut(Group::CAPACITY).try_for_each(|group| self.wgmma_weight_gradient_group(group))
    }

    fn wgmma_weight_gradient_group(&self, wanted: &mut [&mut WeightGradient<'_, Cuda>]) -> Result<()> {
        let operands = wanted.iter().map(|of| Ok([self.activation(of.dz)?, self.activation(of.x)?]));
        let operands = operands.collect::<Result<Vec<_>>>()?;
        let products: Vec<Sums> = wanted.iter().map(|of| of.sums()).collect();
        let plan = Plan::hopper(&products, self.storage(), true, self.multiprocessors());
        let slices = self.slices_of(wanted, &products, plan)?;
        let mut group = Group {
            dz: [TensorMap::NONE; Group::CAPACITY],
            x: [TensorMap::NONE; Group::CAPACITY],
            at: [Entry::default(); Group::CAPACITY],
            rest: [0; 12],
        };
        let mut blocks = 0;
        for (i, (of, sums)) in wanted.iter_mut().zip(&products).enumerate() {
            blocks += plan.blocks(*sums);
            (group.dz[i], group.x[i]) = (self.map_of(&operands[i][0])?, self.map_of(&operands[i][1])?);
            group.at[i] = Entry {
                dw: slices[i].as_ref().unwrap_or(of.dw.buffer_mut()).memory().address(),
                m: sums.depth as i32,
                n: sums.rows as i32,
                k: sums.cols as i32,
                slice: plan.slice as i32,
                accumulate: i32::from(of.accumulate && slices[i].is_none()),
                blocks: i32::try_from(blocks).expect("a grid that the device has"),
            };
        }
        self.launch_wgmma("weight_gradients_wgmma", plan, blocks, &[&group, &(blocks as i32)])?;
        self.sum_slices_of(wanted, &products, plan, &slices)
    }

    /// A product that is not cut into slices.
    fn launch_product(&self, kernel: &'static str, sums: Sums, arguments: &[&dyn Argument]) -> Result<()> {
        let plan = Plan::hopper(&[sums], self.storage(), false, self.multiprocessors());
        self.launch_wgmma(kernel, plan, plan.blocks(sums), arguments)
    }

    /// Blocks stay, one on each multiprocessor, and make several tiles where there are more.
    fn launch_wgmma(
        &self,
        kernel: &'static str,
        plan: Plan,
        blocks: usize,
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        let grid = Grid::blocks(blocks.min(self.multiprocessors()), plan.tile.threads());
        self.launch("gemm_wgmma", self.storage(), kernel, grid.with_shared(plan.tile.shared()), arguments)
    }

    fn map_of(&self, matrix: &Tensor<Cuda>) -> Result<TensorMap> {
        self.tensor_map(matrix.buffer(), matrix.shape())
    }

    fn by_wgmma(&self, product: &GemmProblem) -> Result<bool> {
        Ok(self.gemm_backend(product)? == GemmBackend::Wgmma && product.suits_wgmma())
    }
}
