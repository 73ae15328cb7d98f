//! The `.limbeck` file: readable by others, checked against itself, and never a panic, whatever its bytes are.
#![cfg(feature = "train")]

mod errors;

use limbeck::files::sha256;
use limbeck::infer::format::{ALIGNMENT, Parents};
use limbeck::infer::{Image, Model, Session, StoredAs};
use limbeck::models::config::{Architecture, DropoutConfig, LayerConfig, ModelConfig, Pooling, Sizes};
use limbeck::nn::{ParamSpec, Role};
use limbeck::quantize::layout::Layout;
use limbeck::quantize::{Extras, Form, Quantization, golden_texts, quantize};
use limbeck::tokenizer::{Rules, WordPiece};
use limbeck::{Batch, Result};
use memmap2::{Mmap, MmapMut};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::LazyLock;

const PIECES: [&str; 9] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "."];

fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Bert,
        token_types: 2,
        layers: vec![
            LayerConfig { heads: vec![1], intermediate: 7 },
            LayerConfig { heads: vec![], intermediate: 0 },
        ],
        dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.1 },
        pooling: Pooling::Pooler,
        ..ModelConfig::distilbert(
            Sizes { vocab: 11, positions: 12, hidden: 6, heads: 2, intermediate: 7, layers: 0 },
            ["no", "yes"],
        )
    }
}

fn values(spec: &ParamSpec) -> Result<Vec<f32>> {
    let start = spec.name.bytes().map(usize::from).sum::<usize>();
    let value = |place: usize| ((start + 31 * place) % 97) as f32 / 97.0 - 0.4;
    Ok((0..spec.len()).map(value).collect())
}

/// The same, with blocks of zeros in matrices: the first four inputs of each.
fn with_zero_blocks(spec: &ParamSpec) -> Result<Vec<f32>> {
    let mut values = values(spec)?;
    if spec.role == Role::Weight {
        values.chunks_mut(spec.cols.max(1)).for_each(|row| row[..4.min(spec.cols)].fill(0.0));
    }
    Ok(values)
}

fn image(quantization: Quantization) -> Image {
    let values = if quantization.layout == Layout::Blocks { with_zero_blocks } else { values };
    let extras = Extras {
        vocabulary: Some(WordPiece::pack(&PIECES, Rules::bert(true)).unwrap()),
        parents: Parents { model: Some("00ff".to_owned()), recipe: None },
        golden: golden_texts(&config()),
    };
    quantize(Path::new("test"), &config(), values, quantization, &extras).unwrap().image
}

const HALVES: Quantization =
    Quantization { weights: Form::F16, embeddings: Form::Bf16, ..Quantization::INT8 };
const INT4: Quantization = Quantization { weights: Form::Int4, embeddings: Form::Int4, ..Quantization::INT8 };

const BLOCKS: Quantization = Quantization { layout: Layout::Blocks, ..Quantization::INT8 };
const INT4_BLOCKS: Quantization = Quantization { layout: Layout::Blocks, ..INT4 };

/// The files of all tests, made once: int8, f32, int4, 16-bit floats, and int8 and int4 without blocks of zeros.
static FILES: LazyLock<[Vec<u8>; 6]> = LazyLock::new(|| {
    let forms = [Quantization::INT8, Quantization::NONE, INT4, HALVES, BLOCKS, INT4_BLOCKS];
    forms.map(|form| image(form).bytes().to_vec())
});

fn map(bytes: &[u8]) -> Mmap {
    let mut map = MmapMut::map_anon(bytes.len()).unwrap();
    map.copy_from_slice(bytes);
    map.make_read_only().unwrap()
}

fn open(bytes: &[u8]) -> Result<Model> {
    Model::from_map(Path::new("test.limbeck"), map(bytes))
}

fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// Where the digits of the header's hash stand, as the format's prelude has them.
const DIGITS: std::ops::Range<usize> = 8 + 34..8 + 34 + 64;

