//! Files of tensors: what is damaged is refused by name, what is whole reads as the safetensors crate wrote it.

use limbeck::Result;
use limbeck::checkpoint::{DATA_HASH, Dtype, TensorFile, TensorToWrite, Values, parse_config, write_tensors};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A safetensors file of the given header and data.
pub fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn open(bytes: &[u8]) -> Result<TensorFile> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    TensorFile::open(&path)
}

/// The message of the error that a file must give.
fn refusal(bytes: &[u8]) -> String {
    let message = open(bytes).err().expect("the file is damaged").to_string();
    assert!(message.contains("model.safetensors"), "{message}");
    message
}

#[test]
fn damaged_files_are_refused_by_name() {
    assert!(refusal(b"short").contains("too few"));
    assert!(refusal(&file_of("{}", b"")[..9]).contains("cut short"));
    let huge = [&(1_u64 << 60).to_le_bytes()[..], b"{}"].concat();
    assert!(refusal(&huge).contains(&(1_u64 << 60).to_string()));
    assert!(refusal(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat()).contains("cut short"));
    assert!(refusal(&file_of("{\"a\":", b"")).contains("header"));
    assert!(refusal(&file_of("[1, 2]", b"")).contains("header"));

    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"layer.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let outside = refusal(&file_of(&one("F32", "[2]", "[0,8]"), &[0; 7]));
    assert!(outside.contains("layer.weight") && outside.contains("outside"), "{outside}");
    assert!(refusal(&file_of(&one("F32", "[2]", "[8,0]"), &[0; 8])).contains("outside"));
    assert!(refusal(&file_of(&one("F32", "[3]", "[0,8]"), &[0; 8])).contains("[3]"));
    let overflow = one("F32", "[4294967296,4294967296,2]", "[0,8]");
    assert!(refusal(&file_of(&overflow, &[0; 8])).contains("layer.weight"));
    assert!(refusal(&file_of(&one("F32", "[-1]", "[0,8]"), &[0; 8])).contains("layer.weight"));
    assert!(refusal(&file_of(&one("F4", "[2]", "[0,1]"), &[0; 1])).contains("layer.weight"));
    assert!(refusal(&file_of(&one("F32", "[2]", "[0,8]"), &[0; 9])).contains("last 1 bytes"));
    assert!(refusal(&file_of(&one("F32", "[2]", "[4,12]"), &[0; 12])).contains("4 bytes before"));

    let two = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    assert!(refusal(&file_of(two, &[0; 6])).contains("tensor b: it begins 2 bytes inside"));
    let twice = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}"#;
    assert!(refusal(&file_of(twice, &[0; 6])).contains("tensor a: the name occurs twice"));
}

#[test]
fn values_that_are_no_numbers_are_refused_by_name() {
    let read = |dtype: &str, data: &[u8]| {
        let shape = data.len() / if dtype == "F32" { 4 } else { 2 };
        let end = data.len();
        let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[0,{end}]}}}}"#);
        let mut values = Vec::new();
        open(&file_of(&header, data)).unwrap().read_f32("w", &mut values).map(|()| values)
    };
    assert_eq!(read("F32", &1.5_f32.to_le_bytes()).unwrap(), [1.5]);
    let nan = read("F32", &[1.0_f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat()).unwrap_err().to_string();
    assert!(nan.contains("tensor w: element 1 is NaN"), "{nan}");
    assert!(read("F16", &[0x00, 0x7c]).unwrap_err().to_string().contains("inf"));
    assert!(read("BF16", &[0x80, 0xff]).unwrap_err().to_string().contains("-inf"));
    let ints = read("I16", &[0, 0]).unwrap_err().to_string();
    assert!(ints.contains("I16"), "{ints}");
    let file = open(&file_of("{}", b"")).unwrap();
    assert!(file.read_f32("absent", &mut Vec::new()).unwrap_err().to_string().contains("absent"));
}

