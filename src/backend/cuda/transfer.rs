//! Between host and device: copies, and casts from one storage to another.

use super::operation::Operation;
use super::{Cuda, Memory, Plain, Storage, failed};
use crate::Result;
use crate::tensor::{Shape, Tensor};
use cudarc::driver::result;
use std::borrow::Cow;
use std::sync::Arc;

impl Cuda {
    /// Copies numbers of any kind to the GPU: they have been read when this returns, and are there for what is launched next.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn upload_all<T: Plain>(&self, data: &[T]) -> Result<Memory> {
        // SAFETY: numbers have no gaps between them (`Plain`), so that all their bytes can be read.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) };
        self.upload_bytes(bytes)
    }

    /// Bytes that do not change, in device memory: uploaded once, for as long as somebody else holds them too.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn constant(&self, bytes: &Arc<[u8]>) -> Result<Arc<Memory>> {
        let mut constants = self.shared.constants.lock().expect("nothing panics while it holds the list");
        constants.retain(|(kept, _)| Arc::strong_count(kept) > 1);
        if let Some((_, memory)) = constants.iter().find(|(kept, _)| Arc::ptr_eq(kept, bytes)) {
            return Ok(Arc::clone(memory));
        }
        // No part of the work that first needs it.
        let memory = Arc::new(self.by_itself().upload_all(bytes)?);
        constants.push((Arc::clone(bytes), Arc::clone(&memory)));
        Ok(memory)
    }

    /// Copies the first `len` numbers of `memory` to the host, and waits for them.
    ///
    /// # Errors
    /// [`crate::Error::Device`]: an operation before has failed.
    pub fn download_all<T: Plain>(&self, memory: &Memory, len: usize) -> Result<Vec<T>> {
        let mut data = vec![T::default(); len];
        assert!(size_of_val(&data[..]) <= memory.bytes(), "a download of what is there");
        self.waits()?;
        if len > 0 {
            self.bind()?;
            // A copy to memory that is not page-locked may wait by itself.
            self.await_ranks()?;
            let stream = self.shared.stream.cu_stream();
            // SAFETY: `data` is as long as what is copied, and lives until the stream has been waited for.
            unsafe { result::memcpy_dtoh_async(&mut data, memory.address(), stream) }
                .map_err(failed("copy from the GPU"))?;
            self.synchronize()?;
        }
        Ok(data)
    }

    /// Waits for all that has been launched.
    ///
    /// # Errors
    /// [`crate::Error::Device`]: something that was launched has failed. [`crate::Error::Ranks`]: a rank whose GPU this one's waits for
    /// has gone.
    pub fn synchronize(&self) -> Result<()> {
        self.waits()?;
        self.await_ranks()?;
        self.shared.stream.synchronize().map_err(failed("run what was launched before"))
    }

    /// Fills memory with zeros.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn clear(&self, memory: &mut Memory) -> Result<()> {
        if memory.bytes() == 0 {
            return Ok(());
        }
        let (address, bytes) = (memory.address(), memory.bytes());
        if self.compares(|record| record.clears([address, bytes as u64]))? {
            return Ok(());
        }
        self.clear_at(address, bytes)?;
        self.write(|| Operation::Clear { address, bytes });
        Ok(())
    }

    /// Clears memory that is known to be there.
    pub(super) fn clear_at(&self, address: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        let stream = self.shared.stream.cu_stream();
        // SAFETY: the memory is ours, and of that size.
        unsafe { result::memset_d8_async(address, 0, bytes, stream) }.map_err(failed("clear memory"))
    }

    /// Activations of zeros.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn zero_activations(&self, shape: Shape) -> Result<Tensor<Cuda>> {
        let mut zeros = self.buffer(shape.len(), self.storage)?;
        self.clear(zeros.memory_mut())?;
        Ok(Tensor::from_buffer(zeros, shape))
    }

    /// `x`, or a copy of it in `storage`.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn stored<'a>(&self, x: &'a Tensor<Cuda>, storage: Storage) -> Result<Cow<'a, Tensor<Cuda>>> {
        if x.buffer().storage() == storage {
            return Ok(Cow::Borrowed(x));
        }
        let y = self.tensor(x.shape(), storage)?;
        let kernel = match x.buffer().storage() {
            Storage::F32 => "cast_from_float",
            _ if storage == Storage::F32 => "cast_to_float",
            _ => unreachable!("activations have one storage, everything else is f32"),
        };
        let of = if storage == Storage::F32 { x.buffer().storage() } else { storage };
        self.elementwise(of, kernel, x.shape().len(), &[x.buffer(), y.buffer()])?;
        Ok(Cow::Owned(y))
    }

    /// `x` as activations are stored.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn activation<'a>(&self, x: &'a Tensor<Cuda>) -> Result<Cow<'a, Tensor<Cuda>>> {
        self.stored(x, self.storage)
    }
}
