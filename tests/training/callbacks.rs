//! The loop, stopped in the middle of an evaluation and with a callback that is not done.

use crate::fixture::{learner, notes, training};
use limbeck::autograd::{Grads, Var};
use limbeck::backend::Cpu;
use limbeck::models::Taps;
use limbeck::train::{
    Callback, CallbackState, Event, Learner, LearnerView, Progress, Silent, StepReport, train,
};
use limbeck::{Batch, Error, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag once a step is done, as a signal that comes in the evaluation after it.
struct Signal<'a> {
    step: u64,
    stop: &'a AtomicBool,
}

impl Progress for Signal<'_> {
    fn begin(&self, _: &str, _: u64) {}
    fn step(&self, report: StepReport) {
        self.stop.store(report.step == self.step, Ordering::Relaxed);
    }
    fn advance(&self, _: u64) {}
    fn message(&self, _: &str) {}
    fn end(&self) {}
}

/// The weights and the log, without times.
fn result(folder: &Path, learner: &Learner<Cpu>) -> (Vec<Vec<f32>>, Vec<Value>) {
    let weights = learner.params.iter().map(|(_, param)| param.value().buffer().to_vec()).collect();
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("seconds")));
    (weights, lines)
}

#[test]
fn an_evaluation_that_a_signal_cuts_short_is_made_up_for() {
    let (texts, vocab) = notes();
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut expected = learner(&texts, vocab);
    let trained =
        train(&mut expected, &training(whole.path(), &texts, &Silent, &AtomicBool::new(false)), None)
            .unwrap();
    for step in [6, 12] {
        let stop = AtomicBool::new(false);
        let signal = Signal { step, stop: &stop };
        let error =
            train(&mut learner(&texts, vocab), &training(broken.path(), &texts, &signal, &stop), None)
                .unwrap_err();
        assert!(matches!(error, Error::Interrupted { checkpoint: Some(_) }), "{error}");
        let log = fs::read_to_string(broken.path().join("metrics.jsonl")).unwrap();
        let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert!(last["step"] == step && last["loss"].is_f64(), "the evaluation was cut short: {last}");
    }
    let mut found = learner(&texts, vocab);
    let again =
        train(&mut found, &training(broken.path(), &texts, &Silent, &AtomicBool::new(false)), None).unwrap();
    assert_eq!(again, trained);
    assert_eq!(result(broken.path(), &found), result(whole.path(), &expected));
}

/// Changes nothing, but says so only after `last` steps.
struct Patient {
    last: u64,
    done: u64,
}

impl Callback<Cpu> for Patient {
    fn watches(&self, _: u64) -> bool {
        false
    }
    fn watch(
        &mut self,
        _: LearnerView<'_, Cpu>,
        _: &Batch,
        _: &Taps<Var<Cpu>>,
        _: &Grads<Cpu>,
    ) -> Result<()> {
        Ok(())
    }
    fn after(&mut self, step: u64, _: &mut Learner<Cpu>) -> Result<Option<Event>> {
        self.done = step + 1;
        Ok(None)
    }
    fn settled(&self) -> bool {
        self.done >= self.last
    }
    fn saved(&self) -> CallbackState {
        CallbackState::default()
    }
    fn restore(&mut self, _: u64, _: CallbackState, _: &Learner<Cpu>) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn patience_waits_for_the_companion() {
    let (texts, vocab) = notes();
    let (folder, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let mut training = training(folder.path(), &texts, &Silent, &stop);
    // Nothing is learnt at a rate of nearly zero: the first evaluation that counts is the best, two more end it.
    training.schedule.learning_rate = 1e-12;
    (training.evaluate_every, training.patience) = (1, 2);
    let trained =
        train(&mut learner(&texts, vocab), &training, Some(&mut Patient { last: 7, done: 0 })).unwrap();
    assert_eq!((trained.steps, trained.best.unwrap().1), (9, 7));
}
