//! From bytes to weights: nothing in a file is believed before it has been compared with the configuration.

mod few_bits;

use super::bytes::{Bytes, numbers};
use super::format::{self, ALIGNMENT, MEND, Metadata, PAD, VOCABULARY};
use super::weights::{Floats, Value, Weights};
use crate::checkpoint::{Dtype, Entry, Header, parse_header};
use crate::error::not_finite;
use crate::models::Classifier;
use crate::nn::{ParamSpec, Role};
use crate::tokenizer::WordPiece;
use crate::{Error, Result, Text};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{Matrix, PackedMatrix, Precision};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

/// A file that has been checked.
pub(super) struct Loaded {
    pub metadata: Metadata,
    pub classifier: Classifier,
    pub weights: Weights,
    pub vocabulary: Option<Range<usize>>,
}

/// Checks a whole `.limbeck` file, `path` by name.
pub(super) fn load(path: &Path, bytes: Bytes, kernels: Kernels) -> Result<Loaded> {
    if cfg!(target_endian = "big") {
        return Err(Error::file(
            path,
            "its numbers are little-endian, this CPU's are not",
            "use another CPU",
        ));
    }
    if !bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
        let problem = format!("it does not begin at a multiple of {ALIGNMENT} in memory");
        return Err(Error::file(path, problem, "embed it with limbeck::include_model!"));
    }
    let hashed = format::check_header(path, format::split(&bytes).0)?;
    let header = parse_header(path, &bytes)?;
    let metadata = Metadata::from_entries(path, &header.metadata)?;
    if !hashed {
        return Err(Error::file(path, "its header does not begin as it must", MEND));
    }
    let (classifier, specs) = Classifier::new(&metadata.config);
    if metadata.config.labels.is_empty() {
        return Err(Error::file(path, "the configuration names no classes", MEND));
    }
    let mut file = File { path, bytes: &bytes, header, taken: BTreeSet::new() };
    file.check_alignment()?;
    let values = specs.iter().map(|spec| file.value(spec, kernels)).collect::<Result<Vec<_>>>()?;
    file.check_one_kind(&specs, &values)?;
    let vocabulary = file.vocabulary(metadata.config.vocab)?;
    file.check_all_taken()?;
    for golden in &metadata.golden {
        check_golden(path, golden.text(), &metadata.config)?;
    }
    let zeros = vec![0.0; metadata.config.hidden];
    Ok(Loaded { metadata, classifier, weights: Weights { bytes, specs, values, zeros }, vocabulary })
}

fn check_golden(
    path: &Path,
    Text { ids, first }: Text<'_>,
    config: &crate::models::ModelConfig,
) -> Result<()> {
    let fits = (1..=config.positions).contains(&ids.len()) && (1..=ids.len()).contains(&first);
    if fits && ids.iter().all(|&id| (id as usize) < config.vocab) {
        return Ok(());
    }
    Err(Error::file(path, "metadata \"golden\": a text that the model cannot read", MEND))
}

struct File<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    header: Header,
    /// Tensors that the network or its tokenizer uses.
    taken: BTreeSet<String>,
}

