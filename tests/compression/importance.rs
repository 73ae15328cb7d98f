//! Scores mean what they say: the loss's slope when an output is scaled, and attention's mean.

use crate::common::{distance, magnitude};
use crate::network::{HEAD_SIZE, HEADS, LAYERS, UNITS, change, config, examples, learner, plain};
use limbeck::backend::Cpu;
use limbeck::compress::{Importance, Scores, attention_scores};
use limbeck::models::ModelConfig;
use limbeck::models::config::{Architecture, Pooling};
use limbeck::ops::loss;
use limbeck::train::Learner;
use limbeck::train::learner::gradients;

/// Gradient scores of these texts, in one batch.
fn scores(learner: &Learner<Cpu>, samples: &[u64]) -> Scores {
    let mut scores = Scores::zeros(&learner.model.config);
    collect(&mut scores, learner, samples);
    scores
}

/// Adds what these texts say, in one batch.
fn collect(scores: &mut Scores, learner: &Learner<Cpu>, samples: &[u64]) {
    let Learner { backend, model, params, .. } = learner;
    gradients(
        backend,
        model,
        params,
        &examples(samples.iter().copied()),
        None,
        Some(&mut |_, batch, taps, grads| scores.add_gradients(backend, model, batch, taps, grads)),
    )
    .unwrap();
}

/// The loss of one text, in f64 from f32 logits, with columns `columns` of layer `layer`'s reading matrix
/// (of attention, or of the feed-forward part) scaled.
fn loss(config: &ModelConfig, sample: u64, layer: usize, part: Part, place: usize, scale: f32) -> f64 {
    let mut learner = learner(config);
    let layers = learner.model.layers.clone();
    let (weight, width) = match part {
        Part::Head => (layers[layer].attention.output.weight, HEAD_SIZE),
        Part::Unit => (layers[layer].contract.weight, 1),
    };
    change(&mut learner, weight, |_, col, value| if col / width == place { scale * value } else { value });
    let examples = examples([sample]);
    loss::cross_entropy(&learner.logits(&examples.batch).unwrap(), &examples.labels).cross_entropy
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Head,
    Unit,
}

#[test]
fn gradient_scores_are_slopes_of_each_text_s_loss() {
    let samples = [3, 5, 11];
    // DistilBERT's head has a ReLU, whose kinks a difference may straddle; BERT is smooth.
    for pooling in [Pooling::Pooler, Pooling::Mean] {
        let config = config(Architecture::Bert, pooling, 0.0);
        let found = scores(&learner(&config), &samples);
        for (part, found, places) in [(Part::Head, &found.heads, HEADS), (Part::Unit, &found.units, UNITS)] {
            let largest = magnitude(&found.concat());
            for (layer, found) in found.iter().enumerate() {
                for place in (0..places).step_by(places / HEADS) {
                    // The five-point rule: its error is of the order of h⁴, and rounding's is 1e-7 / h.
                    let h = 0.02_f32;
                    let slope = |sample: u64| {
                        let at = |steps: f32| loss(&config, sample, layer, part, place, 1.0 + steps * h);
                        (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(h))
                    };
                    let expected: f64 = samples.iter().map(|&sample| slope(sample).abs()).sum();
                    let error = (found[place] - expected).abs() / largest;
                    assert!(
                        error <= 1e-4,
                        "{pooling:?} {part:?} {place} of layer {layer}: {} for {expected}",
                        found[place]
                    );
                }
            }
        }
    }
}

/// Products of the slopes of each text's loss, summed over texts: what the Fisher scores are.
#[test]
fn fisher_scores_are_products_of_each_text_s_slopes() {
    let samples = [3, 5, 11];
    let config = config(Architecture::Bert, Pooling::Pooler, 0.0);
    let mut found = Scores::of(&config, [Importance::BlockFisher, Importance::Fisher]);
    collect(&mut found, &learner(&config), &samples);
    let h = 0.02_f32;
    let slope = |sample: u64, layer: usize, part: Part, place: usize| {
        let at = |steps: f32| loss(&config, sample, layer, part, place, 1.0 + steps * h);
        (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(h))
    };
    let largest = magnitude(&found.heads.concat());
    for layer in 0..LAYERS {
        let of_heads: Vec<Vec<f64>> = samples
            .iter()
            .map(|&sample| (0..HEADS).map(|head| slope(sample, layer, Part::Head, head)).collect())
            .collect();
        for (i, product) in found.products[layer].iter().enumerate() {
            let (a, b) = (i / HEADS, i % HEADS);
            let expected: f64 = of_heads.iter().map(|slopes| slopes[a] * slopes[b]).sum();
            let error = (product - expected).abs() / largest;
            assert!(error <= 2e-4, "heads {a} and {b} of layer {layer}: {product} for {expected}");
            if a == b {
                assert_eq!(found.heads[layer][a], *product, "the diagonal is the score");
            }
        }
        let largest = magnitude(&found.units.concat());
        for unit in (0..UNITS).step_by(5) {
            let expected: f64 =
                samples.iter().map(|&sample| slope(sample, layer, Part::Unit, unit).powi(2)).sum();
            let error = (found.units[layer][unit] - expected).abs() / largest;
            assert!(
                error <= 2e-4,
                "unit {unit} of layer {layer}: {} for {expected}",
                found.units[layer][unit]
            );
        }
    }
}

