//! Sums over ranks by NCCL: from GPU to GPU, without the host, beside the kernels that compute what is summed next.
//!
//! ```text
//! stream of the kernels ── gradients of bucket 0 ─┬─ gradients of bucket 1 ─┬─ … ──────────── (waits) ─ optimizer
//! stream of the sums                              └──── sums of bucket 0 ───┴─ sums of bucket 1 ─┘
//! ```
//!
//! A kernel of NCCL's waits for those of the other GPUs, for ever if one of the ranks has gone. So who waits for the GPU looks after
//! the ranks meanwhile, and ends the sums if one has gone.

use super::libnccl::{self as result, NcclError};
use super::{Buffer, Cuda, Storage, failed as refused};
use crate::backend::Device;
use crate::ranks::{Failing, ProcessGroup, Submit, SummedBuckets, Watch};
use crate::{Error, Result};
use cudarc::driver::CudaStream;
use cudarc::nccl::sys;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

/// How often who waits for the GPU looks after the other ranks.
const LOOK: Duration = Duration::from_millis(20);

/// A communicator of all ranks, and the stream of its sums.
pub(super) struct Communicator {
    handle: sys::ncclComm_t,
    stream: Arc<CudaStream>,
    watch: Option<Watch>,
    /// Whether sums have been launched that nobody has waited for: ranks may go when there are none.
    summing: bool,
}

// SAFETY: NCCL's calls may come from any thread, one at a time, which the lock around this sees to.
unsafe impl Send for Communicator {}

impl Drop for Communicator {
    fn drop(&mut self) {
        // SAFETY: made by comm_init_rank, and not used any more. It ends sums that wait for ranks that are gone; that others have gone
        // already harms nobody.
        let _ = unsafe { result::comm_abort(self.handle) };
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
    pub fn join_ranks(&self, ranks: &dyn ProcessGroup) -> Result<bool> {
        let mut all = [f64::from(u8::from(result::is_present()))];
        ranks.sum_f64(&mut all)?;
        if (all[0] as usize) < ranks.size() {
            return Ok(false);
        }
        self.bind()?;
        let stream = self.shared.context.new_stream().map_err(refused("make a stream"))?;
        let mut name = Vec::new();
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        ranks.from_first(|| {
            name = result::get_uniqueid().map_err(failed("name a group"))?.internal.map(|c| c as u8).to_vec();
            Ok(())
        })?;
        ranks.broadcast(&mut name)?;
        id.internal.iter_mut().zip(name).for_each(|(to, from)| *to = from as _);
        let mut handle = std::ptr::null_mut();
        // SAFETY: a place to write to; the same id on all ranks, and a number of its own for each.
        unsafe { result::comm_init_rank(&mut handle, ranks.size() as i32, id, ranks.rank() as i32) }
            .map_err(failed("join a group"))?;
        *self.communicator() = Some(Communicator { handle, stream, watch: ranks.watch()?, summing: false });
        Ok(true)
    }

    fn communicator(&self) -> MutexGuard<'_, Option<Communicator>> {
        self.shared.communicator.lock().expect("nothing panics while it holds the communicator")
    }

    /// Ends sums that are under way, and the group with them.
    pub(super) fn leave_group(&self) {
        *self.communicator() = None;
    }

    /// Waits for what has been launched if sums of several ranks are among it; else does nothing.
    ///
    /// # Errors
    /// [`Error::Ranks`]: one of them has gone.
    pub(super) fn await_ranks(&self) -> Result<()> {
        let mut communicator = self.communicator();
        let Some(Communicator { watch: Some(watch), summing, .. }) = &mut *communicator else {
            return Ok(());
        };
        if !std::mem::take(summing) {
            return Ok(());
        }
        let launched = self.shared.stream.record_event(None).map_err(refused("wait for the sums"))?;
        let over = || launched.try_is_complete().map_err(refused("run what was launched before"));
        let awaited = wait(over, watch);
        if matches!(awaited, Err(Error::Ranks { .. })) {
            // Ends the kernels that wait, without which nothing else would end.
            *communicator = None;
        }
        awaited
    }