impl File<'_> {
    fn wrong(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::tensor(self.path, name, problem, MEND)
    }

    fn check_alignment(&self) -> Result<()> {
        let crooked = self.header.tensors.iter().find(|(name, entry)| {
            !name.starts_with(PAD) && !entry.bytes.is_empty() && !entry.bytes.start.is_multiple_of(ALIGNMENT)
        });
        crooked.map_or(Ok(()), |(name, entry)| {
            let problem = format!("it begins at byte {}, no multiple of {ALIGNMENT}", entry.bytes.start);
            Err(self.wrong(name, problem))
        })
    }

    /// The bytes of a tensor that must be of this type and shape.
    fn take(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Range<usize>> {
        let Some(entry) = self.header.tensors.get(name) else {
            return Err(self.wrong(name, "the file has no such tensor"));
        };
        if entry.dtype != dtype || entry.shape != shape {
            let Entry { dtype: found, shape: extents, .. } = entry;
            let problem = format!("it is {found} {extents:?}, the configuration asks for {dtype} {shape:?}");
            return Err(self.wrong(name, problem));
        }
        self.taken.insert(name.to_owned());
        Ok(entry.bytes.clone())
    }

    /// As [`File::take`], for f32 of which none may be NaN or infinite.
    fn take_finite(&mut self, name: &str, shape: &[usize]) -> Result<Range<usize>> {
        let range = self.take(name, Dtype::F32, shape)?;
        let values = numbers::<f32>(&self.bytes[range.clone()]);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(range),
            Some(place) => Err(self.wrong(name, format!("element {place} is {}", not_finite(values[place])))),
        }
    }

    fn value(&mut self, spec: &ParamSpec, kernels: Kernels) -> Result<Value> {
        let stored = self.header.tensors.get(&spec.name).map(|entry| entry.dtype);
        match (spec.role, stored) {
            (Role::Bias | Role::Gamma | Role::Beta, _) => {
                Ok(Value::Vector(Floats::Mapped(self.take_finite(&spec.name, &spec.dims())?)))
            }
            (Role::Embedding, Some(Dtype::I8)) => Ok(Value::TableI8 {
                rows: self.take(&spec.name, Dtype::I8, &spec.dims())?,
                scale: self.take_finite(&format::scale_name(&spec.name), &[spec.rows])?,
            }),
            (Role::Embedding, Some(Dtype::U8)) => {
                let [nibbles, multipliers, scale] = self.take_int4(spec)?;
                Ok(Value::TableI4 { nibbles, multipliers, scale })
            }
            (Role::Embedding, Some(half @ (Dtype::F16 | Dtype::Bf16))) => {
                Ok(Value::Table(Floats::Widened(self.take_half(spec, half)?)))
            }
            // Read in place, row by row, when a text asks for it: not looked at here.
            (Role::Embedding, _) => {
                Ok(Value::Table(Floats::Mapped(self.take(&spec.name, Dtype::F32, &spec.dims())?)))
            }
            (Role::Weight, Some(Dtype::I8)) => self.int8_matrix(spec),
            (Role::Weight, Some(Dtype::U8)) => self.int4_matrix(spec),
            (Role::Weight, Some(half @ (Dtype::F16 | Dtype::Bf16))) => {
                Ok(pack(kernels, spec, &self.take_half(spec, half)?, 2))
            }
            (Role::Weight, _) => {
                let range = self.take_finite(&spec.name, &spec.dims())?;
                Ok(pack(kernels, spec, numbers(&self.bytes[range]), 4))
            }
        }
    }

    /// Products read floats or bytes: either all matrices are floats, or none is.
    fn check_one_kind(&self, specs: &[ParamSpec], values: &[Value]) -> Result<()> {
        let matrices = specs.iter().zip(values).filter(|(spec, _)| spec.role == Role::Weight);
        let (floats, bytes): (Vec<_>, Vec<_>) =
            matrices.partition(|(_, value)| matches!(value, Value::Matrix { .. }));
        match (floats.first(), bytes.is_empty()) {
            (Some((spec, _)), false) => {
                Err(self.wrong(&spec.name, "it is in floats, and other matrices are not"))
            }
            _ => Ok(()),
        }
    }

    fn vocabulary(&mut self, vocab: usize) -> Result<Option<Range<usize>>> {
        let Some(entry) = self.header.tensors.get(VOCABULARY) else { return Ok(None) };
        let length = entry.bytes.len();
        let range = self.take(VOCABULARY, Dtype::U8, &[length])?;
        let tokenizer = WordPiece::from_bytes(&self.bytes[range.clone()])
            .map_err(|problem| self.wrong(VOCABULARY, problem))?;
        if tokenizer.vocab() > vocab {
            let problem = format!("it has {} pieces, the model {vocab}", tokenizer.vocab());
            return Err(self.wrong(VOCABULARY, problem));
        }
        Ok(Some(range))
    }

    /// A tensor that nothing reads means that file and configuration do not belong together.
    fn check_all_taken(&self) -> Result<()> {
        let stray =
            self.header.tensors.keys().find(|name| !name.starts_with(PAD) && !self.taken.contains(*name));
        stray.map_or(Ok(()), |name| {
            let owner = name.rsplit_once('.').map_or("", |(owner, _)| owner);
            let problem = if self.taken.contains(owner) {
                format!("{owner} is not in int8, and has no such part")
            } else {
                "the configuration has no such parameter".to_owned()
            };
            Err(self.wrong(name, problem))
        })
    }
}

/// A matrix in f32, in the order of the inner loop.
///
/// `width`: bytes that an element takes in the file.
pub(super) fn pack(kernels: Kernels, spec: &ParamSpec, values: &[f32], width: usize) -> Value {
    let mut packed = PackedMatrix::new(Precision::F32, spec.cols, spec.rows);
    let weights = Matrix::new(values, spec.rows, spec.cols);
    kernels.pack(weights.transpose(), &mut packed.panels_mut());
    let zeros = values.iter().filter(|value| **value == 0.0).count();
    Value::Matrix { packed, zeros, width }
}
