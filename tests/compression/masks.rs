//! Masks hold through the optimizer, and budgets are met exactly, at once and bit by bit.

use crate::network::{
    HEADS, LAYERS, UNITS, change, config, download, examples, id, learner, plain, states, step_beside,
};
use limbeck::backend::Cpu;
use limbeck::compress::prune;
use limbeck::compress::{
    BlockBudget, Budget, EmptiedBlocks, Gradual, Importance, LayerMatrices, Scope, Scores, magnitude,
};
use limbeck::models::config::{Architecture, Pooling};
use limbeck::nn::ParamId;
use limbeck::ops::dropout::DropoutSeed;
use limbeck::tensor::Tensor;
use limbeck::train::learner::gradients;
use limbeck::train::{AdamW, Callback, Learner};

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
        let noise = Some(DropoutSeed { seed: 9, step });
        learner.step(&examples(step * 4..step * 4 + 4), noise, 1e-2, None).unwrap();
    };
    // Moments are not zero when the masks come.
    (0..2).for_each(|i| step(&mut learner, i));
    let ids =
        [magnitude::matrices(&learner.model, LayerMatrices::FeedForward), magnitude::head(&learner.model)]
            .concat();
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
#[should_panic(expected = "the first moment of classifier.weight: the masked element Some(0) is not zero")]
fn a_mask_that_leaks_in_a_moment_is_noticed() {
    let mut learner = learner(&plain());
    let (backend, id) = (learner.backend.clone(), id(&learner, "classifier.weight"));
    magnitude::mask(&backend, &mut learner.params, &[id], 1.0, Scope::Each).unwrap();
    learner.assert_masks().unwrap();
    let mut moments = learner.optimizer.moments().to_vec();
    let shape = moments[id.index()][0].shape();
    moments[id.index()][0] = Tensor::upload(&backend, &vec![1e-30; shape.len()], shape).unwrap();
    learner.optimizer =
        AdamW::resumed(learner.optimizer.settings(), moments, 1, learner.optimizer.loss_scale());
    let _ = learner.assert_masks();
}

/// As with PyTorch's pruned parameters: what is dead has no gradient, so it takes no part in clipping.
#[test]
fn masked_gradients_are_not_part_of_the_norm_and_end_no_training() {
    let mut learner = learner(&plain());
    let (backend, examples) = (learner.backend.clone(), examples(0..4));
    let ids =
        [magnitude::matrices(&learner.model, LayerMatrices::FeedForward), magnitude::head(&learner.model)]
            .concat();
    magnitude::mask(&backend, &mut learner.params, &ids, 0.6, Scope::Global).unwrap();
    let (_, mut grads) = gradients(&backend, &learner.model, &learner.params, &examples, None, None).unwrap();
    // What is dead is to be no number; first, the norm of what is alive, and of all.
    let (mut alive, mut all) = (0.0_f64, 0.0_f64);
    for (id, param) in learner.params.iter() {
        let Some(gradient) = grads.param(id) else { continue };
        let mut values = download(&learner, gradient);
        for (i, value) in values.iter_mut().enumerate() {
            let square = f64::from(*value).powi(2);
            all += square;
            match &param.mask {
                Some(mask) if mask.0[i] == 0 => *value = f32::NAN,
                _ => alive += square,
            }
        }
        let shape = gradient.shape();
        *grads.param_mut(id).unwrap() = Tensor::upload(&backend, &values, shape).unwrap();
    }
    let (alive, all) = (alive.sqrt(), all.sqrt());
    assert!(all > 1.05 * alive && alive > 1.0, "{all} {alive}: dead gradients are some, and it is clipped");
    let norm = learner.optimizer.step(&backend, &mut learner.params, &mut grads, 1e-2).unwrap();
    assert!((norm - alive).abs() <= 1e-6 * alive, "{norm} is not {alive}");
    for (id, param) in learner.params.iter() {
        let (Some(gradient), Some(mask)) = (grads.param(id), &param.mask) else { continue };
        let gradient = download(&learner, gradient);
        assert!(gradient.iter().zip(&*mask.0).all(|(value, kept)| *kept == 1 || *value == 0.0));
        // β₁ is 0.9, so the first moment is a tenth of the clipped gradient.
        let [_, m, _] = states(&learner, id);
        for (m, gradient) in m.iter().zip(&gradient) {
            let expected = 0.1 * f64::from(*gradient) / (alive + 1e-6);
            assert!((f64::from(*m) - expected).abs() <= 1e-5 * expected.abs(), "{m} {expected}");
        }
    }
    learner.assert_masks().unwrap();
}

#[test]
fn fractions_are_exact_over_all_and_over_each() {
    for (scope, fraction) in
        [(Scope::Global, 0.6), (Scope::Each, 0.6), (Scope::Global, 1.0), (Scope::Each, 0.013)]
    {
        let mut learner = learner(&plain());
        // One matrix of small values: a global fraction takes more of it.
        let ids = magnitude::matrices(&learner.model, LayerMatrices::FeedForward);
        change(&mut learner, ids[2], |_, _, value| 0.1 * value);
        let backend = learner.backend.clone();
        let before: Vec<_> = ids.iter().map(|&id| states(&learner, id)[0].clone()).collect();
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
        // What went is smaller than what stayed, among all or in each matrix.
        let mut largest_gone = vec![0.0f32; ids.len()];
        let mut smallest_left = vec![f32::INFINITY; ids.len()];
        for (i, &id) in ids.iter().enumerate() {
            for (now, before) in states(&learner, id)[0].iter().zip(&before[i]) {
                if *now == 0.0 {
                    largest_gone[i] = largest_gone[i].max(before.abs());
                } else {
                    assert_eq!(now, before, "what stays is as it was");
                    smallest_left[i] = smallest_left[i].min(before.abs());
                }
            }
        }
        if scope == Scope::Global {
            largest_gone = vec![largest_gone.into_iter().fold(0.0, f32::max)];
            smallest_left = vec![smallest_left.into_iter().fold(f32::INFINITY, f32::min)];
        }
        assert!(
            largest_gone.iter().zip(&smallest_left).all(|(gone, left)| gone <= left),
            "{largest_gone:?} {smallest_left:?}"
        );
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
        weight_matrices: match importance {
            Importance::Fisher => LayerMatrices::Encoder,
            Importance::Norm => LayerMatrices::Attention,
            _ => LayerMatrices::FeedForward,
        },
        classifier: 0.25,
        weight_scope: scope,
        blocks: BlockBudget::NONE,
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
        (magnitude::matrices(&learner.model, budget.weight_matrices), budget.weights),
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
    use Importance::{Attention, Fisher, Gradient, Norm, Random};
    for importance in [Gradient, Fisher, Attention, Norm, Random] {
        for scope in [Scope::Global, Scope::Each] {
            let mut learner = learner(&plain());
            let (budget, measured) = (budget(importance, scope), Scores::random(&learner.model.config, 4));
            prune(&mut learner, &budget, &measured, (None, &EmptiedBlocks::default()), 3).unwrap();
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
            let watches = Callback::<Cpu>::watches(&gradual, step);
            assert_eq!(watches, changed.len() < events as usize, "scores are collected until the last event");
            if step_beside(&mut learner, &mut gradual, step, 1e-3).is_some() {
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
