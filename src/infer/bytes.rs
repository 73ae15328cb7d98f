//! The bytes of a file, wherever they lie, and numbers read in place.

use memmap2::Mmap;
use std::ops::Deref;

/// A whole `.limbeck` file.
pub(super) enum Bytes {
    /// Mapped: the operating system reads what is touched.
    Mapped(Mmap),
    /// In the program itself; also no bytes at all, for models that have no file.
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

/// Numbers whose every bit pattern is a value.
pub(super) trait Number: Copy {}
impl Number for i8 {}
impl Number for i32 {}
impl Number for f32 {}

/// Bytes as signed ones, to be written.
pub(super) fn numbers_mut(bytes: &mut [u8]) -> &mut [i8] {
    // SAFETY: every bit pattern is a value of both types, which have one size.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
}

/// Little-endian numbers in place.
///
/// # Panics
/// If the bytes are not aligned to the numbers, or not whole numbers; the loader has checked both.
pub(super) fn numbers<T: Number>(bytes: &[u8]) -> &[T] {
    // SAFETY: every bit pattern is a value of `T`, which is one of the three types above.
    let (before, numbers, after) = unsafe { bytes.align_to() };
    assert!(before.is_empty() && after.is_empty(), "tensors in a file are aligned and whole");
    numbers
}
