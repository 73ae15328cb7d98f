//! Matrices as the TMA (Tensor Memory Accelerator) of sm_90 and later is told of them: boxes, swizzled as products of warpgroups read them.

use super::{Argument, Buffer, Cuda, Storage, failed};
use crate::Result;
use crate::tensor::Shape;
use cudarc::driver::sys;
use limbeck_kernels::cuda::Parameter;
use std::ffi::c_void;

/// What a kernel is passed of a matrix in device memory, that it copies in boxes of [`BOX`] rows and columns.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub struct TensorMap([u64; 16]);

/// Rows and columns of a box: 128 bytes of two-byte elements, which is what the swizzle goes over.
const BOX: u32 = 64;

impl TensorMap {
    /// Of nothing: where a group of matrices has fewer than there is room for.
    pub(crate) const NONE: TensorMap = TensorMap([0; 16]);
}

// SAFETY: the struct of that name in hopper.cuh: 128 opaque bytes, aligned to as many.
unsafe impl Argument for TensorMap {
    fn kind(&self) -> Parameter {
        Parameter::Struct("TensorMap")
    }

    fn pointer(&self) -> *const c_void {
        self.0.as_ptr().cast()
    }

    fn bytes(&self) -> usize {
        size_of::<TensorMap>()
    }
}

impl Cuda {
    /// The map of a matrix of two-byte elements that lies in `buffer` by rows. Its address and its rows are to be multiples of 16
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device): the driver refuses it.
    ///
    /// # Panics
    /// If `shape` is not that of the buffer.
    pub(crate) fn tensor_map(&self, buffer: &Buffer, shape: Shape) -> Result<TensorMap> {
        use sys::CUtensorMapDataType_enum as Type;
        assert_eq!(buffer.len(), shape.len(), "a map of the whole buffer");
        let element = match buffer.storage() {
            Storage::F32 => unreachable!("matrices of warpgroups have elements of two bytes"),
            Storage::Bf16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            Storage::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        };
        let mut map = TensorMap::NONE;
        let sizes = [shape.cols as u64, shape.rows as u64];
        let stride = (shape.cols * buffer.storage().bytes()) as u64;
        self.bind()?;
        // SAFETY: 128 bytes to write, aligned to as many; two sizes, a stride between rows, two sides of a box and two steps, as is right
        // for a matrix. The address is not read.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut map).cast(),
                element,
                2,
                buffer.memory().address() as *mut c_void,
                sizes.as_ptr(),
                &stride,
                [BOX; 2].as_ptr(),
                [1; 2].as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(failed("describe a matrix"))?;
        Ok(map)
    }
}
