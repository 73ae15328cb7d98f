//! Sums over ranks by NCCL: from GPU to GPU, without the host.

use super::{Buffer, Cuda, Storage};
use crate::ranks::Ranks;
use crate::{Error, Result};
use cudarc::nccl::result::NcclError;
use cudarc::nccl::{result, sys};

/// A communicator of all ranks.
pub(super) struct Communicator(sys::ncclComm_t);

// SAFETY: NCCL's calls may come from any thread, one at a time, which the lock around this sees to.
unsafe impl Send for Communicator {}

impl Drop for Communicator {
    fn drop(&mut self) {
        // SAFETY: made by comm_init_rank, and not used any more. That others have gone already harms nobody.
        let _ = unsafe { result::comm_abort(self.0) };
    }
}

fn failed(action: &'static str) -> impl Fn(NcclError) -> Error {
    move |error| Error::Ranks {
        problem: format!("NCCL could not {action}: {error:?}"),
        mend: "run again with NCCL_DEBUG=INFO; NCCL_SOCKET_IFNAME names the network".into(),
    }
}

impl Cuda {
    /// Meets the GPUs of the other ranks, one each. False if there is no NCCL: sums then go through the hosts, which is right and
    /// slow.
    ///
    /// # Errors
    /// [`Error::Ranks`]: NCCL refuses, or another rank has failed.
    pub fn join_ranks(&self, ranks: &dyn Ranks) -> Result<bool> {
        // SAFETY: loads the library, which runs its constructors, as the first call of it would.
        let present = unsafe { sys::is_culib_present() };
        let mut all = [f64::from(u8::from(present))];
        ranks.sum_wide(&mut all)?;
        if (all[0] as usize) < ranks.size() {
            return Ok(false);
        }
        self.bind()?;
        let mut name = Vec::new();
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        ranks.only_first(|| {
            name = result::get_uniqueid().map_err(failed("name a group"))?.internal.map(|c| c as u8).to_vec();
            Ok(())
        })?;
        ranks.broadcast(&mut name)?;
        id.internal.iter_mut().zip(name).for_each(|(to, from)| *to = from as _);
        let mut communicator = std::ptr::null_mut();
        // SAFETY: a place to write to; the same id on all ranks, and a number of its own for each.
        unsafe { result::comm_init_rank(&mut communicator, ranks.size() as i32, id, ranks.rank() as i32) }
            .map_err(failed("join a group"))?;
        *self.shared.communicator.lock().expect("nothing panics while it holds the communicator") =
            Some(Communicator(communicator));
        Ok(true)
    }

    /// Sums each buffer over ranks, in one group; false if [`Cuda::join_ranks`] found no NCCL.
    pub(super) fn sum_by_nccl(&self, buffers: &mut [&mut Buffer]) -> Result<bool> {
        self.waits()?;
        let communicator = self.shared.communicator.lock().expect("nothing panics while it holds it");
        let Some(Communicator(communicator)) = &*communicator else { return Ok(false) };
        self.bind()?;
        result::group_start().map_err(failed("begin a sum"))?;
        for buffer in buffers.iter().filter(|buffer| !buffer.is_empty()) {
            assert_eq!(buffer.storage(), Storage::F32, "gradients of parameters are f32");
            let (address, stream) = (buffer.memory().address(), self.shared.stream.cu_stream());
            // SAFETY: the buffer has that many floats, and is used next by what follows on the same stream.
            unsafe {
                result::all_reduce(
                    address as *const _,
                    address as *mut _,
                    buffer.len(),
                    sys::ncclDataType_t::ncclFloat32,
                    sys::ncclRedOp_t::ncclSum,
                    *communicator,
                    stream.cast(),
                )
            }
            .map_err(failed("sum gradients"))?;
        }
        result::group_end().map_err(failed("sum gradients"))?;
        Ok(true)
    }
}