    /// [`Device::while_summing`]: by NCCL, or, if [`Cuda::join_ranks`] found none, by the hosts when all has been computed.
    pub(super) fn sum_beside<T>(
        &self,
        ranks: &dyn ProcessGroup,
        compute: impl FnOnce(&mut Submit<'_, Buffer>) -> Result<T>,
    ) -> Result<(T, SummedBuckets<Buffer>)> {
        self.waits()?;
        let failing = Failing::unless_told(ranks);
        let (mut buckets, mut begun) = (Vec::new(), 0);
        let computed = compute(&mut |bucket| {
            begun += usize::from(self.begin_sums(&bucket)?);
            buckets.push(bucket);
            Ok(())
        });
        // What was given is kept until no sum can write to it any more: in the case of an error, until sums have been ended.
        let done = computed.and_then(|computed| self.await_sums().map(|by_nccl| (computed, by_nccl)));
        let (computed, by_nccl) = done.inspect_err(|_| self.leave_group())?;
        if !by_nccl {
            buckets.iter_mut().try_for_each(|bucket| self.sum_by_hosts(bucket, ranks))?;
        }
        failing.went_well();
        Ok((computed, SummedBuckets { buckets, begun }))
    }

    /// Has a bucket summed in place, in one group, as soon as all that has been launched so far is done; false without NCCL.
    fn begin_sums(&self, bucket: &[Buffer]) -> Result<bool> {
        let mut communicator = self.communicator();
        let Some(Communicator { handle, stream, summing, .. }) = &mut *communicator else {
            return Ok(false);
        };
        self.bind()?;
        *summing = true;
        stream.join(&self.shared.stream).map_err(refused("wait for gradients"))?;
        result::group_start().map_err(failed("begin a sum"))?;
        for buffer in bucket.iter().filter(|buffer| !buffer.is_empty()) {
            assert_eq!(buffer.storage(), Storage::F32, "gradients of parameters are f32");
            let address = buffer.memory().address();
            // SAFETY: the buffer has that many floats; whoever has it keeps it until the kernels' stream waits for these sums.
            unsafe {
                result::all_reduce(
                    address as *const _,
                    address as *mut _,
                    buffer.len(),
                    sys::ncclDataType_t::ncclFloat32,
                    sys::ncclRedOp_t::ncclSum,
                    *handle,
                    stream.cu_stream().cast(),
                )
            }
            .map_err(failed("sum gradients"))?;
        }
        result::group_end().map_err(failed("sum gradients"))?;
        Ok(true)
    }

    /// Has whatever is launched from here on wait for all sums that have begun; false without NCCL.
    fn await_sums(&self) -> Result<bool> {
        let communicator = self.communicator();
        let Some(Communicator { stream, .. }) = &*communicator else { return Ok(false) };
        self.bind()?;
        self.shared.stream.join(stream).map_err(refused("wait for sums"))?;
        Ok(true)
    }

    fn sum_by_hosts(&self, bucket: &mut [Buffer], ranks: &dyn ProcessGroup) -> Result<()> {
        for buffer in bucket {
            let mut values = self.download(buffer)?;
            ranks.sum(&mut values)?;
            *buffer = self.upload(&values)?;
        }
        Ok(())
    }
}

/// Waits until it is `over`, or a rank has gone.
fn wait(over: impl Fn() -> Result<bool>, watch: &Watch) -> Result<()> {
    let mut looked = Instant::now();
    while !over()? {
        if looked.elapsed() >= LOOK {
            watch()?;
            looked = Instant::now();
        }
        std::thread::yield_now();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn waiting_ends_with_the_work_or_with_a_rank() {
        let gone = || Error::Ranks { problem: "rank 1 has stopped".into(), mend: String::new() };
        let watch: Watch = Box::new(move || Err(gone()));
        let asked = Cell::new(0);
        let third = || {
            asked.set(asked.get() + 1);
            Ok(asked.get() == 3)
        };
        wait(third, &watch).unwrap();
        assert_eq!(asked.get(), 3, "ranks are not looked after before it takes long");
        let error = wait(|| Ok(false), &watch).unwrap_err().to_string();
        assert!(error.contains("rank 1 has stopped"), "{error}");
    }
}
