//! A linear layer on a GPU. The products are those of `gemm.cu`, in tiles that `plan` chooses; layers with few outputs,
//! which are classifiers, have kernels of their own (`narrow.cu`), and outputs in f32. What is not narrow a library may multiply
//! instead (`library`), or kernels for sm_90 alone (`wgmma`).

pub mod bench;
mod group;
mod library;
mod plan;
mod wgmma;

use super::{LinearOps, Orientation, WeightGradient};
use crate::Result;
use crate::backend::cuda::{Argument, Buffer, Grid, Sliced, Storage};
use crate::backend::{Cuda, Device};
use crate::models::config::Activation;
use crate::tensor::{Shape, Tensor};
use plan::{Plan, Size, Sums};
use std::borrow::Cow;

/// A layer of at most so many outputs is narrow: its weight, outputs and their gradients are f32.
const NARROW: usize = 32;
/// Outputs that a thread of a narrow kernel sums, and rows of a block.
const NARROW_OUTPUTS: usize = 4;
const NARROW_ROWS: usize = 8;
/// The fewest rows that are a slice of a sum over rows.
const LEAST_SLICE: usize = 32;
/// Blocks of row sums that a multiprocessor is to have, so that enough reads are under way.
const WAVES: usize = 4;

/// A weight as products read it: `[outputs, inputs]`, as activations are stored, or in f32 for a narrow layer. Where that is
/// how the parameter is stored, it is the parameter itself.
pub struct Weight(Tensor<Cuda>);

impl LinearOps for Cuda {
    type Packed = Weight;

    const SHARED_PACKS: bool = true;

    fn pack_weight(&self, weight: &Tensor<Self>, _: Orientation, _: Option<Weight>) -> Result<Weight> {
        Ok(Weight(self.stored(weight, self.weight_storage(weight.rows()))?.into_owned()))
    }

    fn fits(&self, packed: &Weight) -> bool {
        packed.0.buffer().storage() == self.weight_storage(packed.0.rows())
    }

    fn linear_forward(
        &self,
        x: &Tensor<Self>,
        weight: &Weight,
        bias: &Tensor<Self>,
        activation: Activation,
        keep: bool,
    ) -> Result<(Tensor<Self>, Option<Tensor<Self>>)> {
        let [n, k] = [weight.0.rows(), weight.0.cols()];
        assert_eq!((x.cols(), bias.cols()), (k, n), "linear: columns of x, and a bias for each output");
        let (shape, narrow) = (Shape::new(x.rows(), n), n <= NARROW);
        if !narrow && let Some(made) = self.library_forward(x, &weight.0, bias, activation, keep)? {
            return Ok(made);
        }
        if !narrow && let Some(made) = self.wgmma_forward(x, &weight.0, bias, activation, keep)? {
            return Ok(made);
        }
        let y = self.tensor(shape, self.weight_storage(n))?;
        let z = (keep && activation == Activation::Gelu)
            .then(|| self.tensor(shape, self.weight_storage(n)))
            .transpose()?;
        let [m, n, k] = [x.rows(), n, k].map(|size| size as i32);
        // A narrow layer reads x however it is stored.
        let x = if narrow { Cow::Borrowed(x) } else { self.activation(x)? };
        let (code, kept) = (code(activation), z.as_ref().map(Tensor::buffer));
        let arguments: [&dyn Argument; 9] =
            [x.buffer(), weight.0.buffer(), bias.buffer(), &code, &m, &n, &k, y.buffer(), &kept];
        if narrow {
            let grid =
                Grid::plane(shape.rows.div_ceil(NARROW_ROWS), shape.cols.div_ceil(NARROW_OUTPUTS), 256);
            self.launch("narrow", x.buffer().storage(), "narrow_forward", grid, &arguments)?;
        } else {
            let sums = Sums { rows: shape.rows, cols: shape.cols, depth: x.cols() };
            self.product(["linear_forward_large", "linear_forward_small"], sums, [x.cols(); 2], &arguments)?;
        }
        let kept = kept_of(activation, keep, &y, z);
        Ok((y, kept))
    }

