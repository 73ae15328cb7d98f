//! The best weights are kept, patience ends a training, a rate that is too high is an error.

use crate::fixture::{learner, notes, training};
use limbeck::backend::Cpu;
use limbeck::data::TokenSet;
use limbeck::train::evaluate::accuracy;
use limbeck::train::{Learner, Silent, TrainingOutcome, train};
use limbeck::{Error, Result};
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn run(
    folder: &Path,
    texts: &TokenSet,
    learner: &mut Learner<Cpu>,
    rate: f64,
    steps: u64,
    [every, patience]: [u64; 2],
) -> Result<TrainingOutcome> {
    let stop = AtomicBool::new(false);
    let mut training = training(folder, texts, &Silent, &stop);
    (training.schedule.learning_rate, training.schedule.steps) = (rate, steps);
    (training.evaluate_every, training.patience) = (every, patience);
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
