//! A GPU as a [`Device`], through the CUDA driver, which is looked for when somebody asks for it.
//!
//! ```text
//! probe      is there a driver, a device, an NVRTC? if not: what was looked for
//! compile    kernels/cuda/*.cu to machine code, kept on disk by content
//! memory     a pool of device memory: a training step allocates nothing once it has seen its sizes
//! launch     arguments, checked against what the source declares
//! nccl       sums over the GPUs of several processes, on a stream of their own
//! libnccl    NVIDIA's library for that, if it is there
//! staging    page-locked memory that uploads go through, so that the host need not wait for them
//! recorder   what a piece of work asks, written down or compared with what was
//! graphs     training steps that are one launch
//! product    who makes the products of linear layers, and how that is chosen
//! cublaslt   NVIDIA's library for them, if it is there
//! tensor_map matrices as the TMA of sm_90 is told of them
//! batch      what kernels read of a batch, uploaded once for all operations on it
//! transfer   copies and casts
//! timing     how long launches take, by events
//! lengths    its texts by length, for kernels that have tiles for short ones
//! ```
//!
//! One context, one stream: an operation follows the one before it, and memory that is given back may be taken at once. (Sums over
//! ranks have another one; what they sum is kept until the first has been told to wait for them.) Parameters,
//! their gradients and moments are `f32`; activations are stored as [`Cuda::storage`] says, and an operation casts what it is
//! handed otherwise. What an operation does stands beside its CPU half, in `ops/*/cuda.rs`.

mod argument;
mod batch;
pub mod compile;
mod cublaslt;
mod graphs;
mod launch;
pub mod lengths;
mod libnccl;
mod memory;
mod nccl;
mod operation;
pub mod probe;
mod product;
mod recorder;
mod staging;
mod tensor_map;
mod timing;
mod transfer;

pub(crate) use argument::{Argument, Grid};
pub use batch::{DeviceBatch, RowLayout};
pub(crate) use cublaslt::Operands;
pub use graphs::Graphs;
pub(crate) use launch::Sliced;
pub use memory::{Buffer, Memory, Plain, Storage};
pub use product::{GemmBackend, GemmProblem, Kind};
pub use staging::Readback;
pub(crate) use tensor_map::TensorMap;

use super::{Cpu, Device, Repeats};
use crate::ranks::{ProcessGroup, Submit, SummedBuckets};
use crate::tensor::{Shape, Tensor};
use crate::{Batch, Error, Result};
use batch::Scope;
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, sys};
use limbeck_kernels::Kernels;
use memory::Pool;
use recorder::Recorder;
use staging::Staging;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// A GPU and how it stores activations.
#[derive(Clone)]
pub struct Cuda {
    shared: Arc<Shared>,
    storage: Storage,
    /// What makes all products; none for what each prefers.
    products: Option<GemmBackend>,
    graphs: Graphs,
    /// Who follows what is asked, if anybody does.
    recorder: Option<Arc<Mutex<Recorder>>>,
    scope: Arc<Scope>,
}

struct Shared {
    /// Once it has been looked for.
    cublaslt: OnceLock<Option<cublaslt::CublasLt>>,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    pool: Arc<Pool>,
    /// What graphs use.
    reserved: Arc<Pool>,
    graph_cache: Mutex<graphs::GraphCache>,
    staging: Staging,
    functions: Mutex<HashMap<(&'static str, Storage, &'static str), Function>>,
    modules: Mutex<HashMap<(&'static str, Storage), Arc<cudarc::driver::CudaModule>>>,
    constants: Mutex<Vec<Constant>>,
    communicator: Mutex<Option<nccl::Communicator>>,
    capability: (u32, u32),
    multiprocessors: u32,
    /// Bytes of shared memory that a block can ask for.
    shared_memory: u32,
    cache: Option<PathBuf>,
    /// Computes what this device has no kernels for.
    host: Cpu,
}

/// Bytes of the host's, and the same on the device.
type Constant = (Arc<[u8]>, Arc<Memory>);

/// A kernel that is loaded, and what its source says of it.
#[derive(Clone)]
struct Function {
    function: CudaFunction,
    declared: Arc<limbeck_kernels::cuda::Declared>,
}

/// How a [`Cuda`] is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which GPU, from 0.
    pub ordinal: usize,
    /// How activations are stored.
    pub storage: Storage,
    /// Where compiled kernels are kept; `None` for nowhere.
    pub cache: Option<PathBuf>,
    /// Whether buffers that are given back are used again. Without it, each is an allocation of its own of just its size, so that
    /// what watches memory (compute-sanitizer, guard pages) sees each access beyond it.
    pub reuse: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { ordinal: 0, storage: Storage::Bf16, cache: None, reuse: true }
    }
}