    fn activation_backward(
        &self,
        dy: &Tensor<Self>,
        kept: &Tensor<Self>,
        activation: Activation,
    ) -> Result<Tensor<Self>> {
        let kernel = match activation {
            Activation::Identity => return Ok(dy.clone()),
            Activation::Gelu => "gelu_backward",
            Activation::Relu => "relu_backward",
            Activation::Tanh => "tanh_backward",
        };
        let storage = kept.buffer().storage();
        let (dy, dz) = (self.stored(dy, storage)?, self.tensor(kept.shape(), storage)?);
        self.elementwise(storage, kernel, kept.shape().len(), &[dy.buffer(), kept.buffer(), dz.buffer()])?;
        Ok(dz)
    }

    fn input_gradient(
        &self,
        dz: &Tensor<Self>,
        weight: &Weight,
        inputs: usize,
        into: Option<Tensor<Self>>,
    ) -> Result<Tensor<Self>> {
        let (rows, outputs) = (dz.rows(), dz.cols());
        assert_eq!(weight.0.shape(), Shape::new(outputs, inputs), "linear: the weight of that layer");
        let shape = Shape::new(rows, inputs);
        let into = match into {
            Some(mut into) if into.buffer().storage() != self.storage() => {
                let dx = self.input_gradient(dz, weight, inputs, None)?;
                self.add(dx.buffer(), into.buffer_mut())?;
                return Ok(into);
            }
            into => into,
        };
        let accumulate = i32::from(into.is_some());
        let mut dx = into.map_or_else(|| self.activations(shape), Ok)?;
        let [m, n, k] = [rows, outputs, inputs].map(|size| size as i32);
        let dz = self.stored(dz, self.weight_storage(outputs))?;
        if outputs > NARROW
            && (self.library_input_gradient(&dz, &weight.0, &dx, accumulate != 0)?
                || self.wgmma_input_gradient(&dz, &weight.0, &dx, accumulate != 0)?)
        {
            return Ok(dx);
        }
        let arguments: [&dyn Argument; 7] =
            [dz.buffer(), weight.0.buffer(), &m, &n, &k, &accumulate, dx.buffer_mut()];
        if outputs <= NARROW {
            let grid = Grid::plane(inputs.div_ceil(256), rows.min(GRID_ROWS), 256);
            self.launch("narrow", self.storage(), "narrow_input_gradient", grid, &arguments)?;
        } else {
            let sums = Sums { rows, cols: inputs, depth: outputs };
            self.product(
                ["input_gradient_large", "input_gradient_small"],
                sums,
                [outputs, inputs],
                &arguments,
            )?;
        }
        Ok(dx)
    }

    fn weight_gradient(
        &self,
        dz: &Tensor<Self>,
        x: &Tensor<Self>,
        dw: &mut Tensor<Self>,
        accumulate: bool,
    ) -> Result<()> {
        if dz.cols() <= NARROW {
            return self.narrow_weight_gradient(dz, x, dw, accumulate);
        }
        self.grouped_weight_gradients(&mut [WeightGradient { dz, x, dw, accumulate }])
    }

    const DEFERS: bool = true;

    fn weight_gradients(&self, wanted: &mut [WeightGradient<'_, Self>]) -> Result<()> {
        let mut wide = Vec::with_capacity(wanted.len());
        for WeightGradient { dz, x, dw, accumulate } in wanted {
            if dz.cols() <= NARROW {
                self.narrow_weight_gradient(dz, x, dw, *accumulate)?;
            } else {
                wide.push((self.activation(dz)?, self.activation(x)?, dw, *accumulate));
            }
        }
        let mut wide: Vec<_> = wide
            .iter_mut()
            .map(|(dz, x, dw, accumulate)| WeightGradient { dz, x, dw, accumulate: *accumulate })
            .collect();
        self.grouped_weight_gradients(&mut wide)
    }

    fn bias_gradient(&self, dz: &Tensor<Self>, db: &mut Tensor<Self>, accumulate: bool) -> Result<()> {
        let (storage, shape) = (dz.buffer().storage(), dz.shape());
        let pack = 16 / storage.bytes();
        let columns = shape.cols.div_ceil(32 * pack);
        self.by_slices(shape.rows, columns, db.buffer_mut(), accumulate, |slice, slices, partial| {
            let arguments: [&dyn Argument; 5] =
                [dz.buffer(), &(shape.rows as i32), &(shape.cols as i32), &slice, partial];
            let grid = Grid::plane(columns, slices, 256).with_shared(256 * pack * size_of::<f32>());
            self.launch("sums", storage, "column_sums", grid, &arguments)
        })
    }
}

/// The most rows of a grid.
const GRID_ROWS: usize = 65_535;

impl Cuda {
    /// How the weight, the outputs and their gradients of a layer with so many outputs are stored.
    fn weight_storage(&self, outputs: usize) -> Storage {
        if outputs <= NARROW { Storage::F32 } else { self.storage() }
    }

