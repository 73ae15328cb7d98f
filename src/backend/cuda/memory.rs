//! Device memory that returns to a pool when it is dropped: asking the driver for it would cost more than most kernels.

use super::failed;
use crate::Result;
use cudarc::driver::{CudaContext, CudaStream, result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// IEEE single precision.
    F32,
    /// The upper half of it.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Storage {
    /// All of them.
    pub const ALL: [Storage; 3] = [Storage::F32, Storage::Bf16, Storage::F16];

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Storage::F32 => 4,
            Storage::Bf16 | Storage::F16 => 2,
        }
    }

    /// What kernels call it: `Real`.
    pub fn name(self) -> &'static str {
        match self {
            Storage::F32 => "float",
            Storage::Bf16 => "Bf16",
            Storage::F16 => "F16",
        }
    }

    /// The value of an element of two bytes.
    pub fn widen(self, bits: u16) -> f32 {
        match self {
            Storage::F32 => unreachable!("an element of four bytes"),
            Storage::Bf16 => half::bf16::from_bits(bits).to_f32(),
            Storage::F16 => half::f16::from_bits(bits).to_f32(),
        }
    }
}

/// Numbers that are the same bytes here and there.
///
/// # Safety
/// Every pattern of bits is a value, and there are no gaps between fields.
pub unsafe trait Plain: Copy + Default {}
// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for u16 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: numbers.
unsafe impl Plain for i32 {}
// SAFETY: numbers.
unsafe impl Plain for u64 {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}
// SAFETY: numbers.
unsafe impl Plain for f64 {}

/// A piece of device memory.
pub struct Memory {
    address: u64,
    bytes: usize,
    /// The pool that it returns to, and what that knows it as.
    home: Option<(Arc<Pool>, usize)>,
}

impl Memory {
    /// A part of memory that somebody else keeps.
    pub(super) fn lent(address: u64, bytes: usize) -> Memory {
        Memory { address, bytes, home: None }
    }

    /// Where it is, for the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn address_ref(&self) -> &u64 {
        &self.address
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some((pool, class)) = &self.home {
            pool.give(self.address, *class);
        }
    }
}

/// `len` elements in device memory.
pub struct Buffer {
    memory: Memory,
    len: usize,
    storage: Storage,
}

impl Buffer {
    pub(super) fn new(memory: Memory, len: usize, storage: Storage) -> Buffer {
        Buffer { memory, len, storage }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How they are stored.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// The memory itself.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }
}

/// Memory that nobody uses at the moment, by size. All work is on one stream, so that what is given back may be taken at once: what
/// still reads it was launched before whatever will write it.
pub(super) struct Pool {
    context: Arc<CudaContext>,
    _stream: Arc<CudaStream>,
    free: Mutex<BTreeMap<usize, Vec<u64>>>,
    reuse: bool,
    /// Whether what is given back stays until [`Pool::release`]: graphs use it whenever they run.
    keeps: bool,
    largest: AtomicUsize,
}

impl Pool {
    pub(super) fn new(context: Arc<CudaContext>, stream: Arc<CudaStream>, reuse: bool) -> Arc<Pool> {
        Pool::of(context, stream, reuse, false)
    }

    fn of(context: Arc<CudaContext>, stream: Arc<CudaStream>, reuse: bool, keeps: bool) -> Arc<Pool> {
        let (free, largest) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Pool { context, _stream: stream, free, reuse, keeps, largest })
    }

    /// One beside it, for what graphs use.
    pub(super) fn keeping(&self) -> Arc<Pool> {
        Pool::of(Arc::clone(&self.context), Arc::clone(&self._stream), self.reuse, true)
    }

    /// The most bytes that were asked for at once.
    pub(super) fn largest(&self) -> usize {
        self.largest.load(Ordering::Relaxed)
    }

    pub(super) fn take(pool: &Arc<Pool>, bytes: usize) -> Result<Memory> {
        pool.largest.fetch_max(bytes, Ordering::Relaxed);
        if bytes == 0 {
            return Ok(Memory::lent(0, bytes));
        }
        // Kernels may read the whole of the last 16 bytes.
        let class = if pool.reuse { class(bytes) } else { bytes.next_multiple_of(16) };
        let kept = if pool.reuse { pool.free().get_mut(&class).and_then(Vec::pop) } else { None };
        let address = match kept {
            Some(address) => address,
            None => pool.allocate(class)?,
        };
        Ok(Memory { address, bytes, home: Some((Arc::clone(pool), class)) })
    }

    /// From the driver; if it has no more, after giving back what is not in use.
    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.context.bind_to_thread().map_err(failed("use the GPU"))?;
        // SAFETY: memory is released by this pool alone, once.
        unsafe { result::malloc_sync(bytes) }
            .or_else(|refused| {
                if self.keeps {
                    return Err(refused);
                }
                self.release();
                // SAFETY: as above.
                unsafe { result::malloc_sync(bytes) }
            })
            .map_err(failed("give memory"))
    }

    fn give(&self, address: u64, class: usize) {
        self.free().entry(class).or_default().push(address);
        if !self.reuse && !self.keeps {
            self.release();
        }
    }

    /// Gives all that nobody uses back to the driver, which waits for what still runs.
    pub(super) fn release(&self) {
        for address in std::mem::take(&mut *self.free()).into_values().flatten() {
            // SAFETY: it came from the driver, and nobody has it any more. That the driver may refuse, at the end of the
            // process, harms nobody.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Vec<u64>>> {
        self.free.lock().expect("nothing panics while it holds the list")
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.release();
    }
}

/// The size that a request is rounded up to, so that batches of nearly the same size use the same memory: steps of an eighth.
fn class(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 16).max(512);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn sizes_are_rounded_up_by_an_eighth_at_most() {
        for bytes in [1, 511, 512, 513, 4_000, 100_000, 1 << 20, (1 << 20) + 1, 94_000_000] {
            let class = class(bytes);
            assert!(class >= bytes && class <= bytes + (bytes / 8).max(511), "{bytes}: {class}");
        }
    }
}
