//! Writing a `.limbeck` file.
//!
//! The golden logits are those of the very bytes that are written: the data are laid out in memory, opened as a
//! model, run, and written behind a header that holds the answers.

use super::format::{ALIGNMENT, DIGITS, Golden, HEADER_HASH, Metadata, OPENING, PAD, header_hash};
use super::{Model, Session};
use crate::checkpoint::{Dtype, TensorInfo, header_text};
use crate::{Batch, Error, Result, files};
use memmap2::{Mmap, MmapMut};
use serde_json::{Map, json};
use std::io::Write;
use std::path::Path;

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name in the file.
    pub name: String,
    /// Its elements.
    pub dtype: Dtype,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Its content, little-endian.
    pub bytes: Vec<u8>,
}

/// A whole `.limbeck` file in memory.
pub struct Image {
    map: Mmap,
    /// What the file says of itself.
    pub metadata: Metadata,
}

impl Image {
    /// Lays out a file. `metadata.golden` and `metadata.data_hash` are filled in here: the golden texts are
    /// `golden`; their logits are to be filled in.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no memory; what [`Model::open`] and [`Session::logits`] return; `path` is the name
    /// in errors.
    pub fn new(path: &Path, metadata: Metadata, tensors: &[Tensor], golden: &[Golden]) -> Result<Image> {
        let (places, length) = layout(tensors);
        let mut data = map_of(path, length)?;
        for (tensor, &place) in tensors.iter().zip(&places) {
            data[place..place + tensor.bytes.len()].copy_from_slice(&tensor.bytes);
        }
        let data = &data[..length];
        let mut metadata = Metadata { golden: Vec::new(), data_hash: files::sha256(data), ..metadata };
        let model = Model::from_map(path, image(path, &metadata, tensors, &places, data)?)?;
        let mut session = Session::new(&model);
        for golden in golden {
            let logits = session.logits(&Batch::from_texts([golden.text()]))?;
            let logits = logits.iter().map(|logit| logit.to_bits()).collect();
            metadata.golden.push(Golden { logits, ..golden.clone() });
        }
        let map = image(path, &metadata, tensors, &places, data)?;
        Ok(Image { map, metadata })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Writes the file as a whole ([`files::replace`]).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        files::replace(path, |file| file.write_all(self.bytes()).map_err(Error::io("write", path)))
    }

    /// Opens the model without writing it; `path` is its name in errors.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn into_model(self, path: &Path) -> Result<Model> {
        Model::from_map(path, self.map)
    }
}

/// Where each tensor's bytes begin among the data, and how many bytes there are.
fn layout(tensors: &[Tensor]) -> (Vec<usize>, usize) {
    let mut end: usize = 0;
    let places = tensors.iter().map(|tensor| {
        let place = end.next_multiple_of(ALIGNMENT);
        end = place + tensor.bytes.len();
        place
    });
    let places = places.collect();
    (places, end)
}

/// Memory that begins on a page; at least one byte of it, since none cannot be mapped.
fn map_of(path: &Path, length: usize) -> Result<MmapMut> {
    MmapMut::map_anon(length.max(1)).map_err(Error::io("lay out", path))
}

/// Header and data, in memory.
fn image(
    path: &Path,
    metadata: &Metadata,
    tensors: &[Tensor],
    places: &[usize],
    data: &[u8],
) -> Result<Mmap> {
    let header = header(metadata, tensors, places);
    let origin = 8 + header.len();
    let mut map = map_of(path, origin + data.len())?;
    map[..8].copy_from_slice(&(header.len() as u64).to_le_bytes());
    map[8..origin].copy_from_slice(header.as_bytes());
    map[origin..].copy_from_slice(data);
    map.make_read_only().map_err(Error::io("lay out", path))
}

/// The JSON header, padded with spaces so that the data begin aligned, its hash first.
fn header(metadata: &Metadata, tensors: &[Tensor], places: &[usize]) -> String {
    let mut entries = Map::from_iter([(HEADER_HASH.to_owned(), json!("0".repeat(DIGITS)))]);
    entries.extend(metadata.to_entries().into_iter().map(|(key, value)| (key, json!(value))));
    let mut end = 0;
    // What lies between two tensors, under its name, before the second.
    let pads: Vec<(String, [usize; 1])> = (0..)
        .zip(tensors.iter().zip(places))
        .map(|(index, (tensor, &place))| {
            let pad = (format!("{PAD}{index}"), [place - end]);
            end = place + tensor.bytes.len();
            pad
        })
        .collect();
    let listed = tensors.iter().zip(places).zip(&pads).flat_map(|((tensor, &place), (name, shape))| {
        let pad = TensorInfo { name, dtype: Dtype::U8, shape, bytes: place - shape[0]..place };
        let Tensor { name, dtype, shape, bytes } = tensor;
        let tensor = TensorInfo { name, dtype: *dtype, shape, bytes: place..place + bytes.len() };
        (!pad.bytes.is_empty()).then_some(pad).into_iter().chain([tensor])
    });
    let mut header = header_text(entries, listed);
    let hash = header_hash(header.as_bytes()).expect("the hash is the first entry");
    header.replace_range(OPENING.len()..OPENING.len() + DIGITS, &hash);
    header
}
