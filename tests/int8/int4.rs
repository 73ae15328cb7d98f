//! int4: what a session computes from it is what its definition says.

use super::blocks::with_zero_blocks;
use super::{INT4, configs, distance, int8, texts, values};
use limbeck::formats::{Int4Rows, pack_block, unpack_block};
use limbeck::infer::{Model, Session, StoredAs};
use limbeck::nn::{ParamSpec, Role};
use limbeck::quantize::layout::Layout;
use limbeck::quantize::{Extras, Form, Quantization, quantize, stored_bytes};
use limbeck::{Batch, Result};
use std::array::from_fn;
use std::path::Path;

/// The values that int4 stands for, where a parameter's role says so.
fn rounded(spec: &ParamSpec, roles: &[Role]) -> Result<Vec<f32>> {
    let values = values(spec)?;
    if !roles.contains(&spec.role) {
        return Ok(values);
    }
    Ok(Int4Rows::by_row(&values, spec.rows, spec.cols).unpack().values().collect())
}

fn logits(model: &Model, batch: &Batch) -> Vec<f32> {
    Session::new(model).logits(batch).unwrap().to_vec()
}

#[test]
fn tables_in_int4_are_read_as_the_values_they_stand_for() {
    let batch = Batch::from_texts(texts(&[1, 7, 40, 12], 97).iter().map(Vec::as_slice));
    for config in configs() {
        let model = int8(&config, Quantization { weights: Form::F32, ..INT4 });
        let plain = Model::from_values(&config, |spec| rounded(spec, &[Role::Embedding])).unwrap();
        // A value is added to a sum by one rounding, and from a table of floats by two.
        let worst = distance(&logits(&model, &batch), &logits(&plain, &batch));
        assert!(worst <= 1e-5, "{worst} with {config:?}");
    }
}

#[test]
fn matrices_in_int4_lose_beside_their_rounding_what_activations_in_int8_lose() {
    let batch = Batch::from_texts(texts(&[1, 7, 40, 12, 33, 2, 19], 97).iter().map(Vec::as_slice));
    let (mut with_int4, mut with_int8) = (0.0, 0.0);
    for config in configs() {
        let both = [Role::Weight, Role::Embedding];
        let exact = logits(&Model::from_values(&config, |spec| rounded(spec, &both)).unwrap(), &batch);
        with_int4 += distance(&logits(&int8(&config, INT4), &batch), &exact);
        let exact = logits(&Model::from_values(&config, values).unwrap(), &batch);
        with_int8 += distance(&logits(&int8(&config, Quantization::INT8), &batch), &exact);
    }
    // int8's loss has its weights' rounding in it, which int4's has not: it is held against the network of int4's values.
    println!("int4 {with_int4:.2e} from its own values in f32, int8 {with_int8:.2e} from f32");
    assert!(with_int4 <= 1.5 * with_int8, "{with_int4} against {with_int8}");
    assert!(with_int4 > 0.0);
}

#[test]
fn int4_takes_half_the_bytes() {
    for config in configs() {
        let bytes = |quantization, form| -> usize {
            let model = int8(&config, quantization);
            let held = model.parameters().filter(|held| held.form == form && held.spec.cols == 36);
            held.map(|held| held.bytes).sum()
        };
        // 36 columns are two groups of 16 bytes and two multipliers: 34 bytes for 36, and the scale.
        let (int4, int8) = (bytes(INT4, StoredAs::Int4), bytes(Quantization::INT8, StoredAs::Int8));
        assert!(int4 > 0 && int4 < int8, "{int4} of {int8}");
    }
    let values = vec![1.0; 3 * 384];
    let rows = Int4Rows::by_row(&values, 3, 384);
    assert_eq!(rows.nibbles.len() + rows.multipliers.len(), 3 * (384 / 2 + 384 / 32));
}

/// A block by the words of the format's table: byte i holds the weight i in its low half and the weight i + 32 in its high one,
/// and four weights in a row are an output's.
#[test]
fn a_block_is_unpacked_as_the_format_says() {
    let nibbles: [u8; 32] = from_fn(|place| (place * 37 + 11) as u8);
    let multipliers: [u8; 16] = from_fn(|output| output as u8 + 1);
    let mut weights = [0; 64];
    unpack_block(&nibbles, &multipliers, &mut weights);
    let mut int4 = [0; 64];
    for (place, &weight) in weights.iter().enumerate() {
        let half = if place < 32 { nibbles[place] & 15 } else { nibbles[place - 32] >> 4 };
        int4[place] = if half < 8 { half as i8 } else { half as i8 - 16 };
        assert_eq!(weight, int4[place] * multipliers[place / 4] as i8);
    }
    assert_eq!(pack_block(&int4), nibbles);
}

#[test]
fn blocks_in_int4_take_half_the_bytes_of_blocks_in_int8() {
    let spec = ParamSpec { name: "w".into(), role: Role::Weight, rows: 64, cols: 384 };
    // One block in four: all inputs of every fourth panel.
    let value = |place: usize| if place / 384 / 16 == 1 { (place % 13) as f32 - 6.5 } else { 0.0 };
    let values: Vec<f32> = (0..spec.len()).map(value).collect();
    let [dense, int8, int4] = [(Form::Int4, false), (Form::Int8, true), (Form::Int4, true)]
        .map(|(form, blocks)| stored_bytes(&spec, form, blocks, &values).unwrap());
    let (blocks, starts) = (16 * 384 / 64, 4 * 5);
    assert_eq!(dense, 64 * (192 + 12 + 4));
    assert_eq!(int8, blocks * 65 + starts + 64 * (4 + 4));
    assert_eq!(int4, blocks * 33 + starts + 64 * (12 + 4));
    let quantization = Quantization { layout: Layout::Blocks, weights: Form::Int4, ..Quantization::INT8 };
    let config = configs().swap_remove(0);
    let made =
        quantize(Path::new("blocks"), &config, with_zero_blocks, quantization, &Extras::default()).unwrap();
    let (_, specs) = limbeck::models::Classifier::new(&config);
    for loss in made.losses.iter().filter(|loss| loss.layout.is_some()) {
        let spec = specs.iter().find(|spec| spec.name == loss.name).unwrap();
        let blocks = stored_bytes(spec, Form::Int4, true, &with_zero_blocks(spec).unwrap()).unwrap();
        let dense = stored_bytes(spec, Form::Int4, false, &with_zero_blocks(spec).unwrap()).unwrap();
        assert!(loss.bytes == blocks || blocks == dense, "{}: {} of {blocks}", loss.name, loss.bytes);
    }
}
