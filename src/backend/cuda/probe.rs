//! Whether CUDA can be used here, without touching what is not there.

use crate::{Error, Result};
use cudarc::driver::CudaContext;
use std::fmt;

/// A GPU that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub memory: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.capability;
        let gib = self.memory as f64 / f64::from(1 << 30);
        write!(f, "GPU {}: {}, sm_{major}{minor}, {gib:.0} GiB", self.ordinal, self.name)
    }
}

const OTHERWISE: &str = "use --device cpu";

/// The GPUs of this machine; at least one, and an NVRTC to compile kernels for them.
///
/// # Errors
/// [`Error::Device`], which says what is missing and what was looked for.
pub fn probe() -> Result<Vec<Found>> {
    // SAFETY: loads the library, which runs its constructors, as the first call of it would.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        let problem = "there is no CUDA driver: neither libcuda.so nor libcuda.so.1 is on the library path";
        return Err(Error::device(problem, format!("install NVIDIA's driver, or {OTHERWISE}")));
    }
    let absent =
        |problem: String| Error::device(problem, format!("look at what nvidia-smi says, or {OTHERWISE}"));
    cudarc::driver::result::init()
        .map_err(|error| absent(format!("the CUDA driver finds no GPU: {error}")))?;
    let count = CudaContext::device_count()
        .map_err(|error| absent(format!("the CUDA driver finds no GPU: {error}")))?;
    if count == 0 {
        return Err(absent("the CUDA driver finds no GPU".into()));
    }
    // SAFETY: as above.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        let problem = "there is no NVRTC, which compiles the kernels: neither libnvrtc.so nor libnvrtc.so.13 or .12 is on the library path";
        let mend = "install the CUDA toolkit, or pip install nvidia-cuda-nvrtc and add its folder to LD_LIBRARY_PATH";
        return Err(Error::device(problem, format!("{mend}; or {OTHERWISE}")));
    }
    (0..count as usize).map(found).collect()
}

/// The newest CUDA that the driver is for, as 13000 for 13.0.
///
/// # Errors
/// [`Error::Device`]: it does not say.
pub fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: a number to write to.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) }.result().map_err(|error| {
        Error::device(format!("the CUDA driver does not say its version: {error}"), OTHERWISE)
    })?;
    Ok(version)
}

fn found(ordinal: usize) -> Result<Found> {
    let refused =
        |error| Error::device(format!("GPU {ordinal} cannot be asked what it is: {error}"), OTHERWISE);
    let device = cudarc::driver::result::device::get(ordinal as i32).map_err(refused)?;
    let name = cudarc::driver::result::device::get_name(device).map_err(refused)?;
    use cudarc::driver::sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    // SAFETY: the device was given by the driver.
    let attribute = |which| unsafe { cudarc::driver::result::device::get_attribute(device, which) };
    let capability = (attribute(MAJOR).map_err(refused)? as u32, attribute(MINOR).map_err(refused)? as u32);
    // SAFETY: the device was given by the driver.
    let memory = unsafe { cudarc::driver::result::device::total_mem(device) }.map_err(refused)?;
    Ok(Found { ordinal, name, capability, memory })
}
