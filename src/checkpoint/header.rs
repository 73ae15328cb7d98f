//! The header of a safetensors file: which tensors it holds and where.
//!
//! ```text
//! 8 bytes      N, little-endian
//! N bytes      JSON: {"__metadata__": {text: text},
//!                     name: {"dtype", "shape", "data_offsets": [begin, end]}, …}
//! the rest     the tensors' bytes, little-endian, without gaps
//! ```
//!
//! A file comes from anywhere, so nothing in it is believed: lengths are compared with the file before
//! anything is allocated, and the tensors must cover the data exactly. Parsed here rather than by the
//! safetensors crate, because the errors should name the tensor, duplicate names should be seen, and the
//! inference build should need no more than the JSON reader it has anyway.

use crate::json::Json;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// The limit that the format sets for its header, 100 MB.
const MAX_HEADER: u64 = 100_000_000;

/// What an element of a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "train", derive(serde::Serialize), serde(rename_all = "UPPERCASE"))]
pub enum Dtype {
    /// 64-bit floats.
    F64,
    /// 32-bit floats.
    F32,
    /// 16-bit floats, IEEE 754.
    F16,
    /// The upper halves of 32-bit floats.
    Bf16,
    /// 64-bit signed integers.
    I64,
    /// 32-bit signed integers.
    I32,
    /// 16-bit signed integers.
    I16,
    /// 8-bit signed integers.
    I8,
    /// 64-bit unsigned integers.
    U64,
    /// 32-bit unsigned integers.
    U32,
    /// 16-bit unsigned integers.
    U16,
    /// 8-bit unsigned integers.
    U8,
    /// Truth values, a byte each.
    Bool,
}

impl Dtype {
    const ALL: [Dtype; 13] = [
        Dtype::F64,
        Dtype::F32,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U64,
        Dtype::U32,
        Dtype::U16,
        Dtype::U8,
        Dtype::Bool,
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_ascii_uppercase())
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Where its bytes lie, counted from the beginning of the file.
    pub bytes: Range<usize>,
}

/// Where the tensors of a file that is written here begin is a multiple of this, so that a mapped file can be read in place, a
/// cache line at a time.
pub(crate) const ALIGNMENT: usize = 64;

const MEND: &str = "fetch or write the file again";

/// All tensors of a file, by name, and its metadata.
pub(crate) struct Header {
    pub tensors: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
    /// Where the tensors' bytes begin in the file.
    pub origin: usize,
}

struct RawEntry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl RawEntry {
    fn read(value: &Json<'_>) -> std::result::Result<RawEntry, String> {
        let Json::Object(members) = value else { return Err(format!("{value} is no tensor")) };
        let member = |name: &str| {
            let mut found = members.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
            let value = found.next().ok_or_else(|| format!("\"{name}\" is missing"))?;
            found.next().map_or(Ok(value), |_| Err(format!("\"{name}\" is there twice")))
        };
        let dtype = member("dtype")?;
        let known = |known: &Dtype| dtype.text().is_some_and(|name| name == known.to_string());
        let sizes = |name: &str| {
            let sizes = member(name)?.list(Json::size);
            sizes.ok_or_else(|| format!("\"{name}\" is no list of sizes"))
        };
        Ok(RawEntry {
            dtype: Dtype::ALL
                .into_iter()
                .find(known)
                .ok_or_else(|| format!("the type {dtype} is unknown"))?,
            shape: sizes("shape")?,
            data_offsets: sizes("data_offsets")?
                .try_into()
                .map_err(|_| "\"data_offsets\" are not two".to_owned())?,
        })
    }
}

/// The entries of `"__metadata__"`.
fn texts(value: &Json<'_>) -> Option<BTreeMap<String, String>> {
    let Json::Object(members) = value else { return None };
    members.iter().map(|(name, value)| Some((name.to_string(), value.text()?.to_owned()))).collect()
}

/// Reads and checks the header of `file`, the content of `path`.
pub(crate) fn parse(path: &Path, file: &[u8]) -> Result<Header> {
    let damaged = |problem: String| Error::file(path, problem, MEND);
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(damaged(format!("{} bytes are too few for a safetensors file", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > rest.len() as u64 {
        return Err(damaged(format!(
            "the header should have {length} bytes, the file has {} after its first 8 \
             (not a safetensors file, or cut short)",
            rest.len()
        )));
    }
    let (json, data) = rest.split_at(length as usize);
    let wrong = |problem: String| damaged(format!("the header is not as it must be: {problem}"));
    let json = std::str::from_utf8(json).map_err(|error| wrong(error.to_string()))?;
    let Json::Object(members) = Json::parse(json).map_err(wrong)? else {
        return Err(wrong("it is no object of tensors".to_owned()));
    };
    let origin = file.len() - data.len();
    let (mut tensors, mut metadata) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in members {
        if name == "__metadata__" {
            metadata = texts(&value).ok_or_else(|| wrong("its metadata are no texts".to_owned()))?;
            continue;
        }
        let entry = RawEntry::read(&value).map_err(|problem| wrong(format!("{problem} (tensor {name})")))?;
        let checked = check(path, &name, &entry, origin, data.len())?;
        if tensors.insert(name.to_string(), checked).is_some() {
            return Err(Error::tensor(path, &name, "the name occurs twice in the header", MEND));
        }
    }
    check_cover(path, &tensors, origin, file.len())?;
    Ok(Header { tensors, metadata, origin })
}

/// The shape must explain the length, and the bytes must lie in the file.
fn check(path: &Path, name: &str, entry: &RawEntry, origin: usize, data: usize) -> Result<Entry> {
    let [begin, end] = entry.data_offsets;
    if begin > end || end > data {
        let problem =
            format!("its bytes {begin}..{end} lie outside of the file's {data} bytes of data (cut short?)");
        return Err(Error::tensor(path, name, problem, MEND));
    }
    let size = entry.shape.iter().try_fold(entry.dtype.size(), |size, &extent| size.checked_mul(extent));
    if size != Some(end - begin) {
        let problem = format!(
            "shape {:?} of {} does not make the {} bytes it has",
            entry.shape,
            entry.dtype,
            end - begin
        );
        return Err(Error::tensor(path, name, problem, MEND));
    }
    Ok(Entry { dtype: entry.dtype, shape: entry.shape.clone(), bytes: origin + begin..origin + end })
}

/// Tensors may not overlap, and no byte may belong to none: both are signs of damage.
fn check_cover(path: &Path, tensors: &BTreeMap<String, Entry>, origin: usize, end: usize) -> Result<()> {
    let mut by_place: Vec<(&String, &Entry)> = tensors.iter().collect();
    by_place.sort_by_key(|(_, entry)| (entry.bytes.start, entry.bytes.end));
    let mut place = origin;
    for (name, entry) in by_place {
        if entry.bytes.start < place {
            let problem = format!("it begins {} bytes inside of another tensor", place - entry.bytes.start);
            return Err(Error::tensor(path, name, problem, MEND));
        }
        if entry.bytes.start > place {
            let problem = format!("{} bytes before it belong to no tensor", entry.bytes.start - place);
            return Err(Error::tensor(path, name, problem, MEND));
        }
        place = entry.bytes.end;
    }
    if place != end {
        return Err(Error::file(path, format!("the last {} bytes belong to no tensor", end - place), MEND));
    }
    Ok(())
}
