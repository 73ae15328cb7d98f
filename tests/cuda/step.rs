//! Whole training steps of a small network, the same texts, dropout and start on both devices.

use crate::common::say;
use crate::device::*;
use limbeck::backend::Cuda;
use limbeck::backend::cuda::{GemmBackend, Storage};
use limbeck::models::ModelConfig;
use limbeck::models::config::Sizes;
use limbeck::ops::Backend;
use limbeck::ops::dropout::DropoutSeed;
use limbeck::ops::loss::Distillation;
use limbeck::params::Mask;
use limbeck::stages::artifact;
use limbeck::stages::recipe::tables::Train;
use limbeck::train::{Examples, FeatureDistillation, Learner, Step, Terms};
use limbeck_emulation::Order;

const STEPS: u64 = 3;

pub fn config() -> ModelConfig {
    let sizes = Sizes { vocab: 50, positions: 80, hidden: 32, heads: 4, intermediate: 72, layers: 2 };
    ModelConfig::distilbert(sizes, ["a", "b", "c"].map(str::to_owned))
}

fn examples(step: u64) -> Examples {
    let lengths: Vec<usize> = (0..9).map(|text| 1 + (text * 13 + step as usize * 7) % 60).collect();
    let batch = batch(&lengths);
    let labels: Vec<usize> =
        (0..lengths.len()).map(|text| (batch.ids[batch.offsets[text]] % 3) as usize).collect();
    let teacher = random(step, labels.len() * 3, Storage::F32);
    Examples { batch, labels, teacher: Some((teacher, Distillation { temperature: 2.0, alpha: 0.5 })) }
}

/// A new network, a fifth of whose first feed-forward matrices is masked.
fn masked<B: Backend>(device: &B) -> Learner<B> {
    let mut learner: Learner<B> = artifact::learner(device, &config(), None, 3, &Train::default()).unwrap();
    let masked: Vec<_> = learner
        .params
        .iter()
        .filter(|(_, param)| param.spec.name.contains("lin1.weight"))
        .map(|(id, _)| id)
        .collect();
    for id in masked {
        let len = learner.params.value(id).shape().len();
        let mask = Mask((0..len).map(|i| u8::from(i % 5 > 0)).collect());
        learner.params.set_mask(device, id, mask).unwrap();
    }
    learner
}

/// Trains on `device`, and gives what each step said and all parameters.
fn train<B: Backend>(device: &B, teaches: bool) -> (Vec<Step>, Vec<(String, Vec<f32>)>) {
    let mut learner = masked(device);
    if teaches {
        let teacher: Learner<B> = artifact::learner(device, &config(), None, 4, &Train::default()).unwrap();
        let weights = Terms { hidden: 0.3, cosine: 0.2, attention: 0.4, relations: 0.5 };
        let features = FeatureDistillation {
            weights,
            layers: vec![[0, 0], [1, 1]],
            relation_layers: [1, 1],
            relation_heads: 4,
        };
        learner.distill_features((teacher.model, teacher.params), features, None, 5).unwrap();
    }
    let steps = (0..STEPS)
        .map(|step| learner.step(&examples(step), Some(DropoutSeed { seed: 7, step }), 1e-3, None).unwrap())
        .collect();
    learner.assert_masks().unwrap();
    let values = learner
        .params
        .iter()
        .map(|(_, param)| (param.spec.name.clone(), param.value().download(device).unwrap()));
    (steps, values.collect())
}

fn compare(cuda: &Cuda, what: &str, teaches: bool) {
    let (found, weights) = train(cuda, teaches);
    let (expected, on_cpu) = train(&cpu(), teaches);
    // Of the loss, which is a mean over texts.
    let bound = match cuda.storage() {
        Storage::F32 => 1e-5,
        storage => 4.0 * rounding(storage),
    };
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let pairs = [(found.loss, expected.loss), (found.gradient_norm, expected.gradient_norm)];
        for (found, expected) in pairs {
            let difference = (found - expected).abs() / expected.abs();
            assert!(difference <= bound * (1.0 + step as f64), "{what}, step {step}: {found} {expected}");
        }
    }
    let begun: Vec<Vec<f32>> =
        masked(&cpu()).params.iter().map(|(_, param)| param.value().download(&cpu()).unwrap()).collect();
    moved_alike(cuda.storage(), what, &begun, [&weights, &on_cpu]);
}

/// Fails unless each parameter has moved from where it `begun` as the `expected` one has: the distance of the two is a small part
/// of the way. AdamW's first steps are of the size of the rate whatever the gradient is, so that in few bits, where rounding
/// decides the sign of small gradients, single weights may be as far apart as they moved, but not all of them.
pub fn moved_alike(
    storage: Storage,
    what: &str,
    begun: &[Vec<f32>],
    [found, expected]: [&[(String, Vec<f32>)]; 2],
) {
    let most = match storage {
        Storage::F32 => 0.02,
        _ => 0.3,
    };
    for ((begun, (name, found)), (_, expected)) in begun.iter().zip(found).zip(expected) {
        // Key biases have no gradient but rounding, which AdamW makes as large as any.
        if name.contains("k_lin.bias") {
            continue;
        }
        let length = |from: &[f32]| {
            let squares = from.iter().zip(expected).map(|(from, to)| f64::from(to - from).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let (apart, way) = (length(found), length(begun));
        assert!(way > 0.0, "{what}: {name} has not moved");
        println!("{what}, {name}: {:.4} of its way apart", apart / way);
        assert!(apart <= most * way, "{what}, {name}: {apart:.2e} apart after a way of {way:.2e}");
    }
}

#[test]
fn training_is_the_cpus() {
    in_orders(&Storage::ALL, &[Order::Shuffled(5)], |cuda, what| compare(cuda, what, false));
}

#[test]
fn training_with_a_teachers_inside_is_the_cpus() {
    in_orders(&Storage::ALL, &[Order::Descending], |cuda, what| compare(cuda, what, true));
}

#[test]
fn training_by_other_products_is_the_cpus() {
    in_orders(&Storage::ALL, &[Order::Ascending], |cuda, what| {
        let others = GemmBackend::ALL.into_iter().filter(|products| *products != GemmBackend::Own);
        for products in others {
            if cuda.gemm_backends().unwrap().contains(&products) {
                let cuda = cuda.with_gemm_backend(Some(products)).unwrap();
                compare(&cuda, &format!("{what}, {products}"), false);
            } else {
                assert!(!in_emulation(), "{what}: it has {products}");
                say(&format!("SKIPPED: {products} makes no products here"));
            }
        }
    });
}
