//! int4: what a session computes from it is what its definition says.

use super::{INT4, configs, distance, int8, texts, values};
use limbeck::compress::quantize::{Form, Quantization};
use limbeck::infer::{Model, Session, StoredAs};
use limbeck::nn::{ParamSpec, Role};
use limbeck::quantized::Int4Rows;
use limbeck::{Batch, Result};

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