proptest! {
    /// Whatever the bytes, an answer and never a panic; and what opens can be read.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        let _ = open(&bytes).map(|file| file.names().count());
    }

    /// Damage to a good file: a changed byte or a cut.
    #[test]
    fn a_changed_byte_or_a_cut(place in 0_usize..400, byte: u8, cut in 0_usize..400) {
        let header = r#"{"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},"y":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}}"#;
        let mut bytes = file_of(header, &[7; 26]);
        let length = bytes.len();
        bytes[place % length] = byte;
        bytes.truncate(length - cut % length);
        if let Ok(file) = open(&bytes) {
            let names: Vec<String> = file.names().map(str::to_owned).collect();
            for name in names {
                let _ = file.read_f32(&name, &mut Vec::new());
            }
        }
    }

    /// Any JSON-like text as header.
    #[test]
    fn any_header(header in r#"\{("[a-z_]{0,3}":(\{("(dtype|shape|data_offsets)":("F32"|\[[0-9]{0,2}(,[0-9]{1,2})?\]),?){0,3}\}|1|null),?){0,3}\}?"#) {
        let _ = open(&file_of(&header, &[0; 16])).map(|file| file.names().count());
    }

    #[test]
    fn any_config(text in r#"\{("(model_type|dim|n_heads|n_layers|hidden_dim|vocab_size|id2label|limbeck|pruned_heads|activation)":("distilbert"|"gelu"|[0-9]{1,12}|-1|1e99|null|\{\}|\[\]),?){0,8}\}"#) {
        let _ = parse_config(Path::new("config.json"), &text);
    }

    /// What is written is what the safetensors crate reads, and what we read.
    #[test]
    fn round_trip(
        values in prop::collection::vec(-3.0e4_f32..3.0e4, 0..70),
        bytes in prop::collection::vec(any::<u8>(), 0..9),
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.safetensors");
        let metadata = BTreeMap::from([("recipe".to_owned(), "\"quoted\"\n".to_owned())]);
        let shapes = [[values.len(), 1], [bytes.len(), 1]];
        let tensors = [
            TensorToWrite { name: "mask", shape: &shapes[1], values: Values::Bytes(Dtype::U8, &bytes) },
            TensorToWrite { name: "w", shape: &shapes[0], values: Values::F32(&values) },
        ];
        write_tensors(&path, &tensors, dtype, &metadata).unwrap();
        let written = fs::read(&path).unwrap();
        let reversed = [tensors[1], tensors[0]];
        write_tensors(&path, &reversed, dtype, &metadata).unwrap();
        prop_assert_eq!(&written, &fs::read(&path).unwrap(), "the order given does not matter");

        let oracle = safetensors::SafeTensors::deserialize(&written).unwrap();
        prop_assert_eq!(oracle.tensor("mask").unwrap().data(), &bytes[..]);
        let expected: Vec<f32> = values.iter().map(|&value| match dtype {
            Dtype::F16 => half::f16::from_f32(value).to_f32(),
            Dtype::Bf16 => half::bf16::from_f32(value).to_f32(),
            _ => value,
        }).collect();
        let file = TensorFile::open(&path).unwrap();
        let mut found = file.metadata().clone();
        prop_assert!(found.remove(DATA_HASH).is_some());
        prop_assert_eq!(&found, &metadata);
        prop_assert!(file.check().is_ok());
        prop_assert_eq!(file.bytes("mask").unwrap(), &bytes[..]);
        let weights = oracle.tensor("w").unwrap();
        prop_assert_eq!(file.shape("w").unwrap(), weights.shape());
        prop_assert_eq!(file.bytes("w").unwrap(), weights.data());
        prop_assert_eq!(file.bytes("w").unwrap().as_ptr() as usize % 64, 0, "tensors can be mapped in place");
        let mut read = vec![9.0];
        file.read_f32("w", &mut read).unwrap();
        prop_assert_eq!(read, expected);
    }
}

#[test]
fn what_cannot_be_read_again_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    fs::write(&path, b"the checkpoint before").unwrap();
    let mut values = vec![1.0; 40_000];
    values[30_000] = 1.0e5;
    let write = |values: &[f32], dtype| {
        let tensors = [TensorToWrite { name: "w", shape: &[40_000], values: Values::F32(values) }];
        write_tensors(&path, &tensors, dtype, &BTreeMap::new())
    };
    let large = write(&values, Dtype::F16).unwrap_err().to_string();
    assert!(large.contains("tensor w: element 30000") && large.contains("F16"), "{large}");
    values[30_000] = f32::NAN;
    assert!(write(&values, Dtype::F32).unwrap_err().to_string().contains("element 30000 is NaN"));
    assert_eq!(fs::read(&path).unwrap(), b"the checkpoint before");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn every_flipped_bit_of_tensors_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    let tensors = [TensorToWrite { name: "w", shape: &[3, 5], values: Values::F32(&[0.5; 15]) }];
    write_tensors(&path, &tensors, Dtype::F32, &BTreeMap::new()).unwrap();
    let whole = fs::read(&path).unwrap();
    for byte in whole.len() - 60..whole.len() {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        fs::write(&path, &damaged).unwrap();
        let error = TensorFile::open(&path).unwrap().check().unwrap_err().to_string();
        assert!(error.contains("x.safetensors") && error.contains("hash differs"), "{error}");
    }
}
