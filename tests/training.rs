//! The training loop: the best weights are kept, patience ends it, a rate that is too high is an error.

use limbeck::backend::Cpu;
use limbeck::checkpoint::fresh;
use limbeck::data::{TokenSet, demo};
use limbeck::models::Classifier;
use limbeck::models::config::{Activation, Architecture, DropoutConfig, LayerConfig, ModelConfig, Pooling};
use limbeck::params::ParamStore;
use limbeck::tokenizer::{Rules, Tokenizer};
use limbeck::train::evaluate::accuracy;
use limbeck::train::{AdamW, AdamWSettings, Learner, Schedule, Silent, Trained, Training, train};
use limbeck::{Error, Result};
use limbeck_kernels::Kernels;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Sixty notes of the demo, as ids.
fn notes() -> (TokenSet, usize) {
    let corpus = demo::generate(3, 60, 4);
    let tokenizer = Tokenizer::from_pieces(&corpus.pieces, Rules::bert(true)).unwrap();
    (TokenSet::from_examples(&corpus.train, &corpus.labels, &tokenizer, 16), tokenizer.vocab())
}

fn learner(texts: &TokenSet, vocab: usize) -> Learner<Cpu> {
    let config = ModelConfig {
        architecture: Architecture::DistilBert,
        vocab,
        positions: 16,
        token_types: 0,
        hidden: 8,
        head_size: 4,
        original_heads: 2,
        original_intermediate: 12,
        layers: vec![LayerConfig { heads: vec![0, 1], intermediate: 12 }],
        activation: Activation::Gelu,
        layer_norm_eps: 1e-12,
        dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.1 },
        pooling: Pooling::FirstToken,
        labels: texts.labels().to_vec(),
        masked: Vec::new(),
    };
    let backend = Cpu::new(Kernels::select().unwrap());
    let (model, specs) = Classifier::new(&config);
    let params = ParamStore::new(&backend, &specs, |spec| Ok(fresh(spec, 5))).unwrap();
    let settings =
        AdamWSettings { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decay_all: false, clip: 1.0 };
    let optimizer = AdamW::new(&backend, &params, settings).unwrap();
    Learner { backend, model, params, optimizer }
}

fn run(
    folder: &Path,
    texts: &TokenSet,
    learner: &mut Learner<Cpu>,
    rate: f64,
    steps: u64,
    [every, patience]: [u64; 2],
) -> Result<Trained> {
    let training = Training {
        stage: "train",
        texts,
        rows: 0..40,
        held_out: 40..60,
        teacher: None,
        batch: 8,
        schedule: Schedule { learning_rate: rate, warmup: 0, steps },
        evaluate_every: every,
        checkpoint_every: 0,
        patience,
        keep_best: true,
        seed: 9,
        state: folder.join("state"),
        metrics: folder.join("metrics.jsonl"),
        resume: false,
        progress: &Silent,
        stop: &AtomicBool::new(false),
    };
    train(learner, &training, None)
}

#[test]
fn the_weights_of_the_best_evaluation_are_kept() {
    let (texts, vocab) = notes();
    let folder = tempfile::tempdir().unwrap();
    let mut learner = learner(&texts, vocab);
    // A rate so high that accuracy jumps about: the last evaluation is hardly ever the best.
    let trained = run(folder.path(), &texts, &mut learner, 0.3, 40, [2, 0]).unwrap();
    let (best, step) = trained.best.unwrap();
    assert_eq!(trained.steps, 40);
    let log = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let evaluations: Vec<(u64, f64)> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter_map(|line| Some((line["step"].as_u64()?, line["held_out_accuracy"].as_f64()?)))
        .collect();
    assert_eq!(evaluations.len(), 20);
    let highest = evaluations.iter().map(|(_, accuracy)| *accuracy).fold(0.0, f64::max);
    assert_eq!(best, highest);
    assert_eq!(
        evaluations.iter().find(|(_, accuracy)| *accuracy == highest).unwrap().0,
        step,
        "the first of equals"
    );
    assert!(
        evaluations.iter().any(|(_, accuracy)| *accuracy < best),
        "the case tests nothing if all are equal"
    );
    assert_eq!(accuracy(&learner, &texts, 40..60).unwrap(), best);
}

#[test]
fn patience_ends_a_training_that_gets_no_better() {
    let (texts, vocab) = notes();
    let folder = tempfile::tempdir().unwrap();
    // Nothing is learnt at a rate of nearly zero: the first evaluation is the best, two more end it.
    let trained = run(folder.path(), &texts, &mut learner(&texts, vocab), 1e-12, 100, [1, 2]).unwrap();
    assert_eq!((trained.steps, trained.best.unwrap().1), (3, 1));
}

#[test]
fn a_loss_that_is_no_number_names_step_and_parameter() {
    let (texts, vocab) = notes();
    let folder = tempfile::tempdir().unwrap();
    let mut learner = learner(&texts, vocab);
    let error = run(folder.path(), &texts, &mut learner, 1e30, 100, [0, 0]).unwrap_err();
    match &error {
        Error::Diverged { step, blame, .. } => {
            assert!((2..=100).contains(step), "{error}");
            let names = learner.params.iter().map(|(_, param)| &param.spec.name);
            assert!(names.into_iter().any(|name| blame.contains(name)), "{error}");
        }
        _ => panic!("{error}"),
    }
    assert!(error.to_string().contains("learning_rate"), "{error}");
}
