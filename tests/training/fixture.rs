//! Notes of the demo, a tiny network, and what a training of it is told.

use limbeck::backend::Cpu;
use limbeck::checkpoint::fresh;
use limbeck::data::{TokenSet, demo};
use limbeck::models::Classifier;
use limbeck::models::config::{DropoutConfig, LayerConfig, ModelConfig, Sizes};
use limbeck::nn::{ParamSpec, Role};
use limbeck::params::ParamStore;
use limbeck::tokenizer::{Rules, Tokenizer};
use limbeck::train::{AdamW, AdamWSettings, Learner, Progress, Schedule, Training};
use limbeck_kernels::Kernels;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Sixty notes of the demo, as ids, and the size of their vocabulary.
pub fn notes() -> (TokenSet, usize) {
    let corpus = demo::generate(3, 60, 4);
    let tokenizer = Tokenizer::from_pieces(&corpus.pieces, Rules::bert(true)).unwrap();
    (TokenSet::from_examples(&corpus.train, &corpus.labels, &tokenizer, 16), tokenizer.vocab())
}

pub fn learner(texts: &TokenSet, vocab: usize) -> Learner<Cpu> {
    let config = ModelConfig {
        layers: vec![LayerConfig { heads: vec![0, 1], intermediate: 12 }],
        dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.1 },
        ..ModelConfig::distilbert(
            Sizes { vocab, positions: 16, hidden: 8, heads: 2, intermediate: 12, layers: 0 },
            texts.labels(),
        )
    };
    learner_of(&config, 1.0)
}

/// A learner with a new network of this configuration, its matrices so many times as large as usual.
pub fn learner_of(config: &ModelConfig, scale: f32) -> Learner<Cpu> {
    let backend = Cpu::new(Kernels::select().unwrap());
    let (model, specs) = Classifier::new(config);
    let value = |spec: &ParamSpec| {
        let scale = if matches!(spec.role, Role::Weight | Role::Embedding) { scale } else { 1.0 };
        Ok(fresh(spec, 5).into_iter().map(|x| scale * x).collect())
    };
    let params = ParamStore::new(&backend, &specs, value).unwrap();
    let settings =
        AdamWSettings { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decay_all: false, clip: 1.0 };
    let optimizer = AdamW::new(&backend, &params, settings).unwrap();
    Learner { backend, model, params, optimizer, feature_teacher: None }
}

/// Twelve steps over forty notes, twenty held out and looked at every third step.
pub fn training<'a>(
    folder: &Path,
    texts: &'a TokenSet,
    progress: &'a dyn Progress,
    stop: &'a AtomicBool,
) -> Training<'a> {
    Training {
        stage: "train",
        texts,
        parent: String::new(),
        rows: 0..40,
        held_out: 40..60,
        teacher: None,
        batch: 8,
        schedule: Schedule { learning_rate: 0.02, warmup: 0, steps: 12 },
        evaluate_every: 3,
        checkpoint_every: 0,
        patience: 0,
        keep_best: true,
        rounding: None,
        seed: 9,
        state: folder.join("state"),
        metrics: folder.join("metrics.jsonl"),
        ranks: &limbeck::ranks::SingleProcess,
        resume: true,
        progress,
        stop,
    }
}
