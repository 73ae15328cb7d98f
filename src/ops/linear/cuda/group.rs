//! Weight gradients, several in one launch: one alone has too few tiles for a GPU.

use super::super::WeightGradient;
use super::plan::{Plan, Size, Sums};
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Buffer, Grid, Sliced, Storage};
use crate::tensor::Shape;
use limbeck_kernels::cuda::Parameter;
use std::ffi::c_void;

impl WeightGradient<'_, Cuda> {
    pub(super) fn sums(&self) -> Sums {
        let sums = Sums { rows: self.dz.cols(), cols: self.x.cols(), depth: self.x.rows() };
        assert_eq!(self.dz.rows(), sums.depth, "linear: a row of dz for each of x");
        assert_eq!(self.dw.shape(), Shape::new(sums.rows, sums.cols), "linear: dW is as large as W");
        sums
    }
}

/// The argument of `weight_gradients_*`, as gemm.cu lays it out.
#[repr(C)]
struct Group {
    at: [Entry; Group::CAPACITY],
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Entry {
    dz: u64,
    x: u64,
    dw: u64,
    m: i32,
    n: i32,
    k: i32,
    slice: i32,
    accumulate: i32,
    blocks: i32,
}

impl Group {
    const CAPACITY: usize = 48;
}

// SAFETY: the struct of that name in gemm.cu: three addresses and six ints, 48 times.
unsafe impl Argument for Group {
    fn kind(&self) -> Parameter {
        Parameter::Struct("WeightGradients")
    }

    fn pointer(&self) -> *const c_void {
        std::ptr::from_ref(self).cast()
    }
}

impl Cuda {
    /// Several weight gradients: those that a library does not make in as few launches as there can be.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    pub(super) fn grouped_weight_gradients(&self, wanted: &mut [WeightGradient<'_, Cuda>]) -> Result<()> {
        let (mut own, mut wgmma) = (Vec::with_capacity(wanted.len()), Vec::new());
        for of in wanted {
            if self.wgmma_makes_gradient(of)? {
                wgmma.push(of);
            } else if !self.library_weight_gradient(of)? {
                own.push(of);
            }
        }
        self.wgmma_weight_gradients(&mut wgmma)?;
        own.chunks_mut(Group::CAPACITY).try_for_each(|group| self.weight_gradient_group(group))
    }

    fn weight_gradient_group(&self, wanted: &mut [&mut WeightGradient<'_, Cuda>]) -> Result<()> {
        let operands = wanted.iter().map(|of| Ok([self.activation(of.dz)?, self.activation(of.x)?]));
        let operands = operands.collect::<Result<Vec<_>>>()?;
        let products: Vec<Sums> = wanted.iter().map(|of| of.sums()).collect();
        let aligned = products.iter().all(|sums| self.aligned([sums.rows, sums.cols]));
        let plan = Plan::of(&products, self.storage(), aligned, true, self.multiprocessors());
        let slices = self.slices_of(wanted, &products, plan)?;
        let mut group = Group { at: [Entry::default(); Group::CAPACITY] };
        let mut blocks = 0;
        for (i, (of, sums)) in wanted.iter_mut().zip(&products).enumerate() {
            blocks += plan.blocks(*sums);
            group.at[i] = Entry {
                dz: operands[i][0].buffer().memory().address(),
                x: operands[i][1].buffer().memory().address(),
                dw: slices[i].as_ref().unwrap_or(of.dw.buffer_mut()).memory().address(),
                m: sums.depth as i32,
                n: sums.rows as i32,
                k: sums.cols as i32,
                slice: plan.slice as i32,
                accumulate: i32::from(of.accumulate && slices[i].is_none()),
                blocks: i32::try_from(blocks).expect("a grid that the device has"),
            };
        }
        let kernel = match plan.size {
            Size::Large => "weight_gradients_large",
            Size::Small | Size::Hopper => "weight_gradients_small",
        };
        let grid = Grid::blocks(blocks, plan.tile.threads()).with_shared(plan.tile.shared());
        self.launch("gemm", self.storage(), kernel, grid, &[&group])?;
        self.sum_slices_of(wanted, &products, plan, &slices)
    }

    /// Memory for the slices of each gradient; none where there is but one, which is the gradient itself.
    pub(super) fn slices_of(
        &self,
        wanted: &[&mut WeightGradient<'_, Cuda>],
        products: &[Sums],
        plan: Plan,
    ) -> Result<Vec<Option<Buffer>>> {
        let slices = |(of, sums): (&&mut WeightGradient<'_, Cuda>, &Sums)| {
            let count = plan.slices(*sums);
            (count > 1).then(|| self.buffer(count * of.dw.shape().len(), Storage::F32)).transpose()
        };
        wanted.iter().zip(products).map(slices).collect()
    }

    /// Adds them up.
    pub(super) fn sum_slices_of(
        &self,
        wanted: &mut [&mut WeightGradient<'_, Cuda>],
        products: &[Sums],
        plan: Plan,
        slices: &[Option<Buffer>],
    ) -> Result<()> {
        for ((of, sums), partial) in wanted.iter_mut().zip(products).zip(slices) {
            let Some(partial) = partial else { continue };
            let stride = of.dw.shape().len();
            let sliced = Sliced { partial, first: 0, slices: plan.slices(*sums), stride };
            self.sum_slices(sliced, of.dw.buffer_mut(), of.accumulate)?;
        }
        Ok(())
    }
}
