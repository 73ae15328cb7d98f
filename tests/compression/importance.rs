//! Scores mean what they say: the loss's slope when an output is scaled, and attention's mean.

use crate::common::{distance, magnitude};
use crate::network::{HEAD_SIZE, HEADS, LAYERS, UNITS, change, config, learner, lesson, plain};
use limbeck::backend::Cpu;
use limbeck::compress::{Scores, attention_scores};
use limbeck::models::ModelConfig;
use limbeck::models::config::{Architecture, Pooling};
use limbeck::ops::loss;
use limbeck::train::Learner;
use limbeck::train::learner::gradients;

/// Gradient scores of these texts, in one batch.
fn scores(learner: &Learner<Cpu>, samples: &[u64]) -> Scores {
    let Learner { backend, model, params, .. } = learner;
    let mut scores = Scores::zeros(&model.config);
    gradients(
        backend,
        model,
        params,
        &lesson(samples.iter().copied()),
        None,
        Some(&mut |_, batch, taps, grads| scores.add_gradients(backend, model, batch, taps, grads)),
    )
    .unwrap();
    scores
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
    let lesson = lesson([sample]);
    loss::cross_entropy(&learner.logits(&lesson.batch).unwrap(), &lesson.labels).cross_entropy
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
        batches.iter().for_each(|batch| streamed.add(&scores(&learner, batch), true));
        let distance = distance(&streamed.flatten(), &together.flatten());
        assert!(distance <= 1e-5, "{cuts:?}: {distance:.1e}");
        assert_eq!(self::attention(&learner, &batches), attention, "{cuts:?}");
    }
}

/// Attention scores of heads, streamed over these batches.
fn attention(learner: &Learner<Cpu>, batches: &[&[u64]]) -> Vec<Vec<f64>> {
    let mut scores = Scores::zeros(&learner.model.config);
    for batch in batches {
        attention_scores(learner, &lesson(batch.iter().copied()).batch, &mut scores).unwrap();
    }
    scores.heads
}

#[test]
fn mean_attention_says_nothing() {
    let learner = learner(&plain());
    let samples = [0, 1, 2, 3, 4, 5, 6];
    let batch = lesson(samples).batch;
    let expected: f64 = (0..batch.texts()).map(|text| 1.0 / batch.text(text).len() as f64).sum();
    let found = attention(&learner, &[&samples]);
    assert_eq!((found.len(), found[0].len()), (LAYERS, HEADS));
    assert!(found.iter().flatten().all(|score| (score - expected).abs() <= 1e-6 * expected), "{found:?}");
}
