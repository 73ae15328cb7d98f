//! The CPU: kernels of one instruction set, rayon's threads, and a pool of buffers.
//!
//! A reduction is split into blocks whose bounds depend on sizes alone, and adds them in order; where the
//! bounds depend on the number of threads, each number is computed whole by one task, in the same order
//! wherever the bounds are. A result therefore does not depend on the number of threads.

mod buffer;
pub mod threads;

pub use buffer::Buffer;

use super::Device;
use crate::Result;
use crate::ranks::{self, ProcessGroup, Submit, SummedBuckets};
use buffer::Pool;
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{PackedMatrix, Precision};
use rayon::prelude::*;
use std::sync::{Arc, Mutex};

/// Elements in a block of an elementwise operation or a reduction: big enough to be worth a task, small
/// enough to stay in a core's cache.
const BLOCK: usize = 1 << 16;

/// The CPU as a [`Device`].
#[derive(Clone)]
pub struct Cpu {
    kernels: Kernels,
    precision: Precision,
    pool: Arc<Pool>,
    packs: Arc<Mutex<Vec<PackedMatrix>>>,
}

impl Cpu {
    /// A CPU that multiplies matrices in f32.
    pub fn new(kernels: Kernels) -> Cpu {
        Cpu { kernels, precision: Precision::F32, pool: Arc::default(), packs: Arc::default() }
    }

    /// The same CPU, its buffers shared, multiplying matrices in `precision`.
    pub fn with_precision(&self, precision: Precision) -> Cpu {
        Cpu { precision, ..self.clone() }
    }

    /// The kernels in use.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// How matrices are multiplied.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A packed operand for one product, `[k, n]`, content unspecified; [`Cpu::give_back`] keeps its memory for the
    /// next one.
    pub fn packed(&self, k: usize, n: usize) -> PackedMatrix {
        let mut packs = self.packs.lock().expect("nothing panics while it holds the list");
        match packs.pop() {
            None => PackedMatrix::new(self.precision, k, n),
            Some(mut packed) => {
                packed.reset(self.precision, k, n);
                packed
            }
        }
    }

    /// Takes back what [`Cpu::packed`] gave.
    pub fn give_back(&self, packed: PackedMatrix) {
        self.packs.lock().expect("nothing panics while it holds the list").push(packed);
    }

    /// Storage with unspecified content; the CPU never fails to give it.
    pub fn buffer(&self, len: usize) -> Buffer {
        self.pool.take(len)
    }

    /// The length of the largest buffer that was asked for so far: tests hold operations to what they say of their memory.
    pub fn largest_buffer(&self) -> usize {
        self.pool.largest()
    }

    /// Storage of zeros.
    pub fn zeroed(&self, len: usize) -> Buffer {
        let mut buffer = self.pool.take(len);
        buffer.par_chunks_mut(BLOCK).for_each(|block| block.fill(0.0));
        buffer
    }
}

impl Device for Cpu {
    type Buffer = Buffer;

    fn empty(&self, len: usize) -> Result<Buffer> {
        Ok(self.buffer(len))
    }

    fn zeros(&self, len: usize) -> Result<Buffer> {
        Ok(self.zeroed(len))
    }

    fn forget_buffers(&self) {
        self.pool.forget();
    }

    fn upload(&self, data: &[f32]) -> Result<Buffer> {
        let mut buffer = self.buffer(data.len());
        buffer.copy_from_slice(data);
        Ok(buffer)
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<f32>> {
        Ok(buffer.to_vec())
    }

    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        assert_eq!(x.len(), y.len(), "sums are of equal shapes");
        let blocks = y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK));
        blocks.for_each(|(y, x)| self.kernels.add(x, y));
        Ok(())
    }

    fn while_summing<T>(
        &self,
        ranks: &dyn ProcessGroup,
        compute: impl FnOnce(&mut Submit<'_, Buffer>) -> Result<T>,
    ) -> Result<(T, SummedBuckets<Buffer>)> {
        ranks::while_summing(ranks, compute)
    }

    fn sum_squares(&self, x: &Buffer) -> Result<f64> {
        let blocks: Vec<f64> = x.par_chunks(BLOCK).map(|block| self.kernels.sum_squares(block)).collect();
        Ok(blocks.into_iter().sum())
    }
}