/// Heads go in the order that trying each of them, and computing the whole of `½·1ᵀF1` anew, finds.
#[test]
fn heads_go_one_by_one_beside_those_that_are_gone() {
    let config = plain();
    let mut scores = Scores::of(&config, [Importance::BlockFisher, Importance::Norm]);
    for (layer, products) in scores.products.iter_mut().enumerate() {
        // Slopes of ten texts.
        for text in 0..10 {
            let slopes = crate::network::random(&format!("slopes {layer} {text}"), HEADS);
            let product = |i: usize| f64::from(slopes[i / HEADS]) * f64::from(slopes[i % HEADS]);
            products.iter_mut().enumerate().for_each(|(i, sum)| *sum += product(i));
        }
    }
    let cost = |layer: usize, gone: &[usize]| -> f64 {
        let products = &scores.products[layer];
        0.5 * gone.iter().flat_map(|a| gone.iter().map(move |b| products[a * HEADS + b])).sum::<f64>()
    };
    let mut gone = vec![Vec::new(); LAYERS];
    let order = scores.order();
    for place in 0..LAYERS * HEADS {
        let left = (0..LAYERS * HEADS).map(|i| (i / HEADS, i % HEADS));
        let left = left.filter(|(layer, head)| !gone[*layer].contains(head));
        let grows = |&(layer, head): &(usize, usize)| {
            cost(layer, &[&gone[layer][..], &[head]].concat()) - cost(layer, &gone[layer])
        };
        let (layer, head) = left.min_by(|a, b| grows(a).total_cmp(&grows(b))).unwrap();
        assert_eq!(order[layer][head], place as f64, "{order:?}");
        gone[layer].push(head);
    }
    // Two heads that do the same: the first goes, the other stays longer than a head that matters a little more.
    for products in &mut scores.products {
        *products = vec![1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0, 9.0];
    }
    let order = &scores.order()[0];
    assert!(order[0] < order[2] && order[2] < order[1] && order[1] < order[3], "{order:?}");
}

#[test]
fn scores_do_not_depend_on_how_texts_are_cut_into_batches() {
    let (learner, samples) = (learner(&plain()), [0, 1, 2, 3, 4, 5, 6]);
    let (together, attention) = (scores(&learner, &samples), attention(&learner, &[&samples]));
    for cuts in [&[1, 6][..], &[3, 3, 1], &[1; 7]] {
        let (mut rest, mut batches) = (&samples[..], Vec::new());
        for &cut in cuts {
            let (batch, after) = rest.split_at(cut);
            (rest, batches) = (after, [batches, vec![batch]].concat());
        }
        let mut streamed = Scores::zeros(&learner.model.config);
        batches.iter().for_each(|batch| collect(&mut streamed, &learner, batch));
        let distance = distance(&streamed.flatten(), &together.flatten());
        assert!(distance <= 1e-5, "{cuts:?}: {distance:.1e}");
        assert_eq!(self::attention(&learner, &batches), attention, "{cuts:?}");
    }
}

/// Attention scores of heads, streamed over these batches.
fn attention(learner: &Learner<Cpu>, batches: &[&[u64]]) -> Vec<Vec<f64>> {
    let mut scores = Scores::zeros(&learner.model.config);
    for batch in batches {
        attention_scores(learner, &examples(batch.iter().copied()).batch, &mut scores).unwrap();
    }
    scores.heads
}

#[test]
fn mean_attention_says_nothing() {
    let learner = learner(&plain());
    let samples = [0, 1, 2, 3, 4, 5, 6];
    let batch = examples(samples).batch;
    let expected: f64 = (0..batch.texts()).map(|text| 1.0 / batch.text(text).len() as f64).sum();
    let found = attention(&learner, &[&samples]);
    assert_eq!((found.len(), found[0].len()), (LAYERS, HEADS));
    assert!(found.iter().flatten().all(|score| (score - expected).abs() <= 1e-6 * expected), "{found:?}");
}
