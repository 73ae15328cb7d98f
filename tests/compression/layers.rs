//! A network that keeps some of its layers is the one that these layers make; a layer's score is what closing it would do.

use crate::network::{config, download, examples, id, learner, plain, random, states, text};
use crate::oracle::Oracle;
use limbeck::autograd::Tape;
use limbeck::backend::Cpu;
use limbeck::checkpoint::{config_to_json, parse_config};
use limbeck::compress::layers::{keep_layers, layer_gradients};
use limbeck::models::config::{Architecture, Pooling};
use limbeck::models::{Rows, Taps};
use limbeck::ops::loss::cross_entropy;
use limbeck::params::Mask;
use limbeck::tensor::{Shape, Tensor};
use limbeck::train::{Examples, Learner};
use std::path::Path;

/// The name that a tensor of layers 0 and 1 had when they were layers 0 and 2.
fn before(name: &str) -> String {
    name.replace(".layer.1.", ".layer.2.")
}

#[test]
fn what_stays_computes_as_a_network_of_those_layers() {
    for (architecture, pooling) in
        [(Architecture::DistilBert, Pooling::FirstToken), (Architecture::Bert, Pooling::Pooler)]
    {
        let mut learner = learner(&config(architecture, pooling, 0.0));
        let dense = crate::network::learner(&learner.model.config);
        keep_layers(&mut learner, &[0, 2]).unwrap();
        let config = &learner.model.config;
        assert_eq!((config.layers.len(), config.original_layers()), (2, 3));
        assert_eq!((&config.deleted_layers[..], &config.kept_layers()[..]), (&[1][..], &[0, 2][..]));
        let values = |spec: &limbeck::nn::ParamSpec| {
            Ok(download(&dense, dense.params.value(id(&dense, &before(&spec.name)))))
        };
        let oracle = Oracle::new(config, values, false);
        let (batch, classes) = (examples(0..7).batch, config.labels.len());
        let found = learner.logits(&batch).unwrap();
        for (sample, found) in (0..7).zip(found.chunks(classes)) {
            for (found, expected) in found.iter().zip(oracle.logits(&text(sample))) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= 2e-5 * expected.abs().max(1.0), "{found} for {expected}");
            }
        }
        // What is read back says the same of itself.
        let json = config_to_json(config).to_string();
        assert_eq!(parse_config(Path::new("config.json"), &json).unwrap(), *config);
        // Deleted again, it still counts as it did at first.
        keep_layers(&mut learner, &[1]).unwrap();
        assert_eq!(learner.model.config.kept_layers(), [2]);
    }
}

#[test]
fn masks_and_moments_move_with_their_layer() {
    let mut learner = learner(&plain());
    let name = "distilbert.transformer.layer.2.ffn.lin1.weight";
    let masked = id(&learner, name);
    let len = learner.params.value(masked).shape().len();
    let mask = Mask(random("mask", len).iter().map(|x| u8::from(*x > 0.0)).collect());
    learner.params.set_mask(&learner.backend, masked, mask.clone()).unwrap();
    learner.model.config.masked = vec![name.to_owned()];
    for step in 0..3 {
        learner.step(&examples(step * 4..step * 4 + 4), None, 1e-2, None).unwrap();
    }
    let names: Vec<String> = learner.params.iter().map(|(_, param)| param.spec.name.clone()).collect();
    let all: Vec<_> = learner.params.iter().map(|(id, _)| states(&learner, id)).collect();
    keep_layers(&mut learner, &[0, 2]).unwrap();
    for (id, param) in learner.params.iter() {
        let place = names.iter().position(|name| *name == before(&param.spec.name)).unwrap();
        assert_eq!(states(&learner, id), all[place], "{}", param.spec.name);
    }
    let moved = "distilbert.transformer.layer.1.ffn.lin1.weight";
    assert_eq!(learner.params.get(id(&learner, moved)).mask, Some(mask));
    assert_eq!(learner.model.config.masked, [moved]);
    assert_eq!(learner.optimizer.steps(), 3);
    learner.step(&examples(0..6), None, 1e-2, None).unwrap();
    crate::network::assert_masks(&learner);
}

/// The loss of one text when layer `gated` hands on `x + ξ·(y - x)`.
fn gated_loss(learner: &Learner<Cpu>, examples: &Examples, gated: usize, gate: f32) -> f64 {
    let Learner { backend, model, params, .. } = learner;
    let mut tape = Tape::recording(backend, params, &examples.batch, None);
    let (_, Taps { embedded, layers }) = model.forward_with_taps(&mut tape, Rows::All).unwrap();
    let x = if gated == 0 { &embedded } else { &layers[gated - 1].hidden };
    let [x, y] = [x, &layers[gated].hidden].map(|var| download(learner, var.tensor()));
    let mixed: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + gate * (y - x)).collect();
    let shape = Shape::new(examples.batch.tokens(), model.config.hidden);
    let mut state = tape.leaf(Tensor::upload(backend, &mixed, shape).unwrap());
    use limbeck::nn::Exec;
    for layer in &model.layers[gated + 1..] {
        state = layer.forward(&mut tape, &state, false).unwrap().hidden;
    }
    let pooled = tape.first_tokens(&state).unwrap();
    let dense = tape.linear(model.head.dense.as_ref().unwrap(), &pooled).unwrap();
    let logits = tape.linear(&model.head.classifier, &dense).unwrap();
    cross_entropy(&download(learner, logits.tensor()), &examples.labels).total
}

#[test]
fn scores_of_layers_are_the_slopes_of_gates() {
    let learner = learner(&plain());
    let (mut found, all) = ([0.0; 3], examples(0..5));
    layer_gradients(&learner, &all, &mut found).unwrap();
    for (layer, found) in found.into_iter().enumerate() {
        let h = 1.0 / 512.0;
        let slope = |sample: u64| {
            let examples = examples([sample]);
            let [above, below] = [1.0 + h, 1.0 - h].map(|gate| gated_loss(&learner, &examples, layer, gate));
            ((above - below) / f64::from(2.0 * h)).abs()
        };
        let expected: f64 = (0..5).map(slope).sum();
        assert!((found - expected).abs() <= 0.01 * expected, "layer {layer}: {found} for {expected}");
        assert!(expected > 0.01, "layer {layer} matters: {expected}");
    }
}
