//! A narrower network is the network of that width with those rows and columns: against the formulas in f64. Its
//! features are scored by slopes of the loss.

use crate::common::{distance, magnitude};
use crate::network::{
    HEADS, UNITS, bits, change, config, download, examples, id, learner, random, states, text,
};
use crate::oracle::Oracle;
use limbeck::Batch;
use limbeck::backend::Cpu;
use limbeck::compress::delete;
use limbeck::compress::embedding_factors::factorize;
use limbeck::compress::width::narrow;
use limbeck::compress::{Keep, WidthScores};
use limbeck::infer::{Model, Session};
use limbeck::models::ModelConfig;
use limbeck::models::config::{Architecture, Pooling};
use limbeck::nn::ParamId;
use limbeck::ops::loss;
use limbeck::params::Mask;
use limbeck::train::Learner;

const FAMILIES: [(Architecture, Pooling); 4] = [
    (Architecture::DistilBert, Pooling::FirstToken),
    (Architecture::Bert, Pooling::Pooler),
    (Architecture::Bert, Pooling::FirstToken),
    (Architecture::Bert, Pooling::Mean),
];

/// Ten features of twenty-four, and as many outputs of the dense layer: fewer than four heads of six are wide.
const HIDDEN: [usize; 10] = [0, 1, 4, 5, 9, 12, 13, 17, 20, 23];
const DENSE: [usize; 10] = [2, 3, 4, 6, 7, 11, 15, 16, 19, 22];

/// Scores of which the features to be kept have the highest.
fn wanted() -> WidthScores {
    let scores = |kept: &[usize]| (0..24).map(|i| f64::from(u8::from(kept.contains(&i)))).collect();
    WidthScores { hidden: scores(&HIDDEN), dense: scores(&DENSE) }
}

/// What stays of the rows and columns of a parameter, by its name; none where all do.
fn sides(name: &str, factored: bool) -> [Option<&'static [usize]>; 2] {
    let (hidden, dense): (Option<&[usize]>, Option<&[usize]>) = (Some(&HIDDEN), Some(&DENSE));
    let is = |parts: &[&str]| parts.iter().any(|part| name.ends_with(part));
    let norm = name.contains("LayerNorm") || name.contains("layer_norm");
    if norm || is(&["out_lin.bias", "lin2.bias", "attention.output.dense.bias", "project.bias"]) {
        return [None, hidden];
    }
    if name == "classifier.weight" {
        return [None, dense];
    }
    if is(&["pre_classifier.weight", "pooler.dense.weight"]) {
        return [dense, hidden];
    }
    if is(&["pre_classifier.bias", "pooler.dense.bias"]) {
        return [None, dense];
    }
    if is(&["q_lin.weight", "k_lin.weight", "v_lin.weight", "lin1.weight", "intermediate.dense.weight"])
        || is(&["query.weight", "key.weight", "value.weight", "position_embeddings.weight"])
        || is(&["token_type_embeddings.weight"])
        || (name.ends_with("word_embeddings.weight") && !factored)
    {
        return [None, hidden];
    }
    if is(&["out_lin.weight", "lin2.weight", "output.dense.weight", "project.weight"]) {
        return [hidden, None];
    }
    if name.ends_with("output.dense.bias") {
        return [None, hidden];
    }
    [None, None]
}

/// The rows and columns of a parameter that stay; without a dense layer the classifier reads hidden features.
fn kept(config: &ModelConfig, name: &str, cols: usize, values: &[f32]) -> Vec<f32> {
    let has_dense = config.architecture == Architecture::DistilBert || config.pooling == Pooling::Pooler;
    let [rows, mut across] = sides(name, config.embedding_size.is_some());
    if name == "classifier.weight" && !has_dense {
        across = Some(&HIDDEN);
    }
    let stays = |side: Option<&[usize]>, i: usize| side.is_none_or(|kept| kept.contains(&i));
    let places = (0..values.len()).filter(|i| stays(rows, i / cols) && stays(across, i % cols));
    places.map(|i| values[i]).collect()
}

/// The narrow network from the formulas, made of the whole one's values by their names.
fn oracle(whole: &Learner<Cpu>) -> Oracle {
    let config = ModelConfig { hidden: HIDDEN.len(), ..whole.model.config.clone() };
    let values = |spec: &limbeck::nn::ParamSpec| {
        let value = whole.params.value(id(whole, &spec.name));
        Ok(kept(&config, &spec.name, value.cols(), &download(whole, value)))
    };
    Oracle::new(&config, values, false)
}