/// Hashes the header anew, as whoever changes a file on purpose would.
fn seal(file: &mut [u8]) {
    let end = header_length(file).saturating_add(8);
    if (DIGITS.end..=file.len()).contains(&end)
        && file[8..].starts_with(br#"{"__metadata__":{"header_sha256":""#)
    {
        let hash = sha256(&[&file[..DIGITS.start], &file[DIGITS.end..end]].concat());
        file[DIGITS].copy_from_slice(hash.as_bytes());
    }
}

/// The same file with its header changed, padded and hashed again.
fn with_header(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let length = header_length(bytes);
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let mut header = header.to_string();
    header += &" ".repeat((8 + header.len()).next_multiple_of(ALIGNMENT) - 8 - header.len());
    let mut file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat();
    seal(&mut file);
    file
}

/// Opens and, if it can be opened, runs a file that may be damaged; what matters is that this returns.
fn try_all(bytes: &[u8]) -> bool {
    let Ok(model) = open(bytes) else { return false };
    let batch = Batch::from_texts([&[2, 5, 3][..], &[2]]);
    let _ = Session::new(&model).logits(&batch);
    let _ = model.check_golden();
    let _ = model.tokenizer().map(|tokenizer| tokenizer.encode("unaffable.", 12));
    true
}

#[test]
fn what_is_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let forms = [
        (Quantization::INT8, StoredAs::Int8),
        (Quantization::NONE, StoredAs::F32),
        (INT4, StoredAs::Int4),
        (HALVES, StoredAs::Half),
        (BLOCKS, StoredAs::Int8Blocks),
        (INT4_BLOCKS, StoredAs::Int4Blocks),
    ];
    for (quantization, form) in forms {
        let table = match form {
            StoredAs::Int8Blocks => StoredAs::Int8,
            StoredAs::Int4Blocks => StoredAs::Int4,
            other => other,
        };
        let path = directory.path().join("model.limbeck");
        let image = image(quantization);
        image.write(&path).unwrap();
        let model = Model::open(&path).unwrap();
        model.check_golden().unwrap();
        let metadata = model.metadata().unwrap();
        assert_eq!(*metadata, image.metadata);
        assert_eq!((&metadata.config, model.config()), (&config(), &config()));
        assert_eq!(metadata.parents.model.as_deref(), Some("00ff"));
        assert!(metadata.golden.len() >= 3 && metadata.golden.iter().all(|golden| golden.logits.len() == 2));
        let tokenizer = model.tokenizer().unwrap();
        assert_eq!(tokenizer.encode("Unaffable.", 12), [2, 5, 6, 7, 8, 3]);
        for parameter in model.parameters() {
            let expected = match parameter.spec.role {
                Role::Weight if !parameter.spec.is_empty() => form,
                Role::Weight | Role::Embedding => table,
                Role::Bias | Role::Gamma | Role::Beta => StoredAs::F32,
            };
            assert_eq!(parameter.form, expected, "{}", parameter.spec.name);
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside the file");
}

#[test]
fn any_safetensors_reader_opens_it() {
    let bytes = &FILES[0];
    let file = SafeTensors::deserialize(bytes).unwrap();
    let origin = bytes.as_ptr().addr();
    for (name, tensor) in file.tensors() {
        let place = tensor.data().as_ptr().addr() - origin;
        assert!(
            name.starts_with("pad.") || tensor.data().is_empty() || place.is_multiple_of(ALIGNMENT),
            "{name}"
        );
    }
    // A matrix as the format's table describes it, read without any of our code.
    let name = "bert.encoder.layer.0.intermediate.dense.weight";
    let (panels, scale) = (file.tensor(name).unwrap(), file.tensor(&format!("{name}.scale")).unwrap());
    let sums = file.tensor(&format!("{name}.sums")).unwrap();
    assert_eq!((panels.dtype(), panels.shape()), (Dtype::I8, &[1, 2, 16, 4][..]));
    assert_eq!((scale.dtype(), scale.shape()), (Dtype::F32, &[7][..]));
    assert_eq!((sums.dtype(), sums.shape()), (Dtype::I32, &[16][..]));
    let spec = ParamSpec { name: name.to_owned(), role: Role::Weight, rows: 7, cols: 6 };
    let weights = values(&spec).unwrap();
    for output in 0..16 {
        let mut sum = 0;
        for input in 0..8 {
            let byte = i32::from(panels.data()[(input / 4 * 16 + output) * 4 + input % 4] as i8);
            sum += byte;
            if output >= 7 || input >= 6 {
                assert_eq!(byte, 0, "padding");
                continue;
            }
            let scale = f32::from_le_bytes(scale.data()[4 * output..][..4].try_into().unwrap());
            let error = (weights[output * 6 + input] - byte as f32 * scale).abs();
            assert!(error <= scale * 0.5001, "{error} against a step of {scale}");
        }
        assert_eq!(i32::from_le_bytes(sums.data()[4 * output..][..4].try_into().unwrap()), sum);
    }
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    for file in FILES.iter() {
        for length in 1..file.len() {
            assert!(open(&file[..length]).is_err(), "{length} of {} bytes", file.len());
        }
        assert!(open(&[&file[..], &[0]].concat()).is_err(), "a byte too many");
        assert!(try_all(file));
    }
}

#[test]
fn every_flipped_bit_of_the_header_is_an_error() {
    let mut file = FILES[0].clone();
    assert!(open(&file).is_ok());
    for byte in 0..8 + header_length(&file) {
        for bit in 0..8 {
            file[byte] ^= 1 << bit;
            assert!(open(&file).is_err(), "bit {bit} of byte {byte}");
            file[byte] ^= 1 << bit;
        }
    }
}

/// Behind a good hash anything may stand: labels, dropout rates and golden logits are free, the rest is compared.
#[test]
fn no_flipped_bit_of_the_header_panics_under_a_new_hash() {
    let file = &FILES[0];
    let mut opened = 0;
    for byte in (0..8 + header_length(file)).filter(|byte| !DIGITS.contains(byte)) {
        let mut damaged = file.clone();
        damaged[byte] ^= 1 << (byte % 7);
        seal(&mut damaged);
        opened += usize::from(try_all(&damaged));
    }
    assert!(opened > 0, "the hash is as the format says: with it a changed label is read");
}

proptest! {
    #[test]
    fn no_damage_panics(
        form in 0..6usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut file = FILES[form].clone();
        for (place, byte) in &damage {
            file[place.index(FILES[form].len())] = *byte;
        }
        seal(&mut file);
        try_all(&file);
    }
}

#[test]
fn damaged_data_are_found_by_the_golden_check() {
    let file = &FILES[0];
    let last = file.len() - 1;
    for place in [8 + header_length(file), last] {
        let mut damaged = file.clone();
        damaged[place] ^= 1;
        let error = open(&damaged).unwrap().check_golden().unwrap_err().to_string();
        assert!(error.contains("hash") && error.contains("test.limbeck"), "{error}");
    }
    let other = with_header(file, |header| {
        let golden = header["__metadata__"]["golden"].as_str().unwrap();
        let mut golden: Value = serde_json::from_str(golden).unwrap();
        golden[1]["logits"][0] = json!(golden[1]["logits"][0].as_u64().unwrap() ^ 1);
        header["__metadata__"]["golden"] = json!(golden.to_string());
    });
    let error = open(&other).unwrap().check_golden().unwrap_err().to_string();
    assert!(error.contains("golden text 1"), "{error}");
}

/// Sums that are not those of the weights would give other logits on each row of kernels: whoever wrote them wrote them
/// behind a hash that fits.
#[test]
fn sums_of_other_weights_are_found_by_the_check() {
    let mut file = FILES[0].clone();
    let origin = 8 + header_length(&file);
    let header: Value = serde_json::from_slice(&file[8..origin]).unwrap();
    let place = origin + header["classifier.weight.sums"]["data_offsets"][0].as_u64().unwrap() as usize;
    file[place] ^= 1;
    let hash = sha256(&file[origin..]);
    let file = with_header(&file, |header| header["__metadata__"]["data_sha256"] = json!(hash));
    let error = open(&file).unwrap().check_data().unwrap_err().to_string();
    assert!(error.contains("tensor classifier.weight: its sums"), "{error}");
}

#[test]
fn a_model_can_be_part_of_the_program() {
    let bytes: &'static [u8] = Box::leak(Box::new(map(&FILES[0])));
    let model = Model::from_bytes(bytes).unwrap();
    model.check_golden().unwrap();
    let shifted: &'static [u8] = Box::leak(Box::new(map(&[&[0], &FILES[0][..]].concat())));
    let error = Model::from_bytes(&shifted[1..]).map(|_| "opened").unwrap_err().to_string();
    assert!(error.contains("include_model!"), "{error}");
}
