//! NVIDIA's cuBLASLt, looked for when a product is to be made by it.
//!
//! It reads matrices by columns, and ours lie by rows: to it each of ours is its own transpose, so that it makes `yᵀ = W·xᵀ`. What
//! the heuristic finds is kept for each product, so that only the first of a kind asks. Sums are f32, those of slices too
//! (the heuristic is not offered reductions in 16 bits), and f32 operands are multiplied as f32, not as TF32.

use super::operation::{Addresses, Operation};
use super::product::{GemmProblem, Kind};
use super::{Cuda, Memory, Storage};
use crate::{Error, Result};
use cudarc::cublaslt::{result, sys};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard};

/// The most that an algorithm may ask for: what NVIDIA advises for sm_90.
const WORKSPACE: usize = 32 << 20;

/// The library, and what is known of products that it has made.
pub(super) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// None for what it has no algorithm for.
    planned: HashMap<GemmProblem, Option<Planned>>,
    /// Of [`WORKSPACE`] bytes, for all of them: all work is on one stream. It never moves, for graphs use it.
    workspace: Option<Memory>,
}

// SAFETY: a handle may be used by any thread, and descriptors are used by one at a time, under the lock.
unsafe impl Send for CublasLt {}
// SAFETY: as above.
unsafe impl Sync for CublasLt {}

/// What the library is passed, other than addresses.
struct Planned {
    description: sys::cublasLtMatmulDesc_t,
    /// Of a, b and the result.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
    workspace: usize,
}

/// The operands of a product, in device memory.
pub(crate) struct Operands<'a> {
    /// The weight; for its gradient the layer's input.
    pub a: &'a Memory,
    /// The layer's input, or the gradient of its sums.
    pub b: &'a Memory,
    /// Added to each row of the result, stored as that is.
    pub bias: Option<&'a Memory>,
    /// The result.
    pub out: &'a Memory,
}

impl Operands<'_> {
    fn addresses(&self) -> Addresses {
        let Operands { a, b, bias, out } = self;
        let bias = bias.map(Memory::address);
        Addresses { a: a.address(), b: b.address(), bias, out: out.address() }
    }
}

impl Cuda {
    /// The library, if it is there.
    pub(super) fn cublaslt(&self) -> Result<Option<&CublasLt>> {
        if let Some(found) = self.shared.cublaslt.get() {
            return Ok(found.as_ref());
        }
        let found = CublasLt::open(self)?;
        Ok(self.shared.cublaslt.get_or_init(|| found).as_ref())
    }

    /// Has cuBLASLt make a product: false, and nothing done, if it has no algorithm for it.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(crate) fn multiply_by_library(&self, product: &GemmProblem, operands: &Operands<'_>) -> Result<bool> {
        let addresses = operands.addresses();
        // What the library has refused is not recorded, and so none of the kernels of ours that were launched instead are missed.
        if !self.library_refuses(product)?
            && self.compares(|record| record.multiplies(product, &addresses))?
        {
            return Ok(true);
        }
        let made = self.multiply_at(product, addresses)?;
        if made {
            self.write(|| Operation::Gemm(*product, addresses));
        }
        Ok(made)
    }

    /// Makes a product of operands at these addresses, which are as large as the product says.
    pub(super) fn multiply_at(&self, product: &GemmProblem, addresses: Addresses) -> Result<bool> {
        match self.cublaslt()? {
            Some(library) if product.multiply_adds() > 0 => library.multiply(self, product, addresses),
            _ => Ok(false),
        }
    }

    /// Whether the library is known not to make such a product.
    fn library_refuses(&self, product: &GemmProblem) -> Result<bool> {
        let refuses = |library: &CublasLt| matches!(library.known().planned.get(product), Some(None));
        Ok(product.multiply_adds() == 0 || self.cublaslt()?.is_none_or(refuses))
    }

    /// Whether the library has made a product like this one.
    pub(crate) fn library_makes(&self, product: &GemmProblem) -> Result<bool> {
        let makes = |library: &CublasLt| matches!(library.known().planned.get(product), Some(Some(_)));
        Ok(self.cublaslt()?.is_some_and(makes))
    }

    /// The library's version, as it gives it: 130100 is 13.1.0. None where it is not there.
    ///
    /// # Errors
    /// [`Error::Device`]: it is there and does not work.
    pub fn library_version(&self) -> Result<Option<usize>> {
        // SAFETY: the library is loaded, and this asks nothing of it.
        Ok(self.cublaslt()?.map(|_| unsafe { sys::cublasLtGetVersion() }))
    }
}

