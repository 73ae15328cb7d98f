//! Gradients of a whole network against central differences of its loss in f64.

use crate::network::{download, random};
use crate::oracle::Oracle;
use limbeck::backend::Cpu;
use limbeck::train::learner::gradients;
use limbeck::train::{Examples, Learner};

/// The mean cross-entropy of examples whose tokens have no types, by the formulas.
fn loss(oracle: &Oracle, examples: &Examples) -> f64 {
    let of_text = |text: usize| {
        let logits = oracle.logits(&examples.batch.ids[examples.batch.text(text)]);
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        sum.ln() - logits[examples.labels[text]]
    };
    (0..examples.labels.len()).map(of_text).sum::<f64>() / examples.labels.len() as f64
}

/// Compares the gradient of each parameter that is `asked` for, along two random directions, with the slope of the loss there.
/// Biases of keys are left out: what they add to all scores of a query changes nothing. Returns how many were compared.
pub fn compare_with_gate_gradients(
    learner: &Learner<Cpu>,
    examples: &Examples,
    asked: impl Fn(&str) -> bool,
) -> usize {
    let Learner { backend, model, params, .. } = learner;
    let (_, grads) = gradients(backend, model, params, examples, None, None).unwrap();
    let is_key_bias = |name: &str| crate::common::query_of_key_bias(name).is_some();
    let mut compared = 0;
    for (id, param) in params.iter() {
        let name = &param.spec.name;
        if !asked(name) || is_key_bias(name) {
            continue;
        }
        let gradient = download(learner, grads.param(id).expect("it matters"));
        let size = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(size > 1e-6, "{name}: a gradient that says something");
        for turn in 0..2 {
            let direction = random(&format!("{turn} along {name}"), gradient.len());
            let slope: f64 =
                gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let at = |h: f64| {
                let mut next = params.iter();
                let values = |_: &_| Ok(download(learner, next.next().unwrap().1.value()));
                let oracle = Oracle::new(&model.config, values, false);
                loss(&oracle.shifted(id, |i| h * f64::from(direction[i])), examples)
            };
            let h = 1e-5;
            let expected = (at(h) - at(-h)) / (2.0 * h);
            let error = (slope - expected).abs() / size;
            // Of f32 gradients, and of differences that are right to h² of the third derivative.
            assert!(error <= 1e-4, "{name}: {slope} for {expected}, {error:.1e} of its size");
        }
        compared += 1;
    }
    compared
}
