//! Launching kernels: what is passed is checked against what the source declares, so that a launch that would read garbage is a
//! panic of ours and not a crash of the device.

use super::argument::{Argument, Grid};
use super::operation::{Kernel, Launch, Operation};
use super::{Buffer, Cuda, Function, Storage, compile, failed, probe};
use crate::Result;
use cudarc::driver::{CudaFunction, result, sys};
use limbeck_kernels::cuda::{Declared, Parameter, Source};
use std::ffi::c_void;
use std::sync::Arc;

/// Partial sums in f32: of slice `s`, element `i` is `partial[s · stride + first + i]`.
#[derive(Clone, Copy)]
pub struct Sliced<'a> {
    /// All of them.
    pub partial: &'a Buffer,
    /// Where those of slice 0 begin.
    pub first: usize,
    /// Slices.
    pub slices: usize,
    /// From one slice to the next.
    pub stride: usize,
}

impl Cuda {
    /// Launches a kernel of a source, compiled for `storage`. Where there is nothing to do (no blocks), nothing is launched.
    ///
    /// # Errors
    /// [`crate::Error::Device`]: it does not compile, or the GPU refuses it.
    ///
    /// # Panics
    /// If the arguments are not of the types that the source declares, or the blocks have more threads than it allows.
    pub(crate) fn launch(
        &self,
        source: &'static str,
        storage: Storage,
        kernel: &'static str,
        grid: Grid,
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let kernel = (source, storage, kernel);
        if self.compares(|record| record.launches(kernel, grid, arguments))? {
            return Ok(());
        }
        let function = self.function(kernel)?;
        check(&function.declared, grid, arguments);
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(|a| a.pointer().cast_mut()).collect();
        self.bind()?;
        if grid.shared > 48 << 10 {
            allow_shared(&function.function, grid.shared)?;
        }
        self.issue(&function.function, grid, &mut pointers)?;
        self.write(|| Operation::Launch(Launch::of(kernel, &function.function, grid, arguments)));
        Ok(())
    }

    /// Launches a kernel whose arguments have been checked.
    pub(super) fn issue(
        &self,
        function: &CudaFunction,
        grid: Grid,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        let [x, y, z] = grid.blocks.map(|blocks| u32::try_from(blocks).expect("a grid that the device has"));
        let (function, stream) = (function.cu_function(), self.shared.stream.cu_stream());
        // SAFETY: the arguments are those that the kernel declares (`Cuda::launch` has checked them). What they point to is memory of
        // this device, which is used again only by what is launched after this, on the same stream.
        unsafe {
            let threads = (grid.threads as u32, 1, 1);
            result::launch_kernel(function, (x, y, z), threads, grid.shared as u32, stream, arguments)
        }
        .map_err(failed("launch a kernel"))
    }

    /// Launches a kernel of `elementwise.cu`, whose threads each take one pack of the buffers: they are passed, then the length.
    pub(crate) fn elementwise(
        &self,
        storage: Storage,
        kernel: &'static str,
        len: usize,
        buffers: &[&Buffer],
    ) -> Result<()> {
        let mut arguments: Vec<&dyn Argument> =
            buffers.iter().map(|buffer| *buffer as &dyn Argument).collect();
        let count = len as u64;
        arguments.push(&count);
        self.launch("elementwise", storage, kernel, Grid::elements(len), &arguments)
    }

    /// `out`, or `out` added to, is the sum over slices of what each has left.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub(crate) fn sum_slices(&self, sliced: Sliced<'_>, out: &mut Buffer, accumulate: bool) -> Result<()> {
        // As many threads for one sum as leaves none of the GPU's multiprocessors idle, each with two slices at least.
        let most = (sliced.slices / 2).clamp(1, 64);
        let wanted = (self.multiprocessors() * 512).div_ceil(out.len().max(1)).clamp(1, most);
        let share = 1 << wanted.ilog2();
        let arguments: [&dyn Argument; 8] = [
            sliced.partial,
            &(sliced.first as u64),
            &(sliced.slices as i32),
            &(sliced.stride as u64),
            &(out.len() as u64),
            &share,
            &i32::from(accumulate),
            out,
        ];
        let grid = Grid::blocks(out.len().div_ceil(256 >> wanted.ilog2()), 256).with_shared(1 << 10);
        self.launch("sums", Storage::F32, "sum_slices", grid, &arguments)
    }

    fn function(&self, key: Kernel) -> Result<Function> {
        let (source, storage, kernel) = key;
        let mut functions = self.shared.functions.lock().expect("nothing panics while it holds the list");
        if let Some(function) = functions.get(&key) {
            return Ok(function.clone());
        }
        let text = Source::find(source).unwrap_or_else(|| panic!("there is no source {source}"));
        let declared = text.kernels().find(|declared| declared.name == kernel);
        let declared = declared.unwrap_or_else(|| panic!("{source} has no kernel {kernel}"));
        let module = self.module(text, storage)?;
        let function = module.load_function(kernel).map_err(failed("find a kernel"))?;
        let function = Function { function, declared: Arc::new(declared) };
        functions.insert(key, function.clone());
        Ok(function)
    }

    fn module(&self, source: &'static Source, storage: Storage) -> Result<Arc<cudarc::driver::CudaModule>> {
        let mut modules = self.shared.modules.lock().expect("nothing panics while it holds the list");
        if let Some(module) = modules.get(&(source.name, storage)) {
            return Ok(Arc::clone(module));
        }
        let target = compile::Target::of(storage, self.capability());
        let cache = self.shared.cache.as_deref();
        self.bind()?;
        let load = |image| self.shared.context.load_module(cudarc::nvrtc::Ptx::from_binary(image));
        let kept = compile::kept(source, &target, cache)?.and_then(|image| load(image).ok());
        let module = match kept {
            Some(module) => module,
            // Nothing was kept, or the driver does not read it: a disk that was full, another driver.
            None => load(compile::keep(source, &target, cache)?).map_err(|error| {
                let too_new = probe::driver_version().ok().and_then(compile::too_new);
                too_new.unwrap_or_else(|| failed("load kernels")(error))
            })?,
        };
        modules.insert((source.name, storage), Arc::clone(&module));
        Ok(module)
    }
}

/// Lets blocks have more shared memory than is theirs without asking.
fn allow_shared(function: &CudaFunction, bytes: usize) -> Result<()> {
    let limit = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(limit, bytes as i32).map_err(failed("give a kernel its shared memory"))
}

fn check(declared: &Declared, grid: Grid, arguments: &[&dyn Argument]) {
    let name = declared.name;
    assert!(
        grid.threads <= declared.threads as usize,
        "{name}: blocks of at most {} threads",
        declared.threads
    );
    let given: Vec<Parameter> = arguments.iter().map(|argument| argument.kind()).collect();
    assert_eq!(given, declared.parameters, "{name}: what is passed, and what it takes");
}
