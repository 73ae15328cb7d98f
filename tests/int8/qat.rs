//! Quantization-aware training: a forward pass that rounds gives the logits of the file.

use super::{FORMS, INT4, bits, configs, int8, texts, values};
use limbeck::Batch;
use limbeck::backend::Cpu;
use limbeck::infer::{Session, StoredAs};
use limbeck::models::Classifier;
use limbeck::nn::Role;
use limbeck::params::ParamStore;
use limbeck::quantize::{Exceptions, Extras, Form, Quantization, quantize};
use limbeck::train::learner::logits;
use limbeck_kernels::Kernels;
use std::path::Path;

#[test]
fn training_computes_what_the_file_will_to_the_bit() {
    let lengths: Vec<usize> = [1, 40, 15, 16, 17, 2, 33, 3, 97 % 40].into_iter().cycle().take(20).collect();
    let texts = texts(&lengths, 97);
    let batch = Batch::from_texts(texts.iter().map(Vec::as_slice));
    let more = [
        Quantization { weights: Form::Int4, ..Quantization::INT8 },
        Quantization { embeddings: Form::F16, ..Quantization::INT8 },
        Quantization { embeddings: Form::Bf16, ..Quantization::INT8 },
    ];
    let forms = FORMS.into_iter().chain(more);
    // Those without matrices in int8 compute in f32, where the order of sums is training's own.
    let forms: Vec<Quantization> = forms.filter(|form| form.weights.is_integer()).collect();
    assert!(forms.contains(&INT4) && forms.len() >= 4);
    for config in configs() {
        let (model, specs) = Classifier::new(&config);
        for form in &forms {
            let file = int8(&config, form.clone());
            let expected = bits(Session::new(&file).logits(&batch).unwrap());
            for kernels in Kernels::available() {
                let cpu = Cpu::new(kernels);
                let mut params = ParamStore::new(&cpu, &specs, values).unwrap();
                let exact = logits(&cpu, &model, &params, &batch).unwrap();
                params.round(Some(form.rounding()));
                let rounded = logits(&cpu, &model, &params, &batch).unwrap();
                assert_eq!(bits(&rounded), expected, "{form:?} on {} {config:?}", kernels.isa());
                assert_ne!(bits(&exact), expected, "rounding is not for nothing");
                params.round(None);
                assert_eq!(bits(&logits(&cpu, &model, &params, &batch).unwrap()), bits(&exact));
            }
        }
    }
}

/// A few matrices and tables are otherwise than most: so they are in training, on every row of kernels.
#[test]
fn exceptions_are_the_same_in_training_and_in_the_file() {
    let exceptions = |all: &[(&str, Form)]| {
        Exceptions::new(all.iter().map(|(name, form)| ((*name).to_owned(), *form)).collect())
    };
    let mixed = [
        // The head and the values in int8, the rest in int4; words in floats, beside positions in int8.
        Quantization {
            exceptions: exceptions(&[
                ("*classifier.weight", Form::Int8),
                ("*v*.weight", Form::Int8Tensor),
                ("*word_embeddings.weight", Form::F32),
                ("*position_embeddings.weight", Form::Int8),
            ]),
            ..INT4
        },
        // Some matrices of a layer, keys among them, in int4; words in int4 alone.
        Quantization {
            exceptions: exceptions(&[("*.1.*k*.weight", Form::Int4), ("*word*.weight", Form::Int4)]),
            ..Quantization::INT8
        },
        // Tables in floats, but for one.
        Quantization {
            embeddings: Form::F32,
            exceptions: exceptions(&[("*position*", Form::Int4)]),
            ..Quantization::INT8
        },
    ];
    let texts = texts(&[1, 40, 15, 2, 33], 97);
    let batch = Batch::from_texts(texts.iter().map(Vec::as_slice));
    for config in configs() {
        let (model, specs) = Classifier::new(&config);
        for form in &mixed {
            if form.check(&specs).is_err() {
                // A network without layers, or without that one, or in which it has no parameters of its own.
                assert!(config.layers.len() < 2 || config.owner(1) == 0, "{config:?}");
                continue;
            }
            let file = int8(&config, form.clone());
            let most = Quantization { exceptions: Exceptions::NONE, ..form.clone() };
            let expected = bits(Session::new(&file).logits(&batch).unwrap());
            assert_ne!(bits(Session::new(&int8(&config, most)).logits(&batch).unwrap()), expected);
            for kernels in Kernels::available() {
                assert_eq!(bits(Session::with(&file, kernels, 1).logits(&batch).unwrap()), expected);
                let cpu = Cpu::new(kernels);
                let mut params = ParamStore::new(&cpu, &specs, values).unwrap();
                params.round(Some(form.rounding()));
                let rounded = logits(&cpu, &model, &params, &batch).unwrap();
                assert_eq!(bits(&rounded), expected, "{form:?} on {} {config:?}", kernels.isa());
            }
        }
    }
}

/// What a file says of itself is what its tensors are.
#[test]
fn a_file_names_its_exceptions() {
    let config = configs().swap_remove(0);
    let exceptions = Exceptions::new(vec![
        ("*q_lin.weight".into(), Form::Int4),
        // As most are: no exception.
        ("pre_classifier.weight".into(), Form::Int8),
        ("*word_embeddings.weight".into(), Form::Bf16),
    ]);
    let model = int8(&config, Quantization { exceptions, ..Quantization::INT8 });
    let named = &model.metadata().unwrap().settings.exceptions;
    let held: Vec<(&str, StoredAs)> = model
        .parameters()
        .filter(|held| {
            matches!(held.spec.role, Role::Weight | Role::Embedding) && held.form != StoredAs::Int8
        })
        .map(|held| (held.spec.name.as_str(), held.form))
        .collect();
    assert_eq!(held.len(), named.len());
    for (name, form) in held {
        let expected = if form == StoredAs::Int4 { "int4" } else { "bf16" };
        assert_eq!(named[name], expected, "{name}");
    }
    assert_eq!(named.values().filter(|form| *form == "int4").count(), config.layers.len());
}

#[test]
fn exceptions_that_cannot_be_meant_are_refused() {
    let config = configs().swap_remove(0);
    let refused = |most: Quantization, name: &str, form| {
        let quantization = Quantization { exceptions: Exceptions::new(vec![(name.into(), form)]), ..most };
        let made = quantize(Path::new("x"), &config, values, quantization, &Extras::default());
        made.err().expect("must be refused").to_string()
    };
    let none = refused(Quantization::INT8, "*q_linn.weight", Form::Int4);
    assert!(none.contains("quantize.exceptions") && none.contains("no matrix and no table"), "{none}");
    let bias = refused(Quantization::INT8, "*q_lin.bias", Form::Int4);
    assert!(bias.contains("no matrix and no table"), "{bias}");
    let mixed = refused(Quantization::INT8, "classifier.weight", Form::F32);
    assert!(mixed.contains("classifier.weight would be f32, and other matrices are int8"), "{mixed}");
    let mixed = refused(Quantization::NONE, "*classifier*", Form::Int4);
    assert!(mixed.contains("would be int4, and other matrices are f32"), "{mixed}");
}