impl Cuda {
    /// Opens a GPU.
    ///
    /// # Errors
    /// [`Error::Device`]: there is no driver, no such GPU or no NVRTC; the GPU is older than sm_80. [`Error::Variable`]:
    /// `LIMBECK_GEMM` or `LIMBECK_GRAPHS` asks for what is not there.
    pub fn open(options: &Options) -> Result<Cuda> {
        let (products, graphs) = (GemmBackend::asked()?, Graphs::asked()?);
        probe::probe()?;
        let context = CudaContext::new(options.ordinal).map_err(|error| {
            Error::device(format!("GPU {} cannot be opened: {error}", options.ordinal), ANOTHER)
        })?;
        let attribute = |which| {
            context.attribute(which).map(|value| value as u32).map_err(failed("ask the GPU what it is"))
        };
        let (major, minor) = context.compute_capability().map_err(failed("ask the GPU what it is"))?;
        let capability = (major as u32, minor as u32);
        if capability < (8, 0) {
            let problem = format!(
                "GPU {} has compute capability {major}.{minor}, and kernels need 8.0",
                options.ordinal
            );
            return Err(Error::device(problem, ANOTHER));
        }
        let multiprocessors = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared_memory =
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let stream = context.new_stream().map_err(failed("make a stream"))?;
        let pool = Pool::new(Arc::clone(&context), Arc::clone(&stream), options.reuse);
        let shared = Shared {
            cublaslt: OnceLock::new(),
            reserved: pool.keeping(),
            pool,
            graph_cache: Mutex::default(),
            staging: Staging::new(Arc::clone(&context), Arc::clone(&stream)),
            context,
            stream,
            functions: Mutex::default(),
            modules: Mutex::default(),
            constants: Mutex::default(),
            communicator: Mutex::default(),
            capability,
            multiprocessors,
            shared_memory,
            cache: options.cache.clone(),
            host: Cpu::new(Kernels::select()?),
        };
        let cuda = Cuda {
            shared: Arc::new(shared),
            storage: options.storage,
            products: None,
            graphs,
            recorder: None,
            scope: Arc::default(),
        };
        cuda.with_gemm_backend(products)
    }

    /// The same GPU, its memory shared, storing activations as `storage`.
    pub fn with_storage(&self, storage: Storage) -> Cuda {
        Cuda { storage, ..self.clone() }
    }

    /// How activations are stored.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// Compute capability, major and minor.
    pub fn capability(&self) -> (u32, u32) {
        self.shared.capability
    }

    /// How many blocks of threads run at a time, at least: one a multiprocessor.
    pub fn multiprocessors(&self) -> usize {
        self.shared.multiprocessors as usize
    }

    /// Bytes of shared memory that a block can ask for.
    pub fn shared_memory(&self) -> usize {
        self.shared.shared_memory as usize
    }

    /// The CPU, for what has no kernel here.
    pub fn host(&self) -> &Cpu {
        &self.shared.host
    }

    /// Storage of `len` elements, content unspecified.
    ///
    /// # Errors
    /// [`Error::Device`]: no memory.
    pub fn buffer(&self, len: usize, storage: Storage) -> Result<Buffer> {
        Ok(Buffer::new(self.memory(len * storage.bytes())?, len, storage))
    }

    /// `bytes` of memory, content unspecified.
    ///
    /// # Errors
    /// [`Error::Device`]: no memory.
    pub fn memory(&self, bytes: usize) -> Result<Memory> {
        self.take(bytes)
    }

    /// The most bytes that were asked for at once so far: tests hold operations to what they say of their memory.
    pub fn largest_memory(&self) -> usize {
        self.shared.pool.largest()
    }

    /// Activations of this shape, content unspecified.
    ///
    /// # Errors
    /// [`Error::Device`]: no memory.
    pub fn activations(&self, shape: Shape) -> Result<Tensor<Cuda>> {
        self.tensor(shape, self.storage)
    }

    /// A tensor of this shape, content unspecified.
    ///
    /// # Errors
    /// [`Error::Device`]: no memory.
    pub fn tensor(&self, shape: Shape, storage: Storage) -> Result<Tensor<Cuda>> {
        Ok(Tensor::from_buffer(self.buffer(shape.len(), storage)?, shape))
    }

