//! A safetensors file, mapped: tensors are read in place or widened to f32.

use super::half_precision::{bf16_to_f32, f16_to_f32};
use super::header::{self, Dtype, Entry, Header};
use crate::{Error, Result, files};
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The entry of the metadata with the SHA-256, in hexadecimal, of all bytes behind the header.
pub const DATA_HASH: &str = "limbeck.data_sha256";

/// A safetensors file that is open for reading.
///
/// All of its header has been checked: names are unique, shapes and lengths agree, no tensor lies outside of
/// the file or over another.
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl TensorFile {
    /// Maps the file and checks its header. The tensors' bytes are not touched yet.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] or [`Error::Tensor`] if it is no safetensors file, is cut short or
    /// damaged, or uses an element type that is not among [`Dtype`].
    pub fn open(path: &Path) -> Result<TensorFile> {
        let map = files::map(path)?;
        let header = header::parse(path, &map)?;
        Ok(TensorFile { path: path.to_owned(), map, header })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// The text that the writer added: its `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Compares the tensors with the hash that [`write_tensors`](super::write_tensors) put into the header; a file of somebody else's
    /// has none, and passes. Reads the whole file.
    ///
    /// # Errors
    /// [`Error::File`] if they differ.
    pub fn check(&self) -> Result<()> {
        let Some(expected) = self.header.metadata.get(DATA_HASH) else { return Ok(()) };
        if files::sha256(&self.map[self.header.origin..]) == *expected {
            return Ok(());
        }
        let problem = "its tensors are not those that were written: their hash differs";
        Err(Error::file(&self.path, problem, "make or fetch it again"))
    }

    /// Extents of a tensor, outermost first; `None` if the file has no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Element type of a tensor; `None` if the file has no such tensor.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.header.tensors.get(name).map(|entry| entry.dtype)
    }

    /// A tensor's bytes as they lie in the file, little-endian.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the file has no such tensor.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        Ok(&self.map[self.entry(name)?.bytes.clone()])
    }

    /// Reads a tensor of F32, F16 or BF16 into `values`, whose former content is replaced.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is no such tensor, if it is of another type, or if a value is NaN or
    /// infinite.
    pub fn read_f32(&self, name: &str, values: &mut Vec<f32>) -> Result<()> {
        let entry = self.entry(name)?;
        let bytes = &self.map[entry.bytes.clone()];
        values.clear();
        match entry.dtype {
            Dtype::F32 => values.extend(bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word))),
            Dtype::F16 => {
                values.extend(bytes.as_chunks().0.iter().map(|&half| f16_to_f32(u16::from_le_bytes(half))))
            }
            Dtype::Bf16 => {
                values.extend(bytes.as_chunks().0.iter().map(|&half| bf16_to_f32(u16::from_le_bytes(half))))
            }
            other => {
                let mend = "convert the checkpoint to F32, F16 or BF16";
                return Err(Error::tensor(&self.path, name, format!("its elements are {other}"), mend));
            }
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(place) => {
                let problem = format!("element {place} is {}", values[place]);
                let mend =
                    "the training that wrote it diverged, or the file is damaged: take an earlier checkpoint";
                Err(Error::tensor(&self.path, name, problem, mend))
            }
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.header.tensors.get(name).ok_or_else(|| {
            let problem = format!("the file has no such tensor; it has {}", self.header.tensors.len());
            Error::tensor(&self.path, name, problem, "check that config.json belongs to this file")
        })
    }
}
