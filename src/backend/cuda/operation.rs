//! What the device is asked for, as it can be asked again.

use super::argument::{Argument, Grid};
use super::product::GemmProblem;
use super::{Cuda, Storage};
use crate::Result;
use cudarc::driver::CudaFunction;
use std::ffi::c_void;

/// Source, storage and name.
pub(super) type Kernel = (&'static str, Storage, &'static str);

/// Where the operands of a product are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) bias: Option<u64>,
    pub(super) out: u64,
}

/// One operation that was asked for.
pub(super) enum Operation {
    Launch(Launch),
    Clear { address: u64, bytes: usize },
    Gemm(GemmProblem, Addresses),
}

/// A launch, with its arguments.
pub(super) struct Launch {
    kernel: Kernel,
    function: CudaFunction,
    grid: Grid,
    /// Arguments, each from a line of its own on.
    lines: Vec<Line>,
    /// Where each begins.
    starts: Vec<usize>,
}

/// As aligned as any argument has to be, which are those that the TMA of sm_90 reads.
#[derive(Clone, Copy)]
#[repr(align(128))]
struct Line([u8; LINE]);

const LINE: usize = 128;

/// What an argument is, byte for byte.
fn bytes_of(argument: &dyn Argument) -> &[u8] {
    // SAFETY: it points to that many bytes, which live as long as it does (as its trait promises).
    unsafe { std::slice::from_raw_parts(argument.pointer().cast(), argument.bytes()) }
}

impl Launch {
    pub(super) fn of(
        kernel: Kernel,
        function: &CudaFunction,
        grid: Grid,
        arguments: &[&dyn Argument],
    ) -> Launch {
        let (mut lines, mut starts) = (Vec::new(), Vec::new());
        for argument in arguments {
            starts.push(lines.len());
            lines.extend(bytes_of(*argument).chunks(LINE).map(|part| {
                let mut line = Line([0; LINE]);
                line.0[..part.len()].copy_from_slice(part);
                line
            }));
        }
        Launch { kernel, function: function.clone(), grid, lines, starts }
    }

    pub(super) fn is(&self, kernel: Kernel, grid: Grid, arguments: &[&dyn Argument]) -> bool {
        let same = |(argument, &first): (&&dyn Argument, &usize)| {
            let mut parts = bytes_of(*argument).chunks(LINE).zip(&self.lines[first..]);
            parts.all(|(part, line)| *part == line.0[..part.len()])
        };
        self.kernel == kernel
            && self.grid == grid
            && self.starts.len() == arguments.len()
            && arguments.iter().zip(&self.starts).all(same)
    }

    fn issue(&self, cuda: &Cuda) -> Result<()> {
        let line = |&first: &usize| self.lines[first..].as_ptr().cast_mut().cast::<c_void>();
        let mut pointers: Vec<*mut c_void> = self.starts.iter().map(line).collect();
        cuda.issue(&self.function, self.grid, &mut pointers)
    }
}

impl Operation {
    /// Asks it again.
    pub(super) fn issue(&self, cuda: &Cuda) -> Result<()> {
        match self {
            Operation::Launch(launch) => launch.issue(cuda),
            Operation::Clear { address, bytes } => cuda.clear_at(*address, *bytes),
            Operation::Gemm(product, addresses) => cuda.multiply_at(product, *addresses).map(drop),
        }
    }
}
