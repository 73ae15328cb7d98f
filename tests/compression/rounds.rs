//! Pruning in rounds: what is left goes back to where it was, in value, rate and moments, and a state is gone on from.

use crate::deletion::kept_by;
use crate::network::{bits, config, download, learner, states, step_beside};
use limbeck::backend::Cpu;
use limbeck::compress::{
    BlockBudget, BlockImportance, BlockScope, Budget, Gradual, Importance, Keep, LayerMatrices, Rewind,
    Rounds, Scope,
};
use limbeck::models::config::{Architecture, Pooling};
use limbeck::ops::blocks::BlockShape;
use limbeck::train::{Callback, CallbackState, Learner, Schedule};
use std::ops::Range;

const STEPS: u64 = 24;
/// Three events, so four rounds of six steps.
const EVENTS: usize = 3;
const SCHEDULE: Schedule = Schedule { learning_rate: 1e-2, warmup: 4, steps: STEPS };

/// Heads and units, and single weights of what is left of them.
fn budget() -> Budget {
    Budget {
        heads: 0.5,
        head_importance: Importance::BlockFisher,
        head_scope: Scope::Global,
        units: 0.4,
        unit_importance: Importance::Fisher,
        unit_scope: Scope::Each,
        weights: 0.0,
        weight_matrices: LayerMatrices::FeedForward,
        classifier: 0.3,
        weight_scope: Scope::Each,
        blocks: BlockBudget {
            fraction: 0.5,
            shape: BlockShape::SINGLE,
            importance: BlockImportance::Movement,
            scope: BlockScope::Global,
            matrices: LayerMatrices::FeedForward,
        },
    }
}

fn dropping() -> Learner<Cpu> {
    learner(&config(Architecture::DistilBert, Pooling::FirstToken, 0.1))
}

fn callback(learner: &Learner<Cpu>, rewind: Rewind, to: f64) -> Gradual {
    Gradual::in_rounds(budget(), Rounds::new(EVENTS, STEPS, rewind, to), &learner.model.config, 1)
}

/// Trains as the loop does; says after which steps there was an event.
fn train(learner: &mut Learner<Cpu>, gradual: &mut Gradual, steps: Range<u64>) -> Vec<u64> {
    let mut events = Vec::new();
    for step in steps {
        let rate = Callback::<Cpu>::rate(gradual, step, &SCHEDULE);
        if let Some(event) = step_beside(learner, gradual, step, rate) {
            events.push(step);
            assert_eq!((event.number, event.of), ((step as usize + 1) / 6, EVENTS));
        }
    }
    events
}

/// What is left of a network: heads by their numbers; of units, those whose bias it has.
fn left(learner: &Learner<Cpu>, whole: &Learner<Cpu>) -> Keep {
    let biases = |learner: &Learner<Cpu>, layer: usize| {
        let bias = learner.model.layers[layer].expand.bias.unwrap();
        bits(&download(learner, learner.params.value(bias)))
    };
    let layers = &learner.model.config.layers;
    let units = (0..layers.len()).map(|layer| {
        let all = biases(whole, layer);
        let place = |bias: &u32| all.iter().position(|other| other == bias).expect("a bias of the point's");
        biases(learner, layer).iter().map(place).collect()
    });
    Keep {
        heads: layers.iter().map(|layer| layer.heads.clone()).collect(),
        units: units.collect(),
        ..Keep::all(&whole.model.config)
    }
}

