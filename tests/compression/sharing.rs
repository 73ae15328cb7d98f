//! Layers that share parameters compute what copies would, learn from the sum of the copies' gradients, and shrink as one.

use crate::common::distance;
use crate::matrix_factors::{expanded, of_formulas, values};
use crate::network::{assert_masks, bits, change, config, download, examples, id, learner, plain, states};
use crate::slopes::compare_with_gate_gradients;
use limbeck::backend::Cpu;
use limbeck::compress::EmptiedBlocks;
use limbeck::compress::expand::expand;
use limbeck::compress::importance::keep_within;
use limbeck::compress::layers::keep_layers;
use limbeck::compress::matrix_factors::factorize;
use limbeck::compress::prune;
use limbeck::compress::sharing::{problem, share};
use limbeck::compress::{Budget, LayerMatrices, RankBudget, RankScope, Scope, Scores, ShareStart};
use limbeck::infer::{PartTimes, Session};
use limbeck::models::ModelConfig;
use limbeck::models::config::{Architecture, Pooling};
use limbeck::nn::ParamId;
use limbeck::quantize::{Extras, Quantization, quantize};
use limbeck::train::Learner;
use limbeck::train::learner::gradients;
use std::path::Path;

const UNITS: &str = "distilbert.transformer.layer.0.ffn.lin1.weight";

fn families() -> [ModelConfig; 2] {
    [(Architecture::DistilBert, Pooling::FirstToken), (Architecture::Bert, Pooling::Mean)]
        .map(|(architecture, pooling)| config(architecture, pooling, 0.0))
}

/// A learner whose layers 1 and 2 are one.
fn shared(config: &ModelConfig) -> Learner<Cpu> {
    let mut learner = learner(config);
    share(&mut learner, 2, ShareStart::Mean).unwrap();
    assert_eq!(learner.model.config.shared, [0, 1, 1]);
    learner
}

/// A learner with the same network expressed densely.
fn copies(of: &Learner<Cpu>) -> Learner<Cpu> {
    let (config, values) = expand(&of.model.config, values(of));
    let mut copies = learner(&config);
    for (place, values) in values.into_iter().enumerate() {
        let of = ParamId(place as u32);
        let cols = copies.params.value(of).cols();
        change(&mut copies, of, |row, col, _| values[row * cols + col]);
    }
    copies
}

#[test]
fn layers_start_from_the_mean_or_the_first_and_all_else_stays() {
    let before = learner(&plain());
    let value =
        |learner: &Learner<Cpu>, name: &str| download(learner, learner.params.value(id(learner, name)));
    for start in [ShareStart::Mean, ShareStart::First] {
        let mut learner = learner(&plain());
        (0..2).for_each(|step| _ = learner.step(&examples(step..step + 4), None, 0.0, None).unwrap());
        let moments = |learner: &Learner<Cpu>| states(learner, id(learner, UNITS))[1].clone();
        let moments_before = moments(&learner);
        share(&mut learner, 1, start).unwrap();
        assert_eq!(learner.model.config.shared, [0, 0, 0]);
        for (_, param) in learner.params.iter() {
            let name = &param.spec.name;
            let found = value(&learner, name);
            let copies: Vec<Vec<f32>> = (0..3)
                .map(|layer| value(&before, &name.replace("layer.0.", &format!("layer.{layer}."))))
                .collect();
            for (i, found) in found.iter().enumerate() {
                let mean = copies.iter().map(|copy| f64::from(copy[i])).sum::<f64>() / 3.0;
                let expected = if start == ShareStart::Mean { mean } else { f64::from(copies[0][i]) };
                assert!((f64::from(*found) - expected).abs() <= 1e-6, "{name}");
            }
        }
        let kept = moments(&learner) == moments_before;
        assert_eq!(kept, start == ShareStart::First, "moments are of the values that they were of");
    }
    // Each has its own: nothing changes.
    let mut same = learner(&plain());
    share(&mut same, 3, ShareStart::Mean).unwrap();
    assert_eq!(same.model.config, before.model.config);
}