    /// Launches the large or the small one of two kernels for a product, operands' rows in memory being `widths` long.
    fn product(
        &self,
        [large, small]: [&'static str; 2],
        sums: Sums,
        widths: [usize; 2],
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        let plan = Plan::of(&[sums], self.storage(), self.aligned(widths), false, self.multiprocessors());
        let kernel = if plan.size == Size::Large { large } else { small };
        let grid = Grid::blocks(plan.blocks(sums), plan.tile.threads()).with_shared(plan.tile.shared());
        self.launch("gemm", self.storage(), kernel, grid, arguments)
    }

    /// Whether rows of activations, so long, all begin at multiples of 16 bytes.
    fn aligned(&self, widths: [usize; 2]) -> bool {
        widths.iter().all(|width| (width * self.storage().bytes()).is_multiple_of(16))
    }

    fn narrow_weight_gradient(
        &self,
        dz: &Tensor<Cuda>,
        x: &Tensor<Cuda>,
        dw: &mut Tensor<Cuda>,
        accumulate: bool,
    ) -> Result<()> {
        let (rows, outputs, inputs) = (x.rows(), dz.cols(), x.cols());
        let dz = self.stored(dz, Storage::F32)?;
        let [m, n, k] = [rows, outputs, inputs].map(|size| size as i32);
        let [columns, deep] = [inputs.div_ceil(256), outputs.div_ceil(NARROW_OUTPUTS)];
        self.by_slices(rows, columns * deep, dw.buffer_mut(), accumulate, |slice, slices, partial| {
            let arguments: [&dyn Argument; 7] = [dz.buffer(), x.buffer(), &m, &n, &k, &slice, partial];
            let grid = Grid { blocks: [columns, slices, deep], threads: 256, shared: 0 };
            self.launch("narrow", x.buffer().storage(), "narrow_weight_gradient", grid, &arguments)
        })
    }

    /// Sums over `rows` in slices, each by `blocks` blocks: `with` is told the rows of a slice, how many slices there are and
    /// where each leaves `out.len()` sums, which are then added up.
    fn by_slices(
        &self,
        rows: usize,
        blocks: usize,
        out: &mut Buffer,
        accumulate: bool,
        with: impl FnOnce(i32, usize, &Buffer) -> Result<()>,
    ) -> Result<()> {
        let wanted = (self.multiprocessors() * WAVES).div_ceil(blocks.max(1));
        let slice = rows.div_ceil(wanted).max(LEAST_SLICE);
        let slices = rows.div_ceil(slice);
        if slices == 1 && !accumulate {
            return with(slice as i32, slices, out);
        }
        let partial = self.buffer(slices * out.len(), Storage::F32)?;
        with(slice as i32, slices, &partial)?;
        self.sum_slices(Sliced { partial: &partial, first: 0, slices, stride: out.len() }, out, accumulate)
    }
}

/// What a forward pass keeps for the backward one, of its result and of what the activation was given.
fn kept_of(
    activation: Activation,
    keep: bool,
    y: &Tensor<Cuda>,
    z: Option<Tensor<Cuda>>,
) -> Option<Tensor<Cuda>> {
    match activation {
        _ if !keep => None,
        Activation::Identity => None,
        Activation::Gelu => z,
        Activation::Relu | Activation::Tanh => Some(y.clone()),
    }
}

/// What kernels call it (kernels/cuda/activation.cuh).
fn code(activation: Activation) -> i32 {
    match activation {
        Activation::Identity => 0,
        Activation::Gelu => 1,
        Activation::Relu => 2,
        Activation::Tanh => 3,
    }
}
