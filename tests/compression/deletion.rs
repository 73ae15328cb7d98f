//! What is deleted is as if its outputs were zero, and moments and masks shrink with the parameters.

use crate::network::{
    HEAD_SIZE, HEADS, UNITS, bits, change, config, download, examples, id, learner, plain, random, states,
};
use limbeck::backend::Cpu;
use limbeck::compress::Keep;
use limbeck::compress::delete;
use limbeck::models::config::{Architecture, Pooling};
use limbeck::params::Mask;
use limbeck::train::Learner;
use limbeck::train::learner::gradients;

/// A layer that keeps some heads and no unit, one that keeps no head, one that keeps one head.
fn keep() -> Keep {
    Keep {
        heads: vec![vec![0, 2, 3], vec![], vec![1]],
        units: vec![vec![], vec![0, 3, 4, 19], (0..UNITS).filter(|unit| unit % 3 != 1).collect()],
        ..Keep::all(&plain())
    }
}

/// What [`keep`] keeps of a parameter of DistilBERT, by its name.
fn kept(name: &str, rows: usize, cols: usize, values: &[f32]) -> Vec<f32> {
    kept_by(&keep(), name, rows, cols, values)
}

/// What is kept of a parameter of DistilBERT, by its name.
pub fn kept_by(keep: &Keep, name: &str, rows: usize, cols: usize, values: &[f32]) -> Vec<f32> {
    let Some(rest) = name.strip_prefix("distilbert.transformer.layer.") else { return values.to_vec() };
    let (layer, part) = rest.split_once('.').unwrap();
    let layer: usize = layer.parse().unwrap();
    let in_head = |i: usize| keep.heads[layer].contains(&(i / HEAD_SIZE));
    let is_unit = |i: usize| keep.units[layer].contains(&i);
    let stays = |row: usize, col: usize| match part {
        "attention.q_lin.weight" | "attention.k_lin.weight" | "attention.v_lin.weight" => in_head(row),
        "attention.q_lin.bias" | "attention.k_lin.bias" | "attention.v_lin.bias" => in_head(col),
        "attention.out_lin.weight" => in_head(col),
        "ffn.lin1.weight" => is_unit(row),
        "ffn.lin1.bias" | "ffn.lin2.weight" => is_unit(col),
        _ => true,
    };
    let places = (0..rows * cols).filter(|i| stays(i / cols, i % cols));
    places.map(|i| values[i]).collect()
}

/// Zeroes the columns that read what [`keep`] leaves out.
fn silence(learner: &mut Learner<Cpu>) {
    let layers = learner.model.layers.clone();
    for (i, layer) in layers.iter().enumerate() {
        let heads = &keep().heads[i];
        change(learner, layer.attention.output.weight, |_, col, value| {
            if heads.contains(&(col / HEAD_SIZE)) { value } else { 0.0 }
        });
        let units = &keep().units[i];
        change(
            learner,
            layer.contract.weight,
            |_, col, value| if units.contains(&col) { value } else { 0.0 },
        );
    }
}

#[test]
fn deletion_equals_silence_in_logits_and_gradients() {
    for (architecture, pooling) in [
        (Architecture::DistilBert, Pooling::FirstToken),
        (Architecture::DistilBert, Pooling::Mean),
        (Architecture::Bert, Pooling::Pooler),
    ] {
        let config = config(architecture, pooling, 0.0);
        let examples = examples(0..7);
        let (mut dense, mut small) = (learner(&config), learner(&config));
        let whole = dense.logits(&examples.batch).unwrap();
        silence(&mut dense);
        delete(&mut small, &keep()).unwrap();
        let layers = &small.model.config.layers;
        assert_eq!(layers[0].heads, [0, 2, 3]);
        assert_eq!((layers[1].heads.len(), layers[0].intermediate), (0, 0));

        // Products with zero add nothing, so not even rounding differs.
        let (expected, found) =
            (dense.logits(&examples.batch).unwrap(), small.logits(&examples.batch).unwrap());
        assert_eq!(bits(&found), bits(&expected), "{architecture:?} {pooling:?}");
        assert_ne!(found, whole, "what was deleted mattered");

        let of = |learner: &Learner<Cpu>| {
            gradients(&learner.backend, &learner.model, &learner.params, &examples, None, None).unwrap().1
        };
        let (dense_gradients, small_gradients) = (of(&dense), of(&small));
        if architecture == Architecture::DistilBert {
            for (id, param) in small.params.iter() {
                let shape = dense.params.value(id).shape();
                let expected = download(&dense, dense_gradients.param(id).unwrap());
                let expected = kept(&param.spec.name, shape.rows, shape.cols, &expected);
                let found = download(&small, small_gradients.param(id).unwrap());
                let distance = crate::common::distance(&found, &expected);
                assert!(distance <= 1e-6, "gradient of {}: {distance:.1e}", param.spec.name);
            }
        }
    }
}

