//! Page-locked memory of the host's, through which uploads go, and numbers come back: the host goes on while they are under way.
//!
//! Blocks are filled one after the other. An event behind the last upload of a block says when it may be filled again, so that no
//! upload is overwritten before the device has it; the host takes another block meanwhile, and waits only where all are under way.

use super::{Cuda, Memory, failed};
use crate::Result;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result, sys};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes of a block. What is larger, which a step has nothing of, goes by memory of the driver's, and the host waits for that.
const BLOCK: usize = 4 << 20;
/// Blocks at most: those of a few steps of the largest batches.
const MAX_BLOCKS: usize = 8;
/// Uploads begin at multiples of it.
const ALIGNMENT: usize = 64;

/// Page-locked memory.
struct Pinned {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: memory like any other, which one thread uses at a time, under the lock.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(bytes: usize) -> Result<Pinned, DriverError> {
        // SAFETY: it is released once, by `Drop`.
        let start = unsafe { result::malloc_host(bytes, 0) }?;
        Ok(Pinned { start: start.cast(), bytes })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: it came from the driver, and nothing is under way (`Staging::drop`). That the driver may refuse, at the end of the
        // process, harms nobody.
        let _ = unsafe { result::free_host(self.start.cast()) };
    }
}

#[derive(Default)]
struct Blocks {
    /// The one that is being filled, and how far it is.
    current: Option<(Pinned, usize)>,
    /// Full ones, and what is done when they may be filled again.
    full: VecDeque<(Pinned, CudaEvent)>,
    /// Whether the system gives no more page-locked memory.
    refused: bool,
}

/// A copy to the host that is under way, and what is done when it is there.
struct CopyUnderWay {
    to: Pinned,
    event: CudaEvent,
}

impl Drop for CopyUnderWay {
    fn drop(&mut self) {
        // Nobody asked for it; an error is of no interest any more.
        let _ = self.event.synchronize();
    }
}

/// Numbers of the device's that the host will ask for.
pub struct Readback {
    memory: Memory,
    len: usize,
    copy: Option<CopyUnderWay>,
    /// They themselves, where there is no page-locked memory for them.
    here: Option<Vec<f64>>,
}

impl Readback {
    /// The first `len` numbers of `memory`.
    pub(crate) fn new(memory: Memory, len: usize) -> Readback {
        Readback { memory, len, copy: None, here: None }
    }
}

/// All blocks, and the stream that copies are on.
pub(super) struct Staging {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    blocks: Mutex<Blocks>,
    /// Those that nothing comes to at the moment.
    idle: Mutex<Vec<CopyUnderWay>>,
}

impl Cuda {
    /// Has numbers come to the host behind what has been launched: what is launched later may overwrite their memory.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub(crate) fn call(&self, readback: &mut Readback) -> Result<()> {
        let Readback { memory, len, copy, here } = readback;
        let bytes = *len * size_of::<f64>();
        assert!(bytes <= memory.bytes(), "numbers that are there");
        *copy = self.shared.staging.call(memory.address(), bytes).map_err(failed("copy from the GPU"))?;
        if copy.is_none() {
            *here = Some(self.download_all(memory, *len)?);
        }
        Ok(())
    }

    /// The numbers: waits for them.
    ///
    /// # Errors
    /// [`crate::Error::Device`]: something that was launched has failed. [`crate::Error::Ranks`]: a rank that it waits for has gone.
    pub(crate) fn receive(&self, readback: Readback) -> Result<Vec<f64>> {
        let Readback { memory, len, copy, here } = readback;
        let Some(copy) = copy else { return here.map_or_else(|| self.download_all(&memory, len), Ok) };
        self.await_ranks()?;
        copy.event.synchronize().map_err(failed("run what was launched before"))?;
        // SAFETY: the copy of that many numbers is there; page-locked memory begins at a page.
        let numbers = unsafe { std::slice::from_raw_parts(copy.to.start.cast::<f64>(), len) }.to_vec();
        self.shared.staging.idle().push(copy);
        Ok(numbers)
    }
}

