//! What a `.limbeck` file holds, version 8.
//!
//! It is a safetensors file, so any safetensors reader opens it. Beyond what safetensors asks for, it always begins
//! with the same prelude:
//!
//! ```text
//! 8 bytes     the header's length, little-endian
//! 34 bytes    {"__metadata__":{"header_sha256":"
//! 64 bytes    SHA-256, in hexadecimal, of the length and the whole header, these 64 bytes left out
//! ```
//!
//! Behind it the header goes on, padded with spaces; the data begin at a multiple of 64 bytes, and so does every
//! tensor; between two tensors there may be one named `pad.N`.
//!
//! | tensor | type and shape | content |
//! |---|---|---|
//! | a matrix `[n, k]` in int8 | I8 `[⌈n/16⌉, ⌈k/4⌉, 16, 4]` | output `16·i + l`, input `4·j + b` at `[i, j, l, b]`; zeros beyond n and k |
//! | … `.scale` | F32 `[n]` | an output's weights are its bytes times this |
//! | … block-sparse | I8 `[blocks, 16, 4]` | the blocks that are not all zeros, panel by panel ([`BlocksI8`](limbeck_kernels::gemm::BlocksI8)) |
//! | … `.words` | U8 `[blocks]` | which of the words of its part of a panel a block is |
//! | … `.starts` | I32 `[panels·parts + 1]` | where the blocks of each part of each panel begin |
//! | … `.sums` | I32 `[16·⌈n/16⌉]` | the sum of each output's bytes, which takes the bias of unsigned activations off again |
//! | a matrix in floats | F32, F16 or BF16 `[n, k]` | as in a Hugging Face checkpoint |
//! | a matrix or table `[n, k]` in int4 | U8 `[n, 16·⌈k/32⌉]` | row by row, two weights a byte: [`unpack_row`](crate::formats::unpack_row) |
//! | … block-sparse | U8 `[blocks, 32]`, `.words` and `.starts` as in int8 | two weights a byte: [`unpack_block`](crate::formats::unpack_block) |
//! | … `.multipliers` | U8 `[n, ⌈k/32⌉]` | of each group of 32 weights of a row: times it, they are int8 weights |
//! | … `.scale` | F32 `[n]` | an output's, or a row's, int8 weights are to be multiplied by this |
//! | an embedding table in int8, `.scale` | I8 `[entries, hidden]`, F32 `[entries]` | a row is its bytes times its scale |
//! | an embedding table in floats | F32, F16 or BF16 `[entries, hidden]` | |
//! | biases, gamma, beta | F32 `[n]` | |
//! | [`VOCABULARY`] | U8 | the tokenizer: [`WordPiece::from_bytes`](crate::tokenizer::WordPiece::from_bytes) |
//!
//! Names are those of Hugging Face. Deleted heads and units are not there; `config` says which are left. A factored matrix
//! `[n, k]` of rank r is two, `….down.weight` `[r, k]` and `….weight` `[n, r]`; parameters that layers share are there once, under
//! the name of the first of these layers.
//! The metadata are [`Metadata`], one string an entry, JSON where there is structure.
//!
//! # What is checked, and when
//!
//! - When a file is opened: every bit of prelude and header, by the hash, and so the classes, the configuration and
//!   where everything lies; every tensor's type, shape and place against the configuration; that biases, norms,
//!   scales and matrices in floats are finite, that the sums can be sums, and that the vocabulary is one.
//! - By [`Model::check_golden`](super::Model::check_golden) (`limbeck inspect --check`): every bit of the data, against
//!   the hash in the header, and the logits of the golden texts. That reads the whole file; opening one for
//!   a prediction maps the weights and does not read them.
//!
//! The hashes find damage, not malice: whoever changes a file can hash it again. That such a file does no harm is the
//! loader's work, which believes nothing that it has not compared.

#[cfg(feature = "train")]
use crate::checkpoint::config_to_json;
use crate::checkpoint::parse_config;
use crate::files::hexadecimal;
use crate::json::Json;
use crate::models::ModelConfig;
use crate::{Error, Result, Text};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The version written and read. Version 1 had no hash of its header; version 2 no blocks, and its golden logits are
/// those of attention in f32; version 4 no int4 and no 16-bit floats; version 5 neither factored matrices nor shared or decoupled
/// layers, and no pairs among the golden texts; version 6 no blocks in int4; version 7's golden logits are those of attention with
/// other exponentials.
pub const VERSION: u32 = 8;

/// The entry of the metadata that holds the header's hash. It is the first one.
pub const HEADER_HASH: &str = "header_sha256";

/// How every header begins; the 64 digits of its hash follow.
pub(super) const OPENING: &[u8] = br#"{"__metadata__":{"header_sha256":""#;

/// Digits of a SHA-256 in hexadecimal.
pub(super) const DIGITS: usize = 64;

pub(super) const MEND: &str = "fetch the file again, or quantize the model again";

/// Every tensor begins at a multiple of this, counted from the beginning of the file: a line of cache.
pub const ALIGNMENT: usize = crate::checkpoint::ALIGNMENT;

