//! A tiny network and examples for it, made of numbers that depend on names alone.

use limbeck::Batch;
use limbeck::backend::Cpu;
use limbeck::compress::Gradual;
use limbeck::models::config::{Architecture, DropoutConfig, Pooling, Sizes};
use limbeck::models::{Classifier, ModelConfig};
use limbeck::nn::{ParamId, ParamSpec, Role};
use limbeck::ops::dropout::DropoutSeed;
use limbeck::params::ParamStore;
use limbeck::tensor::Tensor;
use limbeck::train::learner::Watch;
use limbeck::train::{AdamW, AdamWSettings, Callback, Event, Examples, Learner};
use limbeck_kernels::Kernels;
use limbeck_kernels::random::{SplitMix64, mix};

pub const HEADS: usize = 4;
pub const HEAD_SIZE: usize = 6;
pub const UNITS: usize = 20;
pub const LAYERS: usize = 3;

/// Numbers in [-1, 1) that depend on the name alone.
pub fn random(name: &str, len: usize) -> Vec<f32> {
    let mut random = SplitMix64::new(name.bytes().fold(0, |key, byte| mix(key ^ u64::from(byte))));
    (0..len).map(|_| random.signed_unit()).collect()
}

pub fn config(architecture: Architecture, pooling: Pooling, dropout: f32) -> ModelConfig {
    ModelConfig {
        architecture,
        token_types: if architecture == Architecture::Bert { 2 } else { 0 },
        dropout: DropoutConfig { hidden: dropout, attention: dropout, classifier: dropout },
        pooling,
        ..ModelConfig::distilbert(
            Sizes {
                vocab: 50,
                positions: 64,
                hidden: HEADS * HEAD_SIZE,
                heads: HEADS,
                intermediate: UNITS,
                layers: LAYERS,
            },
            ["a", "b", "c"],
        )
    }
}

/// A DistilBERT without dropout.
pub fn plain() -> ModelConfig {
    config(Architecture::DistilBert, Pooling::FirstToken, 0.0)
}

fn values(spec: &ParamSpec) -> Vec<f32> {
    let (centre, spread) = match spec.role {
        Role::Weight => (0.0, 1.7 / (spec.cols.max(1) as f32).sqrt()),
        Role::Gamma => (1.0, 0.3),
        Role::Embedding | Role::Bias | Role::Beta => (0.0, 0.5),
    };
    random(&spec.name, spec.len()).into_iter().map(|x| centre + spread * x).collect()
}

pub fn learner(config: &ModelConfig) -> Learner<Cpu> {
    learner_on(Cpu::new(Kernels::select().unwrap()), config)
}

pub fn learner_on(backend: Cpu, config: &ModelConfig) -> Learner<Cpu> {
    let (model, specs) = Classifier::new(config);
    let params = ParamStore::new(&backend, &specs, |spec| Ok(values(spec))).unwrap();
    let settings = AdamWSettings {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        decay_all: false,
        clip: 1.0,
    };
    let optimizer = AdamW::new(&backend, &params, settings).unwrap();
    Learner { backend, model, params, optimizer, feature_teacher: None }
}

/// The text with this number: 1 to 9 tokens.
pub fn text(sample: u64) -> Vec<u32> {
    let length = 1 + (sample * 5 % 9) as usize;
    random(&format!("text {sample}"), length).into_iter().map(|x| ((x + 1.0) * 25.0) as u32).collect()
}

pub fn examples(samples: impl IntoIterator<Item = u64>) -> Examples {
    let (mut batch, mut labels) = (Batch::new(), Vec::new());
    for sample in samples {
        batch.push(&text(sample), sample);
        labels.push((sample % 3) as usize);
    }
    Examples { batch, labels, teacher: None }
}

/// A parameter by its name.
pub fn id(learner: &Learner<Cpu>, name: &str) -> ParamId {
    learner.params.iter().find(|(_, param)| param.spec.name == name).expect("a parameter of this name").0
}

pub fn download(learner: &Learner<Cpu>, tensor: &Tensor<Cpu>) -> Vec<f32> {
    tensor.download(&learner.backend).unwrap()
}

/// Value and both moments of a parameter.
pub fn states(learner: &Learner<Cpu>, id: ParamId) -> [Vec<f32>; 3] {
    let [m, v] = &learner.optimizer.moments()[id.index()];
    [learner.params.value(id), m, v].map(|tensor| download(learner, tensor))
}

/// Replaces a parameter's values by what `change` makes of them: it is given row, column and value.
pub fn change(learner: &mut Learner<Cpu>, id: ParamId, change: impl Fn(usize, usize, f32) -> f32) {
    let (backend, shape) = (learner.backend.clone(), learner.params.value(id).shape());
    let mut values = download(learner, learner.params.value(id));
    let cols = shape.cols.max(1);
    values.iter_mut().enumerate().for_each(|(i, value)| *value = change(i / cols, i % cols, *value));
    *learner.params.value_mut(id).0 = Tensor::upload(&backend, &values, shape).unwrap();
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Masked elements are zero in value and in both moments, a step or more after they were masked.
pub fn assert_masks(learner: &Learner<Cpu>) {
    learner.params.assert_masks(&learner.backend).unwrap();
    for (id, param) in learner.params.iter() {
        let Some(mask) = &param.mask else { continue };
        for state in states(learner, id) {
            let leak = state.iter().zip(&*mask.0).position(|(value, kept)| *kept == 0 && *value != 0.0);
            assert_eq!(leak, None, "{}: a masked element is not zero", param.spec.name);
        }
    }
}

/// Takes step `step` (from 0) beside `gradual` in the order that the training loop has; says what it did to the network.
pub fn step_beside(learner: &mut Learner<Cpu>, gradual: &mut Gradual, step: u64, rate: f64) -> Option<Event> {
    let (examples, noise) = (examples(step * 4..step * 4 + 4), Some(DropoutSeed { seed: 2, step }));
    Callback::<Cpu>::before(gradual, step, learner).unwrap();
    if Callback::<Cpu>::watches(gradual, step) {
        let watch: &mut Watch<'_, Cpu> =
            &mut |seen, batch, taps, grads| gradual.watch(seen, batch, taps, grads);
        learner.step(&examples, noise, rate, Some(watch)).unwrap();
    } else {
        learner.step(&examples, noise, rate, None).unwrap();
    }
    gradual.after(step, learner).unwrap()
}