    /// The same GPU, nobody following what is asked.
    fn by_itself(&self) -> Cuda {
        Cuda { recorder: None, scope: Arc::default(), ..self.clone() }
    }

    fn recorder(&self) -> Option<MutexGuard<'_, Recorder>> {
        let recorder = self.recorder.as_ref()?;
        Some(recorder.lock().expect("nothing panics while it holds the recorder"))
    }

    /// Makes the GPU this thread's: the driver keeps that for each thread.
    fn bind(&self) -> Result<()> {
        self.shared.context.bind_to_thread().map_err(failed("use the GPU"))
    }
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = self.capability();
        write!(f, "Cuda sm_{major}{minor}, activations {}", self.storage.name())
    }
}

/// As PyTorch begins; overflow halves it.
const FIRST_LOSS_SCALE: f64 = 65_536.0;

const ANOTHER: &str = "name another in CUDA_VISIBLE_DEVICES, or use --device cpu";

/// What the driver refused, for `map_err`.
fn failed(action: &'static str) -> impl Fn(DriverError) -> Error {
    move |error| {
        let mend = match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                "lower the batch or max_tokens, or stop other programs on the GPU"
            }
            _ => "run again with CUDA_LAUNCH_BLOCKING=1 to see where, or use --device cpu",
        };
        Error::device(format!("the GPU could not {action}: {error}"), mend)
    }
}

impl Device for Cuda {
    type Buffer = Buffer;

    fn empty(&self, len: usize) -> Result<Buffer> {
        self.buffer(len, Storage::F32)
    }

    fn zeros(&self, len: usize) -> Result<Buffer> {
        let mut buffer = self.empty(len)?;
        self.clear(buffer.memory_mut())?;
        Ok(buffer)
    }

    fn upload(&self, data: &[f32]) -> Result<Buffer> {
        Ok(Buffer::new(self.upload_all(data)?, data.len(), Storage::F32))
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<f32>> {
        match buffer.storage() {
            Storage::F32 => self.download_all(buffer.memory(), buffer.len()),
            storage => {
                let bits: Vec<u16> = self.download_all(buffer.memory(), buffer.len())?;
                Ok(bits.into_iter().map(|bits| storage.widen(bits)).collect())
            }
        }
    }

    fn fills(&self) -> bool {
        self.graphs != Graphs::Off
    }

    fn repeated<T>(&self, batch: &Batch, work: impl FnMut(&Cuda) -> Result<T>) -> Result<T> {
        self.repeat(batch, work)
    }

    fn runs_ahead(&self) -> bool {
        // What overflows in f16 decides what the next step's loss is multiplied by.
        self.storage != Storage::F16
    }

    fn repeats(&self) -> Option<Repeats> {
        (self.graphs == Graphs::On).then(|| self.graph_repeats())
    }

    fn loss_scale(&self) -> Option<f64> {
        (self.storage == Storage::F16).then_some(FIRST_LOSS_SCALE)
    }

    fn while_summing<T>(
        &self,
        ranks: &dyn ProcessGroup,
        compute: impl FnOnce(&mut Submit<'_, Buffer>) -> Result<T>,
    ) -> Result<(T, SummedBuckets<Buffer>)> {
        self.sum_beside(ranks, compute)
    }

    fn abort(&self, ranks: &dyn ProcessGroup) {
        self.leave_group();
        ranks.abort();
    }

    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        assert_eq!(x.len(), y.len(), "sums are of equal shapes");
        let (kernel, storage) = match (x.storage(), y.storage()) {
            (of_x, of_y) if of_x == of_y => ("add", of_x),
            (of_x, Storage::F32) => ("add_to_float", of_x),
            (Storage::F32, of_y) => ("add_float", of_y),
            _ => unreachable!("activations have one storage, everything else is f32"),
        };
        self.elementwise(storage, kernel, x.len(), &[x, y])
    }

    fn sum_squares(&self, x: &Buffer) -> Result<f64> {
        let blocks = x.len().div_ceil(1 << 14);
        let partial = self.memory(blocks * size_of::<f64>())?;
        if blocks > 0 {
            let grid = Grid::blocks(blocks, 256);
            self.launch("elementwise", x.storage(), "sum_squares", grid, &[x, &(x.len() as u64), &partial])?;
        }
        Ok(self.download_all::<f64>(&partial, blocks)?.into_iter().sum())
    }
}
