//! From bytes to weights: nothing in a file is believed before it has been compared with the configuration.

use super::bytes::{Bytes, numbers, numbers_mut};
use super::format::{self, ALIGNMENT, MAX_INPUTS, MEND, Metadata, PAD, VOCABULARY};
use super::weights::{Blocks, Floats, Unpacked, Value, Weights};
use crate::checkpoint::{Dtype, Entry, Header, parse_header};
use crate::models::Classifier;
use crate::nn::{ParamSpec, Role};
use crate::quantized::{groups_of, nibbles_of, unpack_row};
use crate::tokenizer::WordPiece;
use crate::{Error, Result};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{
    BLOCK_SHAPE, BlocksI8, Matrix, PackedMatrix, Precision, blocks_i8_parts, pack_i8, packed_i8_len,
    packed_i8_sums,
};
use memmap2::MmapMut;
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
        check_golden(path, &golden.ids, &metadata.config)?;
    }
    Ok(Loaded { metadata, classifier, weights: Weights { bytes, specs, values }, vocabulary })
}

fn check_golden(path: &Path, ids: &[u32], config: &crate::models::ModelConfig) -> Result<()> {
    let fits = (1..=config.positions).contains(&ids.len());
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
            Some(place) => Err(self.wrong(name, format!("element {place} is {}", values[place]))),
        }
    }

    fn value(&mut self, spec: &ParamSpec, kernels: Kernels) -> Result<Value> {
        let stored = self.header.tensors.get(&spec.name).map(|entry| entry.dtype);
        let (int8, int4) = (stored == Some(Dtype::I8), stored == Some(Dtype::U8));
        match spec.role {
            Role::Bias | Role::Gamma | Role::Beta => {
                Ok(Value::Vector(Floats::Mapped(self.take_finite(&spec.name, &spec.dims())?)))
            }
            Role::Embedding if int8 => Ok(Value::TableI8 {
                rows: self.take(&spec.name, Dtype::I8, &spec.dims())?,
                scale: self.take_finite(&format::scale_name(&spec.name), &[spec.rows])?,
            }),
            Role::Embedding if int4 => {
                let [nibbles, multipliers, scale] = self.take_int4(spec)?;
                Ok(Value::TableI4 { nibbles, multipliers, scale })
            }
            // Read in place, row by row, when a text asks for it: not looked at here.
            Role::Embedding => {
                Ok(Value::Table(Floats::Mapped(self.take(&spec.name, Dtype::F32, &spec.dims())?)))
            }
            Role::Weight if int8 => self.int8_matrix(spec),
            Role::Weight if int4 => self.int4_matrix(spec),
            Role::Weight => {
                let range = self.take_finite(&spec.name, &spec.dims())?;
                Ok(pack(kernels, spec, numbers(&self.bytes[range])))
            }
        }
    }

    /// Products read floats or bytes: either all matrices are f32, or none is.
    fn check_one_kind(&self, specs: &[ParamSpec], values: &[Value]) -> Result<()> {
        let of_weights = || specs.iter().zip(values).filter(|(spec, _)| spec.role == Role::Weight);
        let f32s = of_weights().filter(|(_, value)| matches!(value, Value::Matrix { .. })).count();
        match of_weights().find(|(_, value)| matches!(value, Value::Matrix { .. })) {
            Some((spec, _)) if f32s < of_weights().count() => {
                Err(self.wrong(&spec.name, "it is F32, and other matrices are not"))
            }
            _ => Ok(()),
        }
    }

    /// Weights, multipliers and scales.
    fn take_int4(&mut self, spec: &ParamSpec) -> Result<[Range<usize>; 3]> {
        let ParamSpec { name, rows, cols, .. } = spec;
        let nibbles = self.take(name, Dtype::U8, &[*rows, nibbles_of(*cols)])?;
        let multipliers =
            self.take(&format::multipliers_name(name), Dtype::U8, &[*rows, groups_of(*cols)])?;
        Ok([nibbles, multipliers, self.take_finite(&format::scale_name(name), &[*rows])?])
    }

    /// Unpacks a matrix into memory.
    fn int4_matrix(&mut self, spec: &ParamSpec) -> Result<Value> {
        self.check_inputs(spec)?;
        let (rows, cols) = (spec.rows, spec.cols);
        let [nibbles, multipliers, scale] = self.take_int4(spec)?;
        let stored = nibbles.len() + multipliers.len();
        let (nibbles, multipliers) = (&self.bytes[nibbles], &self.bytes[multipliers]);
        let mut weights = vec![0; rows * cols];
        for (row, weights) in weights.chunks_mut(cols.max(1)).enumerate() {
            let nibbles = &nibbles[row * nibbles_of(cols)..];
            unpack_row(nibbles, &multipliers[row * groups_of(cols)..], weights);
        }
        // A map begins on a page, as products like it.
        let length = packed_i8_len(rows, cols);
        let no_memory = || Error::io("unpack", self.path);
        let mut panels = MmapMut::map_anon(length.max(1)).map_err(no_memory())?;
        pack_i8(&weights, rows, cols, numbers_mut(&mut panels[..length]));
        let panels = panels.make_read_only().map_err(no_memory())?;
        let mut sums = vec![0; rows.next_multiple_of(16)];
        packed_i8_sums(numbers(&panels[..length]), rows, cols, &mut sums);
        Ok(Value::MatrixI4 { unpacked: Unpacked { panels, sums, stored }, scale })
    }

    fn check_inputs(&self, spec: &ParamSpec) -> Result<()> {
        let cols = spec.cols;
        match cols <= MAX_INPUTS {
            true => Ok(()),
            false => {
                Err(self.wrong(&spec.name, format!("{cols} inputs; int8 sums hold {MAX_INPUTS} at most")))
            }
        }
    }

    fn int8_matrix(&mut self, spec: &ParamSpec) -> Result<Value> {
        let ParamSpec { name, rows, cols, .. } = spec;
        self.check_inputs(spec)?;
        let words = format::words_name(name);
        if self.header.tensors.contains_key(&words) {
            return self.blocks(spec, &words);
        }
        let panels = self.take(name, Dtype::I8, &format::panels_shape(*rows, *cols))?;
        let (scale, sums) = self.scale_and_sums(spec)?;
        Ok(Value::MatrixI8 { panels, scale, sums })
    }

    fn scale_and_sums(&mut self, spec: &ParamSpec) -> Result<(Range<usize>, Range<usize>)> {
        let ParamSpec { name, rows, cols, .. } = spec;
        let scale = self.take_finite(&format::scale_name(name), &[*rows])?;
        let sums_name = format::sums_name(name);
        let sums = self.take(&sums_name, Dtype::I32, &[rows.next_multiple_of(16)])?;
        // A sum beyond what its weights can make would overflow; comparing them would read the whole file.
        let limit = 127 * *cols as u32;
        if numbers::<i32>(&self.bytes[sums.clone()]).iter().any(|sum| sum.unsigned_abs() > limit) {
            return Err(self.wrong(&sums_name, format!("a sum is larger than that of {cols} weights can be")));
        }
        Ok((scale, sums))
    }

    /// A block-sparse matrix. Its lists are compared with its shape; they are a sixty-fourth of its bytes.
    fn blocks(&mut self, spec: &ParamSpec, words_name: &str) -> Result<Value> {
        let ParamSpec { name, rows, cols, .. } = spec;
        let count = self.header.tensors[words_name].bytes.len();
        let lists = rows.div_ceil(BLOCK_SHAPE[0]) * blocks_i8_parts(*cols);
        let blocks = Blocks {
            bytes: self.take(name, Dtype::I8, &[count, BLOCK_SHAPE[0], BLOCK_SHAPE[1]])?,
            words: self.take(words_name, Dtype::U8, &[count])?,
            starts: self.take(&format::starts_name(name), Dtype::I32, &[lists + 1])?,
        };
        let (scale, sums) = self.scale_and_sums(spec)?;
        let bytes = |range: &Range<usize>| &self.bytes[range.clone()];
        let (words, starts) = (bytes(&blocks.words), numbers(bytes(&blocks.starts)));
        let lists = BlocksI8::new(
            numbers(bytes(&blocks.bytes)),
            words,
            starts,
            numbers(bytes(&sums)),
            [*rows, *cols],
        );
        if let Some(problem) = lists.problem() {
            return Err(self.wrong(name, problem));
        }
        Ok(Value::BlocksI8 { blocks, scale, sums })
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
pub(super) fn pack(kernels: Kernels, spec: &ParamSpec, values: &[f32]) -> Value {
    let mut packed = PackedMatrix::new(Precision::F32, spec.cols, spec.rows);
    let weights = Matrix::new(values, spec.rows, spec.cols);
    kernels.pack(weights.transpose(), &mut packed.panels_mut());
    let zeros = values.iter().filter(|value| **value == 0.0).count();
    Value::Matrix { packed, zeros }
}
