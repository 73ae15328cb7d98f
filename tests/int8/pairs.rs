//! Pairs of sentences, decoupled layers, and first sentences that are computed once.

use super::{Architecture, FORMS, Pooling, bits, config, configs, int8, texts, values};
use super::{LayerConfig, ModelConfig, Quantization};
use crate::common::distance;
use crate::oracle::Oracle;
use limbeck::backend::Cpu;
use limbeck::infer::{Model, Session};
use limbeck::models::Classifier;
use limbeck::params::ParamStore;
use limbeck::train::learner::logits;
use limbeck::{Batch, Text};
use limbeck_kernels::Kernels;

/// Tokens of texts, and of their first sentences.
const PAIRS: [[usize; 2]; 9] =
    [[40, 11], [2, 1], [17, 16], [33, 1], [7, 7], [40, 39], [1, 1], [23, 12], [12, 11]];

fn ids() -> Vec<Vec<u32>> {
    texts(&PAIRS.map(|[tokens, _]| tokens), 97)
}

fn pairs(ids: &[Vec<u32>]) -> Vec<Text<'_>> {
    ids.iter().zip(PAIRS).map(|(ids, [_, first])| Text { ids, first }).collect()
}

/// Every configuration with every number of decoupled layers that it can have.
fn decoupled() -> impl Iterator<Item = ModelConfig> {
    configs().into_iter().flat_map(|config| {
        (0..config.layers.len()).map(move |decoupled| ModelConfig { decoupled, ..config.clone() })
    })
}

#[test]
fn decoupled_layers_are_dense_ones_through_a_mask() {
    let ids = ids();
    let (pairs, batch) = (pairs(&ids), Batch::from_texts(pairs(&ids)));
    let mut others = 0;
    for config in decoupled() {
        let model = Model::from_values(&config, values).unwrap();
        let found = Session::new(&model).logits(&batch).unwrap().to_vec();
        let oracle = Oracle::new(&config, values, false);
        let formulas: Vec<f32> =
            pairs.iter().flat_map(|pair| oracle.logits_of(*pair)).map(|logit| logit as f32).collect();
        let worst = distance(&found, &formulas);
        assert!(worst <= 2e-5, "{worst} with {config:?}");
        let whole = Model::from_values(&ModelConfig { decoupled: 0, ..config.clone() }, values).unwrap();
        let whole = Session::new(&whole).logits(&batch).unwrap().to_vec();
        // A layer without heads has nothing to be decoupled.
        let heads = config.layers[..config.decoupled].iter().any(|layer| !layer.heads.is_empty());
        assert_eq!(bits(&whole) != bits(&found), heads, "{config:?}");
        others += usize::from(heads);
        // Of sentences alone, decoupling changes no bit.
        let alone = Batch::from_texts(ids.iter().map(Vec::as_slice));
        let [coupled, decoupled] = [0, config.decoupled].map(|decoupled| {
            let config = ModelConfig { decoupled, ..config.clone() };
            bits(Session::new(&int8(&config, Quantization::INT8)).logits(&alone).unwrap())
        });
        assert_eq!(coupled, decoupled, "{config:?}");
    }
    assert!(others >= 10);
}

#[test]
fn training_computes_pairs_as_the_file_will() {
    let ids = ids();
    let batch = Batch::from_texts(pairs(&ids));
    for config in decoupled() {
        let (model, specs) = Classifier::new(&config);
        let file = int8(&config, Quantization::INT8);
        let expected = bits(Session::new(&file).logits(&batch).unwrap());
        for kernels in Kernels::available() {
            let cpu = Cpu::new(kernels);
            let mut params = ParamStore::new(&cpu, &specs, values).unwrap();
            params.round(Some(Quantization::INT8.rounding()));
            let rounded = logits(&cpu, &model, &params, &batch).unwrap();
            assert_eq!(bits(&rounded), expected, "on {} {config:?}", kernels.isa());
        }
    }
}