/// Every value that is left is one that the whole network had, in the place that its row and column lead to.
#[test]
fn what_is_left_goes_back_to_the_weights_of_the_point() {
    for to in [0.0, 0.5] {
        let mut at_point = dropping();
        let mut idle = callback(&at_point, Rewind::Weights, to);
        train(&mut at_point, &mut idle, 0..(6.0 * to) as u64);
        let mut learner = dropping();
        let mut gradual = callback(&learner, Rewind::Weights, to);
        for (first, end) in [(0, 6), (6, 12), (12, 18)] {
            assert_eq!(train(&mut learner, &mut gradual, first..end), [end - 1]);
            assert_eq!(learner.optimizer.steps(), 0, "the optimizer begins anew");
            let keep = left(&learner, &at_point);
            for (id, param) in learner.params.iter() {
                let (name, now) = (&param.spec.name, states(&learner, id));
                let mask =
                    param.mask.as_ref().map(|mask| mask.0.to_vec()).unwrap_or(vec![1; param.spec.len()]);
                let shape = at_point.params.value(id).shape();
                let before = download(&at_point, at_point.params.value(id));
                let before = kept_by(&keep, name, shape.rows, shape.cols, &before);
                let expected: Vec<f32> =
                    before.iter().zip(&mask).map(|(value, kept)| value * f32::from(*kept)).collect();
                assert_eq!(now[0], expected, "{name}");
                assert!(now[1].iter().chain(&now[2]).all(|moment| *moment == 0.0), "{name}: moments");
            }
        }
        // Half of the heads, and the last round learns.
        let layers = &learner.model.config.layers;
        assert_eq!(layers.iter().map(|layer| layer.heads.len()).sum::<usize>(), 6);
        assert!(layers.iter().all(|layer| layer.intermediate == 12));
        assert!(train(&mut learner, &mut gradual, 18..24).is_empty());
        assert!(Callback::<Cpu>::settled(&gradual));
        assert_eq!(learner.optimizer.steps(), 6);
        crate::network::assert_masks(&learner);
    }
}

/// Rates begin anew in each round where that is asked for; values and moments stay as they are unless weights go back.
#[test]
fn rates_and_weights_are_set_back_as_asked() {
    let rates = |rewind| {
        let gradual = callback(&dropping(), rewind, 0.0);
        (0..STEPS).map(|step| Callback::<Cpu>::rate(&gradual, step, &SCHEDULE)).collect::<Vec<f64>>()
    };
    assert_eq!(rates(Rewind::Rate), rates(Rewind::Weights));
    assert!(rates(Rewind::None).windows(2).skip(4).all(|pair| pair[1] < pair[0]), "one schedule");
    assert_eq!(rates(Rewind::Rate)[..6], rates(Rewind::Rate)[18..]);
    for rewind in [Rewind::Rate, Rewind::None] {
        let mut learner = dropping();
        let mut gradual = callback(&learner, rewind, 0.0);
        train(&mut learner, &mut gradual, 0..6);
        assert_eq!(learner.optimizer.steps(), 6, "{rewind:?}: moments stay");
        assert!(Callback::<Cpu>::saved(&gradual).earlier.is_empty());
        let [value, m, _] = states(&learner, learner.model.embeddings.norm.gamma);
        let first = states(&dropping(), learner.model.embeddings.norm.gamma)[0].clone();
        assert!(value != first && m.iter().any(|m| *m != 0.0), "{rewind:?}: weights stay");
    }
}

#[test]
fn a_state_is_gone_on_from_in_every_round_and_a_wrong_one_refused() {
    for (rewind, to) in [(Rewind::Weights, 0.5), (Rewind::Weights, 0.0), (Rewind::Rate, 0.0)] {
        // Before the point, behind it, at an event, between events, and behind the last.
        for stop in [1, 4, 6, 14, 20] {
            let (mut whole, mut broken) = (dropping(), dropping());
            let mut gradual = callback(&whole, rewind, to);
            train(&mut whole, &mut gradual, 0..STEPS);
            let mut first = callback(&broken, rewind, to);
            train(&mut broken, &mut first, 0..stop);
            let saved = Callback::<Cpu>::saved(&first);
            let mut second = callback(&broken, rewind, to);
            second.restore(stop, saved.clone(), &broken).unwrap();
            train(&mut broken, &mut second, stop..STEPS);
            for (id, _) in whole.params.iter() {
                let [whole, broken] = [&whole, &broken].map(|learner| states(learner, id).map(|s| bits(&s)));
                assert!(whole == broken, "{rewind:?} to {to}, stopped after {stop}");
            }
            if rewind == Rewind::Weights && stop == 4 {
                let mut other = callback(&broken, rewind, to);
                let refused = other
                    .restore(stop, CallbackState { earlier: vec![], ..saved.clone() }, &dropping())
                    .unwrap_err();
                assert!(refused.contains("earlier weights"), "{refused}");
                let mut cut = saved.clone();
                cut.earlier[0].pop();
                assert!(other.restore(stop, cut, &dropping()).is_err());
            }
        }
    }
}