#[test]
fn shared_layers_compute_what_copies_do() {
    for config in families() {
        for factored in [false, true] {
            let mut learner = shared(&config);
            let batch = examples(0..9).batch;
            if factored {
                let budget =
                    RankBudget { fraction: 0.25, scope: RankScope::Global, matrices: LayerMatrices::Encoder };
                assert_eq!(factorize(&mut learner, &budget).unwrap().matrices[1], 12, "each matrix once");
                assert_eq!(learner.model.config.ranks[1], learner.model.config.ranks[2]);
            }
            let found = learner.logits(&batch).unwrap();
            let (dense, expected) = expanded(&learner, &batch);
            assert_eq!(dense, config);
            let bound = if factored { 1e-5 } else { 0.0 };
            assert!(distance(&found, &expected) <= bound, "{:?}", config.architecture);
            assert!(distance(&found, &of_formulas(&learner, &batch)) <= 2e-5);
        }
    }
}

#[test]
fn a_gradient_is_the_sum_of_the_copies_gradients_and_the_slope_of_the_loss() {
    for config in families() {
        let learner = shared(&config);
        let (copies, all) = (copies(&learner), examples(0..6));
        let of = |learner: &Learner<Cpu>| {
            gradients(&learner.backend, &learner.model, &learner.params, &all, None, None).unwrap().1
        };
        let (found, parts) = (of(&learner), of(&copies));
        for (place, param) in learner.params.iter() {
            let name = &param.spec.name;
            let gradient =
                |name: &str| download(&copies, parts.param(id(&copies, name)).expect("it matters"));
            let mut sum = gradient(name);
            if name.contains("layer.1.") {
                let more = gradient(&name.replace("layer.1.", "layer.2."));
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
            let found = download(&learner, found.param(place).unwrap());
            // Of a key's bias there is rounding alone.
            let scale = sum.iter().fold(1e-3f32, |largest, x| largest.max(x.abs()));
            let worst = crate::common::largest_difference(&found, &sum);
            assert!(worst <= 1e-5 * f64::from(scale), "{name}: {worst}");
        }
        let compared = compare_with_gate_gradients(&learner, &all, |name| name.contains("layer.1."));
        assert_eq!(compared, 6 * 2 + 4 - 1, "all but the bias of the keys");
    }
}

#[test]
fn a_shared_network_learns() {
    let mut learner = shared(&plain());
    let mut step = || learner.step(&examples(0..6), None, 1e-2, None).unwrap().loss;
    let first = step();
    let last = (0..20).map(|_| step()).last().unwrap();
    assert!(last < 0.5 * first, "{first} {last}");
}

const BUDGET: Budget =
    Budget { heads: 0.5, units: 0.25, unit_scope: Scope::Each, weights: 0.5, ..Budget::NONE };

#[test]
fn heads_and_units_of_shared_layers_go_together_by_the_sum_of_their_scores() {
    let mut learner = shared(&plain());
    let mut scores = Scores::zeros(&learner.model.config);
    // Layer 2 alone would lose its first two, layer 1 its last two.
    scores.heads = vec![vec![9.0, 8.0, 7.0, 6.0], vec![5.0, 1.0, 0.5, 0.1], vec![0.1, 2.0, 0.3, 0.2]];
    scores.units = vec![vec![1.0; 20]; 3];
    let keep = keep_within(&learner.model.config, &scores, (0.25, Scope::Global), (0.5, Scope::Each));
    assert_eq!(keep.heads, [vec![0, 1, 2, 3], vec![0, 1], vec![0, 1]]);
    assert!(keep.units.iter().all(|units| units.len() == 10));

    prune(&mut learner, &BUDGET, &scores, (None, &EmptiedBlocks::default()), 0).unwrap();
    let left = &learner.model.config.layers;
    assert_eq!(left[1], left[2]);
    // Of two distinct layers half the heads are left.
    assert_eq!(left[0].heads.len() + left[1].heads.len(), 4);
    assert_eq!((left[0].intermediate, left[1].intermediate), (15, 15));
    let masked = learner.params.iter().filter(|(_, param)| param.mask.is_some()).count();
    assert_eq!(masked, 4, "feed-forward matrices, each once");
    let batch = examples(0..9).batch;
    assert!(distance(&learner.logits(&batch).unwrap(), &expanded(&learner, &batch).1) <= 1e-6);
    learner.step(&examples(0..6), None, 1e-2, None).unwrap();
    assert_masks(&learner);
}

#[test]
fn of_deleted_layers_the_first_that_stays_has_the_parameters() {
    let mut learner = learner(&plain());
    share(&mut learner, 1, ShareStart::Mean).unwrap();
    let (values, batch) = (states(&learner, id(&learner, UNITS)), examples(0..9).batch);
    let whole = copies(&learner);
    keep_layers(&mut learner, &[1, 2]).unwrap();
    assert_eq!(
        (&learner.model.config.shared[..], &learner.model.config.deleted_layers[..]),
        (&[0, 0][..], &[0][..])
    );
    assert_eq!(states(&learner, id(&learner, UNITS)), values);
    let mut copies = whole;
    keep_layers(&mut copies, &[1, 2]).unwrap();
    assert_eq!(bits(&learner.logits(&batch).unwrap()), bits(&copies.logits(&batch).unwrap()));
}

#[test]
fn files_hold_them_once_and_answer_as_the_expanded_ones() {
    for config in families() {
        let learner = shared(&config);
        let copies = copies(&learner);
        let file = |learner: &Learner<Cpu>| {
            let mut values = values(learner).into_iter();
            let next = |_: &_| Ok(values.next().unwrap());
            let (config, path) = (&learner.model.config, Path::new("test"));
            let made = quantize(path, config, next, Quantization::INT8, &Extras::default()).unwrap();
            (made.image.bytes().len(), made.image.into_model(path).unwrap())
        };
        let ((small, one), (large, each)) = (file(&learner), file(&copies));
        let bytes = |part: &str| -> usize {
            each.parameters()
                .filter(|stored| stored.spec.name.contains(part))
                .map(|stored| stored.bytes)
                .sum()
        };
        assert!(bytes("layer.2.") > 2000 && small + bytes("layer.2.") <= large, "{small} {large}");
        let stored = one.parameters().map(|stored| stored.bytes).sum::<usize>();
        assert_eq!(stored + bytes("layer.2."), bytes(""));
        let batch = examples(0..9).batch;
        let logits = bits(Session::new(&one).logits(&batch).unwrap());
        assert_eq!(logits, bits(Session::new(&each).logits(&batch).unwrap()));
        // Each layer's time is its own, wherever its parameters are.
        let mut times = PartTimes::new(one.classifier());
        assert_eq!(bits(Session::new(&one).logits_timed(&batch, &mut times).unwrap()), logits);
        assert_eq!(times.spent.len(), 8);
        assert!(times.spent.iter().all(|spent| !spent.is_zero()), "{:?}", times.spent);
        let parts = one.classifier().parts();
        assert!(parts[5].params.is_empty() && parts[6].params.is_empty() && !parts[4].params.is_empty());
    }
}

#[test]
fn what_cannot_share_says_why() {
    let mut uneven = plain();
    uneven.layers[1].heads = vec![0, 3];
    let masked = ModelConfig { masked: vec![UNITS.to_owned()], ..plain() };
    let factored = ModelConfig { ranks: vec![[2; 6]; 3], ..plain() };
    let already = ModelConfig { shared: vec![0, 0, 2], ..plain() };
    for (config, distinct, words) in [
        (plain(), 4, "there are 3 layers"),
        (uneven, 1, "layer 1 has other heads or units than layer 0"),
        (masked, 2, "ffn.lin1.weight is masked"),
        (factored, 2, "factored already"),
        (already, 2, "share their parameters already"),
    ] {
        let found = problem(&config, distinct).unwrap();
        assert!(found.contains(words), "{found}");
    }
    assert_eq!(problem(&plain(), 2), None);
}
