//! What a launch is given: its blocks, and the arguments of its kernel.

use super::memory::{Buffer, Memory};
use limbeck_kernels::cuda::Parameter;
use std::ffi::c_void;

/// Elements that a thread of an elementwise kernel takes.
const PACK: usize = 8;

/// Blocks, and threads of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in three dimensions.
    pub blocks: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of dynamic shared memory of a block.
    pub shared: usize,
}

impl Grid {
    /// `blocks` in a row.
    pub fn blocks(blocks: usize, threads: usize) -> Grid {
        Grid { blocks: [blocks, 1, 1], threads, shared: 0 }
    }

    /// For a kernel of `elementwise.cu`, whose threads each take one pack of `len` elements.
    pub(crate) fn elements(len: usize) -> Grid {
        Grid::blocks(len.div_ceil(PACK * 256), 256)
    }

    /// `columns` × `rows` blocks.
    pub fn plane(columns: usize, rows: usize, threads: usize) -> Grid {
        Grid { blocks: [columns, rows, 1], threads, shared: 0 }
    }

    /// This grid, with `bytes` of dynamic shared memory.
    pub fn with_shared(self, bytes: usize) -> Grid {
        Grid { shared: bytes, ..self }
    }
}

/// What a kernel can be passed.
///
/// # Safety
/// `pointer` points to a value of `kind`, as the device lays it out, that lives as long as `self`.
pub unsafe trait Argument {
    /// Its type in the source.
    fn kind(&self) -> Parameter;

    /// Where the value is.
    fn pointer(&self) -> *const c_void;

    /// Its bytes that are compared when a step is repeated (`recorder`), from its beginning on: all of them, unless there are gaps
    /// between its fields or behind them, which would differ from time to time. A struct is what it points to itself.
    fn bytes(&self) -> usize {
        match self.kind() {
            Parameter::Pointer | Parameter::Long | Parameter::Double => 8,
            Parameter::Int | Parameter::Unsigned | Parameter::Float => 4,
            Parameter::Struct(_) => size_of_val(self),
        }
    }
}

macro_rules! numbers {
    ($($number:ty => $kind:ident,)*) => {
        $(
            // SAFETY: the number itself.
            unsafe impl Argument for $number {
                fn kind(&self) -> Parameter {
                    Parameter::$kind
                }

                fn pointer(&self) -> *const c_void {
                    std::ptr::from_ref(self).cast()
                }
            }
        )*
    };
}

numbers! {
    i32 => Int,
    u32 => Unsigned,
    u64 => Long,
    f32 => Float,
    f64 => Double,
}

// SAFETY: the address, which the memory keeps.
unsafe impl Argument for Memory {
    fn kind(&self) -> Parameter {
        Parameter::Pointer
    }

    fn pointer(&self) -> *const c_void {
        std::ptr::from_ref(self.address_ref()).cast()
    }
}

// SAFETY: as for its memory.
unsafe impl Argument for Buffer {
    fn kind(&self) -> Parameter {
        Parameter::Pointer
    }

    fn pointer(&self) -> *const c_void {
        self.memory().pointer()
    }
}

static NULL: u64 = 0;

// SAFETY: an address, or that of nothing.
unsafe impl<A: Argument> Argument for Option<&A> {
    fn kind(&self) -> Parameter {
        Parameter::Pointer
    }

    fn pointer(&self) -> *const c_void {
        self.map_or(std::ptr::from_ref(&NULL).cast(), |memory| memory.pointer())
    }
}