/// The name of the packed vocabulary.
pub const VOCABULARY: &str = "tokenizer.wordpiece";

/// How the names of tensors that only align the next one begin.
pub const PAD: &str = "pad.";

/// The widest product: 32-bit sums are exact while `128·127·k < 2³¹` (`gemm/int8.rs` of the kernels says why), of
/// which this is the largest power of two.
pub const MAX_INPUTS: usize = 1 << 17;

/// The name of the scales that belong to a tensor.
pub fn scale_name(name: &str) -> String {
    format!("{name}.scale")
}

/// The name of the sums that belong to a matrix.
pub fn sums_name(name: &str) -> String {
    format!("{name}.sums")
}

/// The name of the multipliers that belong to a tensor in int4.
pub fn multipliers_name(name: &str) -> String {
    format!("{name}.multipliers")
}

/// The name of the words of a block-sparse matrix.
pub fn words_name(name: &str) -> String {
    format!("{name}.words")
}

/// The name of the starts of a block-sparse matrix.
pub fn starts_name(name: &str) -> String {
    format!("{name}.starts")
}

/// The shape in which an int8 matrix `[n, k]` is stored.
pub fn panels_shape(n: usize, k: usize) -> [usize; 4] {
    [n.div_ceil(16), k.div_ceil(4), 16, 4]
}

/// Header and data of a file that is long enough for the header it announces; a shorter one has neither.
pub(super) fn split(file: &[u8]) -> (&[u8], &[u8]) {
    let parts = file
        .split_first_chunk()
        .and_then(|(length, rest)| rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?));
    parts.unwrap_or_default()
}

/// The hash that a header must carry: of its length as the file begins with it, and of its bytes without the digits
/// of the hash. `None` if it does not begin as every header does.
pub(super) fn header_hash(header: &[u8]) -> Option<String> {
    let behind = header.strip_prefix(OPENING)?.get(DIGITS..)?;
    let mut hash = Sha256::new();
    [&(header.len() as u64).to_le_bytes(), OPENING, behind].iter().for_each(|part| hash.update(part));
    Some(hexadecimal(&hash.finalize()))
}

/// Compares a file's header with the hash in it. Says whether there was one where it must stand.
///
/// # Errors
/// [`Error::File`] if they differ.
pub(super) fn check_header(path: &Path, header: &[u8]) -> Result<bool> {
    let Some(expected) = header_hash(header) else { return Ok(false) };
    if header[OPENING.len()..].starts_with(expected.as_bytes()) {
        return Ok(true);
    }
    let problem = "its header is not the one that was written: the hash in it differs";
    Err(Error::file(path, problem, MEND))
}

/// Refuses what is not a `.limbeck` file, or one of another version.
fn check_version(path: &Path, entries: &BTreeMap<String, String>) -> Result<()> {
    let entry = |key: &str| entries.get(key).map(String::as_str);
    if entry("format") != Some("limbeck") {
        let mend = "quantize a model directory to make one";
        return Err(Error::file(path, "a safetensors file, but not a .limbeck file", mend));
    }
    let version = entry("version").unwrap_or("missing");
    let maker = match version.parse::<u32>() {
        Ok(VERSION) => return Ok(()),
        Ok(older) if older < VERSION => "made by an older limbeck: ",
        Ok(_) => {
            let problem = format!(
                "made by a newer limbeck: its format version is {version}, this program reads {VERSION}"
            );
            return Err(Error::file(
                path,
                problem,
                "use a newer limbeck, or quantize the model again with this one",
            ));
        }
        Err(_) => "",
    };
    let problem = format!("{maker}its format version is {version}, this program reads {VERSION}");
    Err(Error::file(path, problem, "quantize the model again with this program"))
}

/// What a model was made from. Hashes are SHA-256 in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(serde::Serialize))]
pub struct Parents {
    /// Of the `model.safetensors` that was quantized.
    pub model: Option<String>,
    /// Of the recipe.
    pub recipe: Option<String>,
}

impl Parents {
    fn read(json: &Json<'_>) -> Result<Parents, String> {
        let hash = |key: &str| match json.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Text(hash)) => Ok(Some(hash.to_string())),
            Some(other) => Err(format!("{key} is {other}, no hash")),
        };
        Ok(Parents { model: hash("model")?, recipe: hash("recipe")? })
    }
}

/// How a file's numbers came to be; for whoever looks, since the tensors' types say what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(serde::Serialize))]
pub struct Settings {
    /// `int8`, `int4`, `f16`, `bf16` or `f32`.
    pub weights: String,
    /// How many matrices hold their non-zero blocks only.
    pub block_sparse: usize,
    /// `channel` or `tensor`: over what the largest weight sets the scale; `group` in int4; `none` of floats.
    pub scales: String,
    /// `int8` (a scale for each row), `int4`, `f16`, `bf16` or `f32`.
    pub embeddings: String,
    /// Matrices and tables that are something else, by name: one of these, or `tensor`. Left out where there are none, and
    /// not read by the inference build.
    #[cfg(feature = "train")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exceptions: BTreeMap<String, String>,
}