impl CublasLt {
    fn open(cuda: &Cuda) -> Result<Option<CublasLt>> {
        // SAFETY: loads the library, which runs its constructors, as the first call of it would.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        cuda.bind()?;
        let handle = result::create_handle().map_err(failed("begin"))?;
        Ok(Some(CublasLt { handle, known: Mutex::default() }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds the list")
    }

    fn multiply(&self, cuda: &Cuda, product: &GemmProblem, operands: Addresses) -> Result<bool> {
        cuda.bind()?;
        let mut known = self.known();
        let Known { planned, workspace } = &mut *known;
        if !planned.contains_key(product) {
            planned.insert(*product, Planned::find(self.handle, product, operands)?);
        }
        let Some(plan) = &planned[product] else { return Ok(false) };
        if plan.workspace > 0 && workspace.is_none() {
            *workspace = Some(cuda.by_itself().memory(WORKSPACE)?);
        }
        if let Some(bias) = operands.bias {
            plan.point_at_bias(bias)?;
        }
        let (alpha, beta) = (1.0f32, if product.accumulate { 1.0f32 } else { 0.0 });
        let [of_a, of_b, of_out] = plan.layouts;
        let pointer = |address: u64| address as *mut c_void;
        let space = workspace.as_ref().map_or(std::ptr::null_mut(), |memory| pointer(memory.address()));
        // SAFETY: descriptors made below; the memory is as large as the product says (whoever calls has made it so), and is used
        // again only by what is launched after this, on the same stream.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(operands.a),
                of_a,
                pointer(operands.b),
                of_b,
                pointer(operands.out),
                of_out,
                pointer(operands.out),
                of_out,
                &plan.algorithm,
                space,
                plan.workspace,
                cuda.shared.stream.cu_stream().cast(),
            )
        }
        .map_err(failed("multiply"))?;
        Ok(true)
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        self.known.get_mut().map(|known| known.planned.clear()).ok();
        // SAFETY: nobody has it any more. That the library may refuse, at the end of the process, harms nobody.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Planned {
    /// None if there is no algorithm.
    fn find(
        handle: sys::cublasLtHandle_t,
        product: &GemmProblem,
        operands: Addresses,
    ) -> Result<Option<Planned>> {
        use sys::cublasLtMatmulDescAttributes_t as Of;
        let described = Described::of(product);
        let single = sys::cudaDataType::CUDA_R_32F;
        let description = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, single)
            .map_err(failed("describe a product"))?;
        let mut plan = Planned {
            description,
            layouts: [std::ptr::null_mut(); 3],
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            workspace: 0,
        };
        for (layout, [rows, cols], storage) in [
            (0, described.a, product.storage),
            (1, described.b, product.storage),
            (2, described.out, product.result()),
        ] {
            plan.layouts[layout] =
                result::create_matrix_layout(data_type(storage), rows as u64, cols as u64, rows as i64)
                    .map_err(failed("describe a matrix"))?;
        }
        // CUBLAS_OP_N is 0, CUBLAS_OP_T is 1.
        plan.set(Of::CUBLASLT_MATMUL_DESC_TRANSA, i32::from(described.transposed[0]))?;
        plan.set(Of::CUBLASLT_MATMUL_DESC_TRANSB, i32::from(described.transposed[1]))?;
        if let Some(bias) = operands.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            plan.set(Of::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            plan.point_at_bias(bias)?;
        }
        Ok(plan.choose(handle)?.then_some(plan))
    }

    /// Asks for the best algorithm; false if there is none.
    fn choose(&mut self, handle: sys::cublasLtHandle_t) -> Result<bool> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Of;
        let preference = result::create_matmul_pref().map_err(failed("say what it prefers"))?;
        let most = WORKSPACE;
        let scheme = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let [of_a, of_b, of_out] = self.layouts;
        // SAFETY: a preference made above, attributes of their sizes, descriptors of this plan.
        let found = unsafe {
            let set = |which, value: *const c_void, bytes| {
                result::set_matmul_pref_attribute(preference, which, value, bytes)
            };
            let limit = Of::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            let schemes = Of::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
            set(limit, (&raw const most).cast(), size_of::<usize>())
                .and_then(|()| set(schemes, (&raw const scheme).cast(), size_of::<u32>()))
                .and_then(|()| {
                    result::get_matmul_algo_heuristic(
                        handle,
                        self.description,
                        of_a,
                        of_b,
                        of_out,
                        of_out,
                        preference,
                    )
                })
        };
        // SAFETY: made above, and not used any more.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        match found {
            Ok(found) => {
                (self.algorithm, self.workspace) = (found.algo, found.workspaceSize);
                Ok(true)
            }
            Err(result::CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(false),
            Err(error) => Err(failed("choose an algorithm")(error)),
        }
    }

    fn point_at_bias(&self, bias: u64) -> Result<()> {
        let pointer = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        self.set(pointer, bias)
    }

    fn set<T: Copy>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: T) -> Result<()> {
        // SAFETY: a description that lives as long as the plan; the library copies as many bytes as it is told.
        unsafe {
            result::set_matmul_desc_attribute(
                self.description,
                attribute,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        }
        .map_err(failed("describe a product"))
    }
}

impl Drop for Planned {
    fn drop(&mut self) {
        // SAFETY: made by this plan, and nobody has them any more.
        unsafe {
            let _ = result::destroy_matmul_desc(self.description);
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

/// Matrices as the library sees them: rows and columns, by columns.
struct Described {
    a: [usize; 2],
    b: [usize; 2],
    transposed: [bool; 2],
    out: [usize; 2],
}

impl Described {
    fn of(product: &GemmProblem) -> Described {
        let GemmProblem { rows, outputs, inputs, .. } = *product;
        match product.kind {
            // yᵀ = W·xᵀ, of which it sees Wᵀ and xᵀ.
            Kind::Forward => Described {
                a: [inputs, outputs],
                b: [inputs, rows],
                transposed: [true, false],
                out: [outputs, rows],
            },
            // dxᵀ = Wᵀ·dzᵀ.
            Kind::InputGradient => Described {
                a: [inputs, outputs],
                b: [outputs, rows],
                transposed: [false, false],
                out: [inputs, rows],
            },
            // dWᵀ = xᵀ·dz.
            Kind::WeightGradient => Described {
                a: [inputs, rows],
                b: [outputs, rows],
                transposed: [false, true],
                out: [inputs, outputs],
            },
        }
    }
}

fn data_type(storage: Storage) -> sys::cudaDataType {
    match storage {
        Storage::F32 => sys::cudaDataType::CUDA_R_32F,
        Storage::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        Storage::F16 => sys::cudaDataType::CUDA_R_16F,
    }
}

/// What the library refused, for `map_err`.
fn failed(action: &'static str) -> impl Fn(result::CublasError) -> Error {
    move |error| {
        Error::device(
            format!("cuBLASLt could not {action}: {error}"),
            "set LIMBECK_GEMM=own to do without it",
        )
    }
}