/// Many second sentences after one first one: with the first configuration, more than go through the network at once.
#[test]
fn a_prepared_sentence_changes_no_bit() {
    let all = texts(&[[40, 12, 33, 19].as_slice(); 6].concat(), 97);
    let first: Vec<u32> = texts(&[11], 89).remove(0);
    let pairs: Vec<Vec<u32>> =
        all.iter().map(|ids| first.iter().chain(&ids[first.len()..]).copied().collect()).collect();
    for (i, config) in decoupled().filter(|config| config.decoupled > 0).enumerate() {
        let (some, forms) = if i == 0 { (&pairs[..], &FORMS[1..2]) } else { (&pairs[..4], &FORMS[..]) };
        let batch = Batch::from_texts(some.iter().map(|ids| Text { ids, first: first.len() }));
        for form in forms {
            let model = int8(&config, form.clone());
            let expected = bits(Session::new(&model).logits(&batch).unwrap());
            for kernels in Kernels::available() {
                for threads in [1, 3] {
                    let mut session = Session::with(&model, kernels, threads);
                    let prepared = session.prepare(&first).unwrap();
                    let found = bits(session.logits_after(&prepared, &batch).unwrap());
                    // Floats are the same bits in any batch, but not on any CPU.
                    let same = match *form == Quantization::INT8 {
                        true => expected.clone(),
                        false => bits(session.logits(&batch).unwrap()),
                    };
                    assert_eq!(found, same, "{form:?} on {}, {threads} threads, {config:?}", kernels.isa());
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_prepared_is_refused() {
    let bert = config(Architecture::Bert, Pooling::Pooler, vec![LayerConfig::dense(4, 19); 2]);
    let model = |config: &ModelConfig| int8(config, Quantization::INT8);
    let (plain, apart) = (model(&bert), ModelConfig { decoupled: 1, ..bert.clone() });
    let refused = Session::new(&plain).prepare(&[1, 2, 3]).err().unwrap().to_string();
    assert!(refused.contains("no layer of the model is decoupled"), "{refused}");
    let (model, other) = (model(&apart), model(&apart));
    let mut session = Session::new(&model);
    let problem = session.prepare(&[1; 41]).err().unwrap().to_string();
    assert!(problem.contains("41 tokens"), "{problem}");
    let prepared = session.prepare(&[1, 2, 3]).unwrap();
    assert_eq!(prepared.ids(), [1, 2, 3]);
    let text = |ids: &'static [u32], first| Batch::from_texts([Text { ids, first }]);
    for (batch, words) in [
        (text(&[1, 2, 4, 5], 3), "text 0 of the batch is not the prepared"),
        (text(&[1, 2, 3, 5], 2), "text 0 of the batch is not the prepared"),
        (text(&[1, 2, 3], 3), "text 0 of the batch is not the prepared"),
        (Batch { token_types: vec![0; 4], ..text(&[1, 2, 3, 4], 3) }, "token types of its own"),
        (text(&[1, 2, 3, 97], 3), "token id 97"),
    ] {
        let problem = session.logits_after(&prepared, &batch).unwrap_err().to_string();
        assert!(problem.contains(words), "{problem}");
    }
    let good = text(&[1, 2, 3, 4], 3);
    let problem = Session::new(&other).logits_after(&prepared, &good).unwrap_err().to_string();
    assert!(problem.contains("prepared by another model"), "{problem}");
    assert!(session.logits_after(&prepared, &good).is_ok());
    assert!(session.logits_after(&prepared, &Batch::new()).unwrap().is_empty());
    // One token type is not enough for two sentences.
    let one = int8(&ModelConfig { token_types: 1, ..bert }, Quantization::INT8);
    let problem = Session::new(&one).logits(&good).unwrap_err().to_string();
    assert!(problem.contains("is a pair, and the model has one token type"), "{problem}");
}