#[test]
fn moments_and_masks_shrink_with_their_parameters() {
    let mut learner = learner(&plain());
    let masked = ["ffn.lin1.weight", "ffn.lin2.weight"].map(|part| {
        let id = id(&learner, &format!("distilbert.transformer.layer.2.{part}"));
        let len = learner.params.value(id).shape().len();
        let mask = random(part, len).iter().map(|x| u8::from(*x > 0.0)).collect();
        learner.params.set_mask(&learner.backend, id, Mask(mask)).unwrap();
        id
    });
    for step in 0..3 {
        learner.step(&examples(step * 4..step * 4 + 4), None, 1e-2, None).unwrap();
    }
    let shapes: Vec<_> = learner.params.iter().map(|(_, param)| param.value().shape()).collect();
    let before: Vec<_> = learner.params.iter().map(|(id, _)| states(&learner, id)).collect();
    let masks: Vec<_> = masked.iter().map(|&id| learner.params.get(id).mask.clone().unwrap()).collect();
    let (settings, steps) = (learner.optimizer.settings(), learner.optimizer.steps());
    delete(&mut learner, &keep()).unwrap();

    for (id, param) in learner.params.iter() {
        let (i, shape) = (id.index(), shapes[id.index()]);
        for (kind, (found, before)) in states(&learner, id).iter().zip(&before[i]).enumerate() {
            let expected = kept(&param.spec.name, shape.rows, shape.cols, before);
            assert_eq!(*found, expected, "{}, state {kind}", param.spec.name);
            assert_eq!(found.len(), param.spec.len(), "{}: its declared size", param.spec.name);
        }
    }
    for (id, mask) in masked.into_iter().zip(masks) {
        let (param, shape) = (learner.params.get(id), shapes[id.index()]);
        let mask: Vec<f32> = mask.0.iter().map(|kept| f32::from(*kept)).collect();
        let expected = kept(&param.spec.name, shape.rows, shape.cols, &mask);
        let found = param.mask.as_ref().unwrap();
        assert!(found.0.iter().map(|kept| f32::from(*kept)).eq(expected), "{}", param.spec.name);
    }
    assert_eq!((learner.optimizer.settings(), learner.optimizer.steps()), (settings, steps));

    // What is left trains on.
    let loss = |learner: &mut Learner<Cpu>| learner.step(&examples(0..6), None, 1e-2, None).unwrap().loss;
    let first = loss(&mut learner);
    let last = (0..10).map(|_| loss(&mut learner)).last().unwrap();
    assert!(last < 0.5 * first, "{first} {last}");
    crate::network::assert_masks(&learner);
}

#[test]
fn a_network_without_any_head_or_unit_still_computes_and_trains() {
    let mut learner = learner(&plain());
    let none = vec![vec![]; learner.model.layers.len()];
    delete(&mut learner, &Keep { heads: none.clone(), units: none, ..Keep::all(&plain()) }).unwrap();
    assert!(
        learner.model.config.layers.iter().all(|layer| layer.heads.is_empty() && layer.intermediate == 0)
    );
    assert_eq!(learner.model.config.pruned_heads(0).len(), HEADS);
    let step = learner.step(&examples(0..5), None, 1e-3, None).unwrap();
    assert!(step.loss.is_finite() && step.gradient_norm > 0.0);
}
