//! Masks hold through the optimizer, and budgets are met exactly, at once and bit by bit.

use crate::network::{HEADS, LAYERS, UNITS, change, config, learner, lesson, plain, states};
use limbeck::backend::Cpu;
use limbeck::compress::gradual::prune;
use limbeck::compress::{Budget, Gradual, Importance, Scope, Scores, magnitude};
use limbeck::models::config::{Architecture, Pooling};
use limbeck::nn::ParamId;
use limbeck::ops::noise::Noise;
use limbeck::train::{Companion, Learner, Seen};

/// Elements that a mask drops, of all.
fn dropped(learner: &Learner<Cpu>, id: ParamId) -> (usize, usize) {
    let mask = learner.params.get(id).mask.as_ref().expect("a masked parameter");
    (mask.0.len() - mask.kept(), mask.0.len())
}

#[test]
fn masked_elements_stay_zero_in_value_and_moments() {
    let config = config(Architecture::Bert, Pooling::Pooler, 0.2);
    let mut learner = learner(&config);
    let step = |learner: &mut Learner<Cpu>, step: u64| {
        let noise = Some(Noise { seed: 9, step });
        learner.step(&lesson(step * 4..step * 4 + 4), noise, 1e-2, None).unwrap();
    };
    // Moments are not zero when the masks come.
    (0..2).for_each(|i| step(&mut learner, i));
    let ids = [magnitude::feed_forward(&learner.model), magnitude::head(&learner.model)].concat();
    let (backend, fraction) = (learner.backend.clone(), 0.6);
    magnitude::mask(&backend, &mut learner.params, &ids, fraction, Scope::Global).unwrap();
    let before: Vec<_> = ids.iter().map(|&id| states(&learner, id)).collect();
    (2..22).for_each(|i| step(&mut learner, i));
    for (&id, before) in ids.iter().zip(&before) {
        let (param, after) = (learner.params.get(id), states(&learner, id));
        let mask = &param.mask.as_ref().unwrap().0;
        for (i, kept) in mask.iter().enumerate() {
            let now = [after[0][i], after[1][i], after[2][i]];
            match kept {
                0 => assert_eq!(now, [0.0; 3], "{}: masked element {i}", param.spec.name),
                _ => assert_ne!(now[0], before[0][i], "{}: kept element {i} learns", param.spec.name),
            }
        }
        assert!(mask.contains(&0) && mask.contains(&1));
    }
    learner.params.assert_masks(&backend).unwrap();
}

#[test]
#[should_panic(expected = "the masked element Some(0) is not zero")]
fn a_mask_that_leaks_is_noticed() {
    let mut learner = learner(&plain());
    let (backend, ids) = (learner.backend.clone(), magnitude::head(&learner.model));
    magnitude::mask(&backend, &mut learner.params, &ids, 1.0, Scope::Each).unwrap();
    learner.params.assert_masks(&backend).unwrap();
    change(&mut learner, ids[0], |row, col, value| if row + col == 0 { 1e-30 } else { value });
    let _ = learner.params.assert_masks(&backend);
}

#[test]
fn fractions_are_exact_over_all_and_over_each() {
    for (scope, fraction) in
        [(Scope::Global, 0.6), (Scope::Each, 0.6), (Scope::Global, 1.0), (Scope::Each, 0.013)]
    {
        let mut learner = learner(&plain());
        // One matrix of small values: a global fraction takes more of it.
        let ids = magnitude::feed_forward(&learner.model);
        change(&mut learner, ids[2], |_, _, value| 0.1 * value);
        let backend = learner.backend.clone();
        magnitude::mask(&backend, &mut learner.params, &ids, fraction, scope).unwrap();
        let counts: Vec<(usize, usize)> = ids.iter().map(|&id| dropped(&learner, id)).collect();
        let exact = |(dropped, all): (usize, usize)| dropped == (fraction * all as f64).round() as usize;
        let sum = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        match scope {
            Scope::Global => {
                assert!(exact(sum), "{fraction} of {sum:?}");
                assert!(fraction == 1.0 || counts[2].0 > counts[0].0, "{counts:?}");
            }
            Scope::Each => assert!(counts.iter().all(|&count| exact(count)), "{fraction} of {counts:?}"),
        }
        // What went is smaller than what stayed.
        let values: Vec<_> = ids.iter().map(|&id| states(&learner, id)[0].clone()).collect();
        assert_eq!(values.iter().flatten().filter(|value| **value == 0.0).count(), sum.0);
    }
}

fn budget(importance: Importance, scope: Scope) -> Budget {
    Budget {
        heads: 0.5,
        head_importance: importance,
        head_scope: scope,
        units: 0.6,
        unit_importance: if importance == Importance::Attention { Importance::Norm } else { importance },
        unit_scope: scope,
        weights: 0.3,
        classifier: 0.25,
        weight_scope: scope,
    }
}

/// Heads and units that are left.
fn left(learner: &Learner<Cpu>) -> (usize, usize) {
    let layers = &learner.model.config.layers;
    (layers.iter().map(|layer| layer.heads.len()).sum(), layers.iter().map(|layer| layer.intermediate).sum())
}

