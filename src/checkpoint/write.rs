//! Writing a safetensors file.

use super::tensor_file::DATA_HASH;
use super::{ALIGNMENT, Dtype};
use crate::{Error, Result, files};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

/// The content of a tensor that is to be written.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Numbers, stored in the type that is asked for.
    F32(&'a [f32]),
    /// Bytes that are stored as they are, little-endian.
    Bytes(Dtype, &'a [u8]),
}

/// A tensor that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct TensorToWrite<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// Its elements.
    pub values: Values<'a>,
}

impl TensorToWrite<'_> {
    fn dtype(&self, dtype: Dtype) -> Dtype {
        match self.values {
            Values::F32(_) => dtype,
            Values::Bytes(dtype, _) => dtype,
        }
    }

    fn size(&self, dtype: Dtype) -> usize {
        match self.values {
            Values::F32(values) => values.len() * dtype.size(),
            Values::Bytes(_, bytes) => bytes.len(),
        }
    }
}

/// Writes a safetensors file as a whole ([`files::replace`]): wide elements first, then by name, so that the
/// same content always makes the same bytes and every tensor is aligned to its elements.
///
/// The metadata get an entry, [`DATA_HASH`], by which [`TensorFile::check`](super::TensorFile::check) finds damage.
///
/// `dtype` (F32, F16 or BF16) is how [`Values::F32`] are stored; halves are rounded to nearest, ties to even.
///
/// # Errors
/// [`Error::Io`]; [`Error::Tensor`] if a value is NaN, infinite, or too large for `dtype`: such a checkpoint
/// could not be read again.
///
/// # Panics
/// If a name occurs twice, a shape does not make its values, or `dtype` is none of the three: our own
/// mistakes.
pub fn write_tensors(
    path: &Path,
    tensors: &[TensorToWrite<'_>],
    dtype: Dtype,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    assert!(matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16), "{dtype} is not for weights");
    let mut tensors: Vec<&TensorToWrite<'_>> = tensors.iter().collect();
    tensors.sort_by_key(|tensor| (std::cmp::Reverse(tensor.dtype(dtype).size()), tensor.name));
    let mut hash = Sha256::new();
    put_data(path, &tensors, dtype, &mut |bytes| {
        hash.update(bytes);
        Ok(())
    })?;
    let hash = (DATA_HASH.to_owned(), files::hexadecimal(&hash.finalize()));
    let header = header(&tensors, dtype, &metadata.clone().into_iter().chain([hash]).collect());
    files::replace(path, |file| {
        let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io("write", path));
        put(&(header.len() as u64).to_le_bytes())?;
        put(header.as_bytes())?;
        put_data(path, &tensors, dtype, &mut put)
    })
}

/// All that follows the header.
fn put_data(
    path: &Path,
    tensors: &[&TensorToWrite<'_>],
    dtype: Dtype,
    put: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for tensor in tensors {
        match tensor.values {
            Values::Bytes(_, bytes) => put(bytes)?,
            Values::F32(values) => put_numbers(path, tensor.name, values, dtype, put)?,
        }
    }
    Ok(())
}

/// The header of tensors that lie end to end.
fn header(tensors: &[&TensorToWrite<'_>], dtype: Dtype, metadata: &BTreeMap<String, String>) -> String {
    let metadata = metadata.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let mut end = 0;
    let listed = tensors.iter().map(|tensor| {
        let (kind, begin) = (tensor.dtype(dtype), end);
        end += tensor.size(kind);
        TensorInfo { name: tensor.name, dtype: kind, shape: tensor.shape, bytes: begin..end }
    });
    header_text(metadata, listed)
}

/// What a header says of a tensor.
pub(crate) struct TensorInfo<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    /// Counted from the end of the header.
    pub bytes: Range<usize>,
}

/// The JSON header of a safetensors file, metadata first, padded with spaces so that what follows begins at a multiple of
/// [`ALIGNMENT`].
///
/// # Panics
/// If a name occurs twice, or a shape does not make its bytes.
pub(crate) fn header_text<'a>(
    metadata: Map<String, Value>,
    tensors: impl Iterator<Item = TensorInfo<'a>>,
) -> String {
    let mut members = Map::new();
    if !metadata.is_empty() {
        members.insert("__metadata__".to_owned(), Value::Object(metadata));
    }
    for TensorInfo { name, dtype, shape, bytes } in tensors {
        let size = shape.iter().product::<usize>() * dtype.size();
        assert_eq!(size, bytes.len(), "the shape of {name} does not make its bytes");
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [bytes.start, bytes.end] });
        let former = members.insert(name.to_owned(), entry);
        assert!(former.is_none(), "{name} is written twice");
    }
    let mut header = Value::Object(members).to_string();
    while !(8 + header.len()).is_multiple_of(ALIGNMENT) {
        header.push(' ');
    }
    header
}

/// Numbers in the type asked for, through a small buffer.
fn put_numbers(
    path: &Path,
    name: &str,
    values: &[f32],
    dtype: Dtype,
    put: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    const CHUNK: usize = 16 * 1024;
    let mut buffer = Vec::with_capacity(CHUNK * 4);
    for (index, chunk) in values.chunks(CHUNK).enumerate() {
        buffer.clear();
        let mut fit = true;
        for &value in chunk {
            match dtype {
                Dtype::F16 => {
                    let half = half::f16::from_f32(value);
                    fit &= half.is_finite();
                    buffer.extend_from_slice(&half.to_le_bytes());
                }
                Dtype::Bf16 => {
                    let half = half::bf16::from_f32(value);
                    fit &= half.is_finite();
                    buffer.extend_from_slice(&half.to_le_bytes());
                }
                _ => {
                    fit &= value.is_finite();
                    buffer.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
        if !fit {
            return Err(misfit(path, name, values, index * CHUNK, dtype));
        }
        put(&buffer)?;
    }
    Ok(())
}

/// Which value did not fit, looked for from `first` on.
fn misfit(path: &Path, name: &str, values: &[f32], first: usize, dtype: Dtype) -> Error {
    let fits = |value: f32| match dtype {
        Dtype::F16 => half::f16::from_f32(value).is_finite(),
        Dtype::Bf16 => half::bf16::from_f32(value).is_finite(),
        _ => value.is_finite(),
    };
    let place = first + values[first..].iter().position(|&value| !fits(value)).unwrap_or(0);
    let value = values[place];
    let (problem, mend) = if value.is_finite() {
        (format!("element {place}, {value}, is too large for {dtype}"), "write F32")
    } else {
        (format!("element {place} is {value}"), "lower the learning rate; nothing was written")
    };
    Error::tensor(path, name, problem, mend)
}