impl Settings {
    fn read(json: &Json<'_>) -> Result<Settings, String> {
        let text = |key: &str| {
            let text = json.get(key).and_then(Json::text).ok_or_else(|| format!("{key} is no text"));
            text.map(str::to_owned)
        };
        let block_sparse = json.get("block_sparse").and_then(Json::size);
        let block_sparse = block_sparse.ok_or_else(|| "block_sparse is no number".to_owned())?;
        let (scales, embeddings) = (text("scales")?, text("embeddings")?);
        Ok(Settings {
            weights: text("weights")?,
            block_sparse,
            scales,
            embeddings,
            #[cfg(feature = "train")]
            exceptions: Settings::exceptions(json)?,
        })
    }

    #[cfg(feature = "train")]
    fn exceptions(json: &Json<'_>) -> Result<BTreeMap<String, String>, String> {
        let Some(exceptions) = json.get("exceptions") else { return Ok(BTreeMap::new()) };
        let wrong = || "exceptions are not forms by name".to_owned();
        let Json::Object(exceptions) = exceptions else { return Err(wrong()) };
        let exceptions =
            exceptions.iter().map(|(name, form)| Some((name.to_string(), form.text()?.to_owned())));
        exceptions.collect::<Option<_>>().ok_or_else(wrong)
    }
}

/// A text and the logits that the model gave for it when the file was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "train", derive(serde::Serialize))]
pub struct Golden {
    /// Token ids.
    pub ids: Vec<u32>,
    /// How many of them are the first sentence's, if it is a pair.
    #[cfg_attr(feature = "train", serde(skip_serializing_if = "Option::is_none"))]
    pub first: Option<usize>,
    /// The bits of the logits, as `f32::to_bits`.
    pub logits: Vec<u32>,
}

impl Golden {
    fn read(json: &Json<'_>) -> Option<Golden> {
        let numbers = |key: &str| json.get(key)?.list(|value| u32::try_from(value.size()?).ok());
        Some(Golden {
            ids: numbers("ids")?,
            first: json.get("first").and_then(Json::size),
            logits: numbers("logits")?,
        })
    }

    /// As a text of a batch.
    pub fn text(&self) -> Text<'_> {
        Text { ids: &self.ids, first: self.first.unwrap_or(self.ids.len()) }
    }
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The network.
    pub config: ModelConfig,
    /// What it was made from.
    pub parents: Parents,
    /// How it was quantized.
    pub settings: Settings,
    /// What it computes.
    pub golden: Vec<Golden>,
    /// The version of limbeck that wrote it.
    pub writer: String,
    /// SHA-256 of all bytes behind the header, in hexadecimal.
    pub data_hash: String,
}

impl Metadata {
    /// As the entries of a safetensors header, but for [`HEADER_HASH`].
    #[cfg(feature = "train")]
    pub fn to_entries(&self) -> BTreeMap<String, String> {
        let json = |value: serde_json::Result<String>| value.expect("plain structures are always JSON");
        let entries = [
            ("format", "limbeck".to_owned()),
            ("version", VERSION.to_string()),
            ("writer", self.writer.clone()),
            ("config", config_to_json(&self.config).to_string()),
            ("parents", json(serde_json::to_string(&self.parents))),
            ("quantization", json(serde_json::to_string(&self.settings))),
            ("golden", json(serde_json::to_string(&self.golden))),
            ("data_sha256", self.data_hash.clone()),
        ];
        entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// From the entries of a safetensors header; `path` is for errors.
    ///
    /// # Errors
    /// [`Error::File`] if it is not a `.limbeck` file, is of another version, or an entry cannot be read.
    pub fn from_entries(path: &Path, entries: &BTreeMap<String, String>) -> Result<Metadata> {
        check_version(path, entries)?;
        let damaged = |key: &str, problem: String| {
            Error::file(path, format!("metadata \"{key}\": {problem}"), "write the file again")
        };
        let required = |key: &str| {
            entries.get(key).map(String::as_str).ok_or_else(|| damaged(key, "missing".to_owned()))
        };
        let json = |key: &str| -> Result<Json<'_>> {
            Json::parse(required(key)?).map_err(|problem| damaged(key, problem))
        };
        let config = parse_config(path, required("config")?).map_err(|error| match error {
            Error::File { problem, .. } => damaged("config", problem),
            other => other,
        })?;
        let (parents, settings, golden) = (json("parents")?, json("quantization")?, json("golden")?);
        let parents = Parents::read(&parents).map_err(|problem| damaged("parents", problem))?;
        let settings = Settings::read(&settings).map_err(|problem| damaged("quantization", problem))?;
        let golden = golden.list(Golden::read);
        let golden = golden.ok_or_else(|| damaged("golden", "no list of ids and logits".to_owned()))?;
        for (place, golden) in golden.iter().enumerate() {
            if golden.logits.len() != config.labels.len() {
                let problem = format!("entry {place} has {} logits", golden.logits.len());
                return Err(damaged("golden", problem));
            }
        }
        let writer = required("writer")?.to_owned();
        let data_hash = required("data_sha256")?.to_owned();
        Ok(Metadata { config, parents, settings, golden, writer, data_hash })
    }
}