/// How many of `all` are left at `fraction`.
fn rest(all: usize, fraction: f64) -> usize {
    all - (fraction * all as f64).round() as usize
}

fn assert_spent(learner: &Learner<Cpu>, budget: &Budget, what: &str) {
    assert_eq!(left(learner), (rest(LAYERS * HEADS, 0.5), rest(LAYERS * UNITS, 0.6)), "{what}");
    let sum = |ids: Vec<ParamId>| {
        let counts = ids.into_iter().map(|id| dropped(learner, id));
        counts.fold((0, 0), |sum, (dropped, all)| (sum.0 + dropped, sum.1 + all))
    };
    for (ids, fraction) in [
        (magnitude::feed_forward(&learner.model), budget.weights),
        (magnitude::head(&learner.model), budget.classifier),
    ] {
        let count = ids.len();
        let (dropped, all) = sum(ids);
        // Over each matrix, each is rounded.
        let slack = if budget.weight_scope == Scope::Each { 0.5 * count as f64 } else { 0.5 };
        assert!((dropped as f64 - fraction * all as f64).abs() <= slack, "{what}: {dropped} of {all}");
    }
    if budget.head_scope == Scope::Each {
        let layers = &learner.model.config.layers;
        assert!(
            layers.iter().all(|layer| layer.heads.len() == HEADS / 2 && layer.intermediate == 8),
            "{what}"
        );
    }
}

#[test]
fn pruning_at_once_spends_its_budget_by_every_importance() {
    use Importance::{Attention, Gradient, Norm, Random};
    for importance in [Gradient, Attention, Norm, Random] {
        for scope in [Scope::Global, Scope::Each] {
            let mut learner = learner(&plain());
            let (budget, measured) = (budget(importance, scope), Scores::random(&learner.model.config, 4));
            prune(&mut learner, &budget, &measured, 3).unwrap();
            assert_spent(&learner, &budget, &format!("{importance:?} {scope:?}"));
            // Heads keep their original numbers, in order.
            assert!(learner.model.config.validate().is_ok());
        }
    }
}

#[test]
fn gradual_pruning_reaches_its_budget_in_its_events() {
    let (steps, events) = (24_u64, 4_u64);
    for scope in [Scope::Global, Scope::Each] {
        let mut learner = learner(&config(Architecture::DistilBert, Pooling::FirstToken, 0.1));
        let budget = budget(Importance::Gradient, scope);
        let mut gradual = Gradual::new(budget, events as usize, steps, &learner.model.config, 1);
        let (mut changed, mut counts) = (Vec::new(), vec![left(&learner)]);
        for step in 0..steps {
            let lesson = lesson(step * 4..step * 4 + 4);
            let noise = Some(Noise { seed: 2, step });
            let watches = Companion::<Cpu>::watches(&gradual, step);
            assert_eq!(watches, changed.len() < events as usize, "scores are collected until the last event");
            if watches {
                let (backend, model) = (learner.backend.clone(), learner.model.clone());
                let seen = || Seen { backend: &backend, model: &model };
                let watch: &mut limbeck::train::learner::Watch<'_, Cpu> =
                    &mut |batch, taps, grads| gradual.watch(seen(), batch, taps, grads);
                learner.step(&lesson, noise, 1e-3, Some(watch)).unwrap();
            } else {
                learner.step(&lesson, noise, 1e-3, None).unwrap();
            }
            if gradual.after(step, &mut learner).unwrap() {
                changed.push(step);
            }
            counts.push(left(&learner));
        }
        // Spread over the first three quarters, the last event at their end.
        let places: Vec<f64> =
            (1..=events).map(|event| (steps * 3 / 4 * event) as f64 / events as f64).collect();
        assert_eq!(changed.len(), places.len(), "{changed:?}");
        for (found, place) in changed.iter().zip(&places) {
            assert!((*found as f64 + 1.0 - place).abs() < 1.0, "{changed:?} {places:?}");
        }
        assert_eq!(changed.last(), Some(&(steps * 3 / 4 - 1)));
        // Nothing comes back, and after each event what the cubic schedule says is gone.
        assert!(counts.windows(2).all(|pair| pair[1].0 <= pair[0].0 && pair[1].1 <= pair[0].1), "{counts:?}");
        for (event, step) in (1..=events).zip(&changed) {
            let gone = 1.0 - (1.0 - event as f64 / events as f64).powi(3);
            let expected = (rest(LAYERS * HEADS, 0.5 * gone), rest(LAYERS * UNITS, 0.6 * gone));
            let found = counts[*step as usize + 1];
            match scope {
                Scope::Global => assert_eq!(found, expected, "event {event}"),
                // A layer's share is rounded.
                Scope::Each => {
                    assert!(found.0.abs_diff(expected.0) <= LAYERS, "event {event}: {found:?} {expected:?}");
                    assert!(found.1.abs_diff(expected.1) <= LAYERS, "event {event}: {found:?} {expected:?}");
                }
            }
        }
        assert_spent(&learner, &budget, &format!("gradual {scope:?}"));
        crate::network::assert_masks(&learner);
    }
}