impl Staging {
    pub(super) fn new(context: Arc<CudaContext>, stream: Arc<CudaStream>) -> Staging {
        Staging { context, stream, blocks: Mutex::default(), idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<CopyUnderWay>> {
        self.idle.lock().expect("nothing panics while it holds the list")
    }

    /// Begins a copy to page-locked memory, if there is any.
    fn call(&self, address: u64, bytes: usize) -> Result<Option<CopyUnderWay>, DriverError> {
        if bytes == 0 {
            return Ok(None);
        }
        self.context.bind_to_thread()?;
        let mut idle = self.idle();
        let copy = match idle.iter().position(|copy| copy.to.bytes >= bytes) {
            Some(place) => idle.swap_remove(place),
            None => {
                let Ok(to) = Pinned::new(bytes.next_power_of_two().max(4096)) else { return Ok(None) };
                CopyUnderWay { to, event: self.context.new_event(None)? }
            }
        };
        let (to, stream) = (copy.to.start.cast::<c_void>(), self.stream.cu_stream());
        // SAFETY: both are of that size; nobody reads the one before the event, and the other is overwritten by nothing but what
        // follows on the stream.
        unsafe { sys::cuMemcpyDtoHAsync_v2(to, address, bytes, stream) }.result()?;
        copy.event.record(&self.stream)?;
        Ok(Some(copy))
    }

    /// Copies `data` to device memory of that size, in the order of the stream; it has been read when this returns.
    pub(super) fn send(&self, address: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let copy = || {
            self.context.bind_to_thread()?;
            // Nobody else takes a place until the copy from this one is on the stream, and so before an event behind it.
            let mut blocks = self.blocks.lock().expect("nothing panics while it holds the list");
            let place = if data.len() > BLOCK { None } else { self.place(&mut blocks, data.len())? };
            let from = match place {
                // SAFETY: the place has room for the data, and no upload from it is under way.
                Some(place) => unsafe {
                    std::ptr::copy_nonoverlapping(data.as_ptr(), place, data.len());
                    place.cast_const()
                },
                // The driver reads other memory before it returns.
                None => data.as_ptr(),
            };
            let (from, stream) = (from.cast::<c_void>(), self.stream.cu_stream());
            // SAFETY: whoever calls has memory of that size; what is copied from stays as it is until the event behind it.
            unsafe { sys::cuMemcpyHtoDAsync_v2(address, from, data.len(), stream) }.result()
        };
        copy().map_err(failed("copy to the GPU"))
    }

    /// Room for so many bytes, at most those of a block; none where there is no page-locked memory.
    fn place(&self, blocks: &mut Blocks, bytes: usize) -> Result<Option<*mut u8>, DriverError> {
        let Blocks { current, full, refused } = blocks;
        if current.as_ref().is_none_or(|(_, used)| used + bytes > BLOCK) {
            if let Some((block, _)) = current.take() {
                let event = self.context.new_event(None)?;
                event.record(&self.stream)?;
                full.push_back((block, event));
            }
            let waits = full.len() >= MAX_BLOCKS || (*refused && !full.is_empty());
            let again = full.front().is_some_and(|(_, event)| waits || event.is_complete());
            let next = match if again { full.pop_front() } else { None } {
                Some((block, event)) => {
                    event.synchronize()?;
                    Some(block)
                }
                None if *refused => None,
                None => Pinned::new(BLOCK).ok(),
            };
            *refused |= next.is_none();
            *current = next.map(|block| (block, 0));
        }
        let Some((block, used)) = current else { return Ok(None) };
        // SAFETY: within the block, which has just been seen to have room.
        let place = unsafe { block.start.add(*used) };
        *used = (*used + bytes).next_multiple_of(ALIGNMENT);
        Ok(Some(place))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Blocks are released next. An error is that of what was launched, which has been seen or is of no interest any more.
        let _ = self.stream.synchronize();
    }
}