#[test]
fn a_narrow_network_computes_what_the_formulas_say_of_that_width() {
    let texts: Vec<Vec<u32>> = (0..9).map(text).collect();
    let batch = Batch::from_texts(texts.iter().map(Vec::as_slice));
    for (architecture, pooling) in FAMILIES {
        for factored in [false, true] {
            let mut learner = learner(&config(architecture, pooling, 0.0));
            if factored {
                factorize(&mut learner, 7).unwrap();
            }
            let whole = learner.logits(&batch).unwrap();
            let oracle = oracle(&learner);
            let expected: Vec<f32> =
                texts.iter().flat_map(|ids| oracle.logits(ids)).map(|logit| logit as f32).collect();
            narrow(&mut learner, &wanted(), HIDDEN.len()).unwrap();
            let config = &learner.model.config;
            assert_eq!((config.hidden, config.head_size, config.original_heads), (10, 6, HEADS));
            config.validate().unwrap();
            let found = learner.logits(&batch).unwrap();
            let error = distance(&found, &expected);
            assert!(error <= 2e-5, "{architecture:?} {pooling:?}: {error:.1e}");
            assert!(distance(&found, &whole) > 1e-2, "features mattered");
            // So does the session.
            let mut ids = 0..;
            let values = |_: &_| Ok(download(&learner, learner.params.value(ParamId(ids.next().unwrap()))));
            let model = Model::from_values(config, values).unwrap();
            let error = distance(Session::new(&model).logits(&batch).unwrap(), &expected);
            assert!(error <= 2e-5, "the session, {architecture:?} {pooling:?}: {error:.1e}");
        }
    }
}

#[test]
fn heads_units_and_features_go_in_any_order() {
    let narrowed = |first: bool| {
        let mut learner = learner(&config(Architecture::DistilBert, Pooling::FirstToken, 0.0));
        if first {
            narrow(&mut learner, &wanted(), HIDDEN.len()).unwrap();
        }
        let keep = Keep {
            heads: vec![vec![0, 2, 3], vec![], vec![1]],
            units: vec![vec![], vec![0, 3, 4, 19], (0..UNITS).collect()],
            ..Keep::all(&learner.model.config)
        };
        delete(&mut learner, &keep).unwrap();
        if !first {
            narrow(&mut learner, &wanted(), HIDDEN.len()).unwrap();
        }
        learner
    };
    let (first, last) = (narrowed(true), narrowed(false));
    assert_eq!(first.model.config, last.model.config);
    for (id, param) in first.params.iter() {
        let [first, last] = [&first, &last].map(|learner| bits(&download(learner, learner.params.value(id))));
        assert!(first == last, "{}", param.spec.name);
    }
}

#[test]
fn moments_and_masks_shrink_on_both_sides_and_the_network_learns() {
    let mut learner = learner(&config(Architecture::DistilBert, Pooling::FirstToken, 0.0));
    let masked = ["pre_classifier.weight", "distilbert.transformer.layer.1.ffn.lin2.weight"].map(|name| {
        let id = id(&learner, name);
        let len = learner.params.value(id).shape().len();
        let mask = random(name, len).iter().map(|x| u8::from(*x > 0.0)).collect();
        learner.params.set_mask(&learner.backend, id, Mask(mask)).unwrap();
        id
    });
    (0..3).for_each(|step| _ = learner.step(&examples(step * 4..step * 4 + 4), None, 1e-2, None).unwrap());
    let cols: Vec<usize> = learner.params.iter().map(|(_, param)| param.value().cols()).collect();
    let before: Vec<_> = learner.params.iter().map(|(id, _)| states(&learner, id)).collect();
    let masks = masked.map(|id| learner.params.get(id).mask.clone().unwrap());
    narrow(&mut learner, &wanted(), HIDDEN.len()).unwrap();
    let config = &learner.model.config;
    for (id, param) in learner.params.iter() {
        let name = &param.spec.name;
        for (found, before) in states(&learner, id).iter().zip(&before[id.index()]) {
            assert_eq!(*found, kept(config, name, cols[id.index()], before), "{name}");
            assert_eq!(found.len(), param.spec.len(), "{name}: its declared size");
        }
    }
    for (id, mask) in masked.into_iter().zip(masks) {
        let param = learner.params.get(id);
        let mask: Vec<f32> = mask.0.iter().map(|kept| f32::from(*kept)).collect();
        let expected = kept(config, &param.spec.name, cols[id.index()], &mask);
        let found = param.mask.as_ref().unwrap();
        assert!(found.0.iter().map(|kept| f32::from(*kept)).eq(expected), "{}", param.spec.name);
    }
    let loss = |learner: &mut Learner<Cpu>| learner.step(&examples(0..6), None, 1e-2, None).unwrap().loss;
    let first = loss(&mut learner);
    let last = (0..40).map(|_| loss(&mut learner)).last().unwrap();
    assert!(last < 0.5 * first, "{first} {last}");
    crate::network::assert_masks(&learner);
}

