//! How long what is launched takes, by the device's own clock.

use super::{Cuda, failed};
use crate::Result;
use cudarc::driver::sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE as L2_CACHE_SIZE;
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, DriverError, sys};
use std::time::Duration;

impl Cuda {
    /// How long it takes from where the stream is at the moment to the end of what `work` launches. Launching is part of it where it
    /// takes longer than what is launched.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Device`](crate::Error::Device).
    pub fn elapsed(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let (context, stream) = (&self.shared.context, &self.shared.stream);
        let event =
            || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed("take the time"));
        let (start, end) = (event()?, event()?);
        start.record(stream).map_err(failed("take the time"))?;
        work()?;
        end.record(stream).map_err(failed("take the time"))?;
        end.synchronize().map_err(failed("run what was launched before"))?;
        let ms = elapsed_ms(&start, &end).map_err(failed("take the time"))?;
        Ok(Duration::from_secs_f64(f64::from(ms) * 1e-3))
    }

    /// Bytes of the cache that all multiprocessors share.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    pub fn cache_bytes(&self) -> Result<usize> {
        let bytes = self.shared.context.attribute(L2_CACHE_SIZE).map_err(failed("ask the GPU what it is"))?;
        Ok(bytes as usize)
    }
}

/// Milliseconds from one event to the other, both of which are over. What the driver calls it depends on its age: cudarc's bindings know
/// only the name that drivers have had since CUDA 12.8.
fn elapsed_ms(start: &CudaEvent, end: &CudaEvent) -> Result<f32, DriverError> {
    type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
    let mut ms = 0.0;
    // SAFETY: the driver has one of these functions, both of that type; events that exist, and a number to write to.
    unsafe {
        let driver = sys::culib();
        let elapsed = driver
            .get::<Elapsed>(&b"cuEventElapsedTime_v2"[..])
            .or_else(|_| driver.get(&b"cuEventElapsedTime"[..]));
        elapsed.map_err(|_| DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND))?(
            &mut ms,
            start.cu_event(),
            end.cu_event(),
        )
    }
    .result()?;
    Ok(ms)
}
