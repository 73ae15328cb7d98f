//! What is wrong in a file that was changed on purpose is told by name.

use crate::{FILES, config, header_length, open, values, with_header};
use limbeck::Batch;
use limbeck::infer::Session;
use limbeck::nn::ParamSpec;
use limbeck::quantize::{Extras, Quantization, quantize};
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn errors_name_file_tensor_and_mend() {
    const WEIGHT: &str = "bert.encoder.layer.0.intermediate.dense.weight";
    type Change = fn(&mut Value);
    let cases: [(Change, &[&str]); 10] = [
        (|header| header["__metadata__"]["format"] = json!("pt"), &["not a .limbeck file", "quantize"]),
        (
            |header| header["__metadata__"]["version"] = json!("99"),
            &["made by a newer limbeck", "version is 99"],
        ),
        // As version 1 was: without a hash of the header.
        (
            |header| {
                header["__metadata__"].as_object_mut().unwrap().shift_remove("header_sha256");
                header["__metadata__"]["version"] = json!("1");
            },
            &["made by an older limbeck", "version is 1", "quantize the model again"],
        ),
        (
            |header| drop(header["__metadata__"].as_object_mut().unwrap().shift_remove("header_sha256")),
            &["its header does not begin as it must"],
        ),
        (|header| header["__metadata__"]["golden"] = json!("[{}]"), &["golden", "write the file again"]),
        (
            |header| header[WEIGHT]["shape"] = json!([2, 1, 16, 4]),
            &[WEIGHT, "I8 [2, 1, 16, 4]", "I8 [1, 2, 16, 4]"],
        ),
        // The type of int4 weights, which are laid out otherwise.
        (|header| header[WEIGHT]["dtype"] = json!("U8"), &[WEIGHT, "U8 [1, 2, 16, 4]", "U8 [7, 16]"]),
        (
            |header| {
                let entry = header[WEIGHT].take();
                header.as_object_mut().unwrap().shift_remove(WEIGHT);
                header["stranger"] = entry;
            },
            &[WEIGHT, "no such tensor"],
        ),
        (
            |header| {
                let config = header["__metadata__"]["config"].as_str().unwrap();
                header["__metadata__"]["config"] =
                    json!(config.replace("\"hidden_size\":6", "\"hidden_size\":8"));
            },
            &["asks for", "tensor bert.embeddings.word_embeddings.weight"],
        ),
        (
            |header| header["stranger"] = json!({"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
            &["stranger"],
        ),
    ];
    for (change, words) in cases {
        let error = open(&with_header(&FILES[0], change)).map(|_| "opened").unwrap_err().to_string();
        for word in words.iter().chain(&["test.limbeck"]) {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    }
    // A part of int8 values beside values in f32.
    let lone = with_header(&FILES[1], |header| {
        header[format!("{WEIGHT}.scale")] = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
    });
    let error = open(&lone).map(|_| "opened").unwrap_err().to_string();
    assert!(error.contains(&format!("tensor {WEIGHT}.scale: {WEIGHT} is not in int8")), "{error}");
}

#[test]
fn values_that_are_no_numbers_are_errors() {
    let file = &FILES[0];
    let origin = 8 + header_length(file);
    let header: Value = serde_json::from_slice(&file[8..origin]).unwrap();
    for (name, bytes, word) in [
        ("classifier.bias", f32::NAN.to_le_bytes(), "NaN"),
        ("classifier.weight.scale", f32::INFINITY.to_le_bytes(), "inf"),
        ("classifier.weight.sums", i32::MIN.to_le_bytes(), "larger"),
    ] {
        let place = origin + header[name]["data_offsets"][0].as_u64().unwrap() as usize;
        let mut damaged = file.clone();
        damaged[place..place + 4].copy_from_slice(&bytes);
        let error = open(&damaged).map(|_| "opened").unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(word), "{error}");
    }
    // A table is read where a text asks for it: what is no number there is found in the answer.
    let file = &FILES[1];
    let origin = 8 + header_length(file);
    let header: Value = serde_json::from_slice(&file[8..origin]).unwrap();
    let words = &header["bert.embeddings.word_embeddings.weight"]["data_offsets"][0];
    let row = origin + words.as_u64().unwrap() as usize + 4 * 6 * 5;
    for value in [f32::NAN, f32::INFINITY] {
        let mut damaged = file.clone();
        damaged[row..row + 4].copy_from_slice(&value.to_le_bytes());
        let model = open(&damaged).unwrap();
        let mut session = Session::new(&model);
        let error = session.logits(&Batch::from_texts([&[2, 3][..], &[2, 5, 3]])).unwrap_err().to_string();
        assert!(error.contains("test.limbeck: text 1 of the batch has the logit NaN"), "{error}");
        assert!(session.logits(&Batch::from_texts([&[2, 3][..]])).is_ok(), "what does not read it is whole");
    }
    let wrong = |spec: &ParamSpec| {
        let mut values = values(spec)?;
        if spec.name == "classifier.weight" {
            values[3] = f32::NAN;
        }
        Ok(values)
    };
    let made = quantize(Path::new("x.limbeck"), &config(), wrong, Quantization::INT8, &Extras::default());
    let error = made.map(|_| "made").unwrap_err().to_string();
    assert!(error.contains("classifier.weight") && error.contains("element 3"), "{error}");
}