/// The loss of one text with a gate on a feature behind every norm, or on an output of the dense layer.
fn gated(config: &ModelConfig, sample: u64, feature: usize, dense: bool, gate: f32) -> f64 {
    let mut learner = learner(config);
    let ids: Vec<ParamId> = if dense {
        vec![learner.model.head.classifier.weight]
    } else {
        let own = learner.model.config.own_layers().map(|layer| &learner.model.layers[layer]);
        let norms = own.flat_map(|layer| [&layer.attention_norm, &layer.output_norm]);
        let norms = norms.chain([&learner.model.embeddings.norm]);
        norms.flat_map(|norm| [norm.gamma, norm.beta]).collect()
    };
    for id in ids {
        change(&mut learner, id, |_, col, value| if col == feature { gate * value } else { value });
    }
    let examples = examples([sample]);
    loss::cross_entropy(&learner.logits(&examples.batch).unwrap(), &examples.labels).cross_entropy
}

#[test]
fn gradient_scores_are_squares_of_each_text_s_slopes() {
    let samples = [3, 5, 11];
    // DistilBERT's head has a ReLU, whose kinks a difference may straddle; BERT is smooth.
    for (pooling, shared) in
        [(Pooling::Pooler, vec![]), (Pooling::Mean, vec![]), (Pooling::Pooler, vec![0, 0, 2])]
    {
        let config = ModelConfig { shared, ..config(Architecture::Bert, pooling, 0.0) };
        let learner = learner(&config);
        let mut found = WidthScores::zeros(config.hidden);
        for sample in samples {
            found.add_gradients(&learner, &examples([sample])).unwrap();
        }
        for (dense, found) in [(false, &found.hidden), (true, &found.dense)] {
            if dense && pooling != Pooling::Pooler {
                assert!(found.iter().all(|score| *score == 0.0), "there is no such layer");
                continue;
            }
            let largest = magnitude(found);
            for feature in (0..config.hidden).step_by(5) {
                // The five-point rule: its error is of the order of h⁴, and rounding's is 1e-7 / h.
                let h = 0.02_f32;
                let slope = |sample: u64| {
                    let at = |steps: f32| gated(&config, sample, feature, dense, 1.0 + steps * h);
                    (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(h))
                };
                let expected: f64 = samples.iter().map(|&sample| slope(sample).powi(2)).sum();
                let error = (found[feature] - expected).abs() / largest;
                assert!(error <= 3e-4, "{pooling:?} {feature}: {} for {expected}", found[feature]);
            }
        }
    }
}

#[test]
fn norms_are_shares_of_every_matrix_and_what_scores_least_goes() {
    for (family, shared) in [(0, vec![]), (3, vec![]), (0, vec![0, 0, 2])] {
        let (architecture, pooling) = FAMILIES[family];
        let mut learner = learner(&ModelConfig { shared, ..config(architecture, pooling, 0.0) });
        let scores = WidthScores::norms(&learner).unwrap();
        // What one feature has is what is lost with it: of each matrix the share that is not kept beside the others.
        let mut expected = vec![0.0f64; 24];
        let mut dense = vec![0.0f64; 24];
        for (id, param) in learner.params.iter() {
            let (name, shape) = (&param.spec.name, param.value().shape());
            if !name.ends_with("weight") || name.contains("LayerNorm") || name.contains("layer_norm") {
                continue;
            }
            let values = download(&learner, learner.params.value(id));
            let all: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
            let [rows, mut across] = sides(name, false);
            if name == "classifier.weight" && architecture == Architecture::Bert {
                across = Some(&HIDDEN);
            }
            for (i, value) in values.iter().enumerate() {
                let share = f64::from(*value).powi(2) / all;
                for (side, place) in [(rows, i / shape.cols), (across, i % shape.cols)] {
                    match side {
                        Some(side) if *side == HIDDEN => expected[place] += share,
                        Some(_) => dense[place] += share,
                        None => {}
                    }
                }
            }
        }
        assert!(distance(&scores.hidden, &expected) <= 1e-12, "{architecture:?}");
        assert!(dense == scores.dense || distance(&scores.dense, &dense) <= 1e-12);
        let gamma = learner.model.embeddings.norm.gamma;
        let before = download(&learner, learner.params.value(gamma));
        narrow(&mut learner, &scores, 7).unwrap();
        let mut order: Vec<usize> = (0..24).collect();
        order.sort_by(|a, b| expected[*b].total_cmp(&expected[*a]));
        let mut best = order[..7].to_vec();
        best.sort_unstable();
        let expected: Vec<f32> = best.iter().map(|&i| before[i]).collect();
        assert_eq!(download(&learner, learner.params.value(gamma)), expected);
    }
    let random = |seed| WidthScores::random(24, seed);
    assert!(random(1) == random(1) && random(1) != random(2) && random(1).hidden != random(1).dense);
}
