//! Blocks: their scores against sums in f64 and slopes of the loss, their masks, and budgets met exactly.

use crate::common::{distance, magnitude as largest};
use crate::network::{
    HEADS, LAYERS, UNITS, change, config, download, examples, id, learner, plain, states, step_beside,
};
use limbeck::backend::Cpu;
use limbeck::compress::prune;
use limbeck::compress::{
    BlockBudget, BlockImportance, BlockScope, BlockScores, Budget, EmptiedBlocks, Gradual, LayerMatrices,
    Scope, Scores, magnitude,
};
use limbeck::models::config::{Architecture, Pooling};
use limbeck::nn::ParamId;
use limbeck::ops::blocks::BlockShape;
use limbeck::ops::loss;
use limbeck::train::learner::gradients;
use limbeck::train::{Callback, CallbackState, Learner};

/// Matrices are 24×24, 20×24 and 24×20: every shape but 4×4 and single weights leaves smaller blocks at an edge.
const SHAPES: [BlockShape; 6] =
    [shape(16, 4), shape(8, 4), shape(4, 4), shape(16, 16), shape(7, 5), shape(1, 1)];

const fn shape(outputs: usize, inputs: usize) -> BlockShape {
    BlockShape { outputs, inputs }
}

fn blocks(fraction: f64, shape: BlockShape) -> BlockBudget {
    BlockBudget { fraction, shape, ..BlockBudget::NONE }
}

/// Nothing but blocks goes.
pub fn only(blocks: BlockBudget) -> Budget {
    Budget { blocks, ..Budget::NONE }
}

/// The elements of each block of a matrix, found one by one.
fn members(learner: &Learner<Cpu>, id: ParamId, shape: BlockShape) -> Vec<Vec<usize>> {
    let weight = learner.params.value(id);
    let (rows, cols) = (weight.rows(), weight.cols());
    let mut blocks = Vec::new();
    for first_row in (0..rows).step_by(shape.outputs) {
        for first_col in (0..cols).step_by(shape.inputs) {
            let inside = |i: &usize| {
                let (row, col) = (i / cols, i % cols);
                row >= first_row
                    && row < first_row + shape.outputs
                    && col >= first_col
                    && col < first_col + shape.inputs
            };
            blocks.push((0..rows * cols).filter(inside).collect());
        }
    }
    blocks
}

/// Whether each block is masked; every mask must be of whole blocks.
fn masked(learner: &Learner<Cpu>, id: ParamId, shape: BlockShape) -> Vec<bool> {
    let param = learner.params.get(id);
    let mask = &param.mask.as_ref().expect("a masked parameter").0;
    let values = download(learner, param.value());
    let whole = |block: Vec<usize>| {
        let kept = block.iter().filter(|&&i| mask[i] != 0).count();
        assert!(kept == 0 || kept == block.len(), "{}: a part of a block", param.spec.name);
        assert!(kept > 0 || block.iter().all(|&i| values[i] == 0.0));
        kept == 0
    };
    members(learner, id, shape).into_iter().map(whole).collect()
}

fn count(masked: &[bool]) -> usize {
    masked.iter().filter(|masked| **masked).count()
}

#[test]
fn scores_are_the_sums_that_they_claim_to_be() {
    let learner = learner(&plain());
    let Learner { backend, model, params, .. } = &learner;
    let examples = examples(0..5);
    let (_, grads) = gradients(backend, model, params, &examples, None, None).unwrap();
    for shape in SHAPES {
        let budget = blocks(0.5, shape);
        let norms = BlockScores::norms(&budget, backend, model, params).unwrap();
        let watched = [BlockImportance::Movement, BlockImportance::Gradient, BlockImportance::Fisher];
        let [movement, gradient, fisher] = watched.map(|importance| {
            let budget = BlockBudget { importance, ..budget };
            let mut scores = BlockScores::zeros(&budget, model, params);
            for _ in 0..2 {
                scores.add_step(&budget, backend, model, params, &grads, 5).unwrap();
            }
            scores
        });
        assert_eq!(norms.0.len(), 6 * LAYERS);
        for (i, id) in budget.all(model).into_iter().enumerate() {
            let w = download(&learner, params.value(id));
            let dw = download(&learner, grads.param(id).unwrap());
            let sums = |other: &[f32]| -> Vec<f64> {
                let sum = |block: &Vec<usize>| {
                    block.iter().map(|&i| f64::from(w[i]) * f64::from(other[i])).sum::<f64>()
                };
                members(&learner, id, shape).iter().map(sum).collect()
            };
            let expected: Vec<f64> = sums(&w).iter().map(|sum| sum.sqrt()).collect();
            assert!(distance(&norms.0[i], &expected) <= 1e-13);
            // Two steps of five texts.
            let expected: Vec<f64> = sums(&dw).iter().map(|sum| -10.0 * sum).collect();
            assert!(largest(&expected) > 0.0 && distance(&movement.0[i], &expected) <= 1e-13);
            let expected: Vec<f64> = sums(&dw).iter().map(|sum| 10.0 * sum.powi(2)).collect();
            assert!(largest(&expected) > 0.0 && distance(&gradient.0[i], &expected) <= 1e-13);
            // `wᵀ diag(F) w`, with the squares of the gradients for the diagonal of F.
            let squares: Vec<f64> = dw.iter().map(|dw| f64::from(*dw).powi(2)).collect();
            let expected = |block: &Vec<usize>| -> f64 {
                block.iter().map(|&i| 10.0 * f64::from(w[i]).powi(2) * squares[i]).sum()
            };
            let expected: Vec<f64> = members(&learner, id, shape).iter().map(expected).collect();
            assert!(largest(&expected) > 0.0 && distance(&fisher.0[i], &expected) <= 1e-13);
            if shape == SHAPES[5] {
                assert!(distance(&fisher.0[i], &gradient.0[i]) <= 1e-13, "of one weight they are one");
            }
        }
    }
}

/// `Σ w·∂loss/∂w` is the derivative of the loss by a factor on the block.
#[test]
fn movement_is_the_slope_of_the_loss_when_a_block_is_scaled() {
    // Smooth throughout: DistilBERT's head has a ReLU, whose kinks a difference may straddle.
    let config = config(Architecture::Bert, Pooling::Pooler, 0.0);
    let (samples, shape) = ([3, 5, 11], shape(16, 4));
    let budget = BlockBudget { importance: BlockImportance::Movement, ..blocks(0.5, shape) };
    let mut scores = None;
    let whole = learner(&config);
    let Learner { backend, model, params, .. } = &whole;
    gradients(
        backend,
        model,
        params,
        &examples(samples),
        None,
        Some(&mut |seen, batch, _, grads| {
            let scores = scores.insert(BlockScores::zeros(&budget, seen.model, seen.params));
            scores.add_step(&budget, seen.backend, seen.model, seen.params, grads, batch.texts())
        }),
    )
    .unwrap();
    let scores = scores.unwrap();
    let largest = largest(&scores.0.concat());
    for (scores, id) in scores.0.iter().zip(budget.all(model)) {
        let members = members(&whole, id, shape);
        // A whole block, and the smaller one of the last row of blocks and the last column.
        for block in [1, members.len() - 1] {
            let cols = params.value(id).cols();
            let total = |factor: f32| {
                let mut learner = learner(&config);
                change(&mut learner, id, |row, col, value| {
                    if members[block].contains(&(row * cols + col)) { factor * value } else { value }
                });
                let examples = examples(samples);
                let logits = learner.logits(&examples.batch).unwrap();
                3.0 * loss::cross_entropy(&logits, &examples.labels).cross_entropy
            };
            // The five-point rule: its error is of the order of h⁴, and rounding's is 1e-7 / h.
            let h = 0.1_f32;
            let at = |steps: f32| total(1.0 + steps * h);
            let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(h));
            let name = &params.get(id).spec.name;
            let error = (scores[block] + slope).abs() / largest;
            assert!(error <= 1e-4, "{name}, block {block}: {} for {}", scores[block], -slope);
        }
    }
}

#[test]
fn whole_blocks_go_exactly_as_many_as_asked_for_and_the_least_important() {
    let encoder = |matrices| match matrices {
        LayerMatrices::Encoder => 6,
        LayerMatrices::Attention => 4,
        LayerMatrices::FeedForward => 2,
    };
    for (matrices, scope, importance, shape, fraction) in [
        (LayerMatrices::Encoder, BlockScope::Matrix, BlockImportance::Magnitude, SHAPES[0], 0.8),
        (LayerMatrices::Encoder, BlockScope::Global, BlockImportance::Magnitude, SHAPES[1], 0.8),
        (LayerMatrices::Encoder, BlockScope::Layer, BlockImportance::Movement, SHAPES[2], 0.37),
        (LayerMatrices::Attention, BlockScope::Global, BlockImportance::Movement, SHAPES[3], 0.6),
        (LayerMatrices::FeedForward, BlockScope::Layer, BlockImportance::Magnitude, SHAPES[4], 0.5),
        (LayerMatrices::FeedForward, BlockScope::Matrix, BlockImportance::Movement, SHAPES[0], 1.0),
        (LayerMatrices::Encoder, BlockScope::Global, BlockImportance::Gradient, SHAPES[0], 0.8),
        (LayerMatrices::Encoder, BlockScope::Global, BlockImportance::Fisher, SHAPES[1], 0.7),
        (LayerMatrices::FeedForward, BlockScope::Matrix, BlockImportance::Fisher, SHAPES[5], 0.37),
        (LayerMatrices::FeedForward, BlockScope::Global, BlockImportance::Movement, SHAPES[5], 0.9),
    ] {
        let mut learner = learner(&plain());
        let budget = BlockBudget { fraction, shape, importance, scope, matrices };
        let Learner { backend, model, params, .. } = &learner;
        let (_, grads) = gradients(backend, model, params, &examples(0..9), None, None).unwrap();
        let mut watched = BlockScores::zeros(&budget, model, params);
        watched.add_step(&budget, backend, model, params, &grads, 9).unwrap();
        let scores = match importance {
            BlockImportance::Magnitude => BlockScores::norms(&budget, backend, model, params).unwrap(),
            _ => watched.clone(),
        };
        let none = Scores::zeros(&model.config);
        prune(&mut learner, &only(budget), &none, (Some(&watched), &EmptiedBlocks::default()), 1).unwrap();
        let ids = budget.all(&learner.model);
        assert_eq!(ids.len(), encoder(matrices) * LAYERS);
        let each: Vec<Vec<bool>> = ids.iter().map(|&id| masked(&learner, id, shape)).collect();
        let group = match scope {
            BlockScope::Matrix => 1,
            BlockScope::Layer => encoder(matrices),
            BlockScope::Global => each.len(),
        };
        for (masked, scores) in each.chunks(group).zip(scores.0.chunks(group)) {
            let (masked, scores) = (masked.concat(), scores.concat());
            assert_eq!(count(&masked), (fraction * masked.len() as f64).round() as usize, "{budget:?}");
            let of = |gone: bool| {
                let pairs = scores.iter().zip(&masked);
                pairs.filter(move |(_, masked)| **masked == gone).map(|(score, _)| *score)
            };
            let highest = of(true).fold(f64::NEG_INFINITY, f64::max);
            assert!(of(false).all(|score| score >= highest), "{budget:?}");
        }
        let masks = learner.params.iter().filter(|(_, param)| param.mask.is_some());
        assert!(masks.map(|(id, _)| id).eq(ids.into_iter().collect::<std::collections::BTreeSet<_>>()));
        learner.assert_masks().unwrap();
    }
}

#[test]
fn what_was_masked_before_stays_masked() {
    let mut learner = learner(&plain());
    let (backend, id) =
        (learner.backend.clone(), id(&learner, "distilbert.transformer.layer.1.ffn.lin1.weight"));
    magnitude::mask(&backend, &mut learner.params, &[id], 0.3, Scope::Each).unwrap();
    let before = learner.params.get(id).mask.clone().unwrap();
    let none = Scores::zeros(&learner.model.config);
    prune(&mut learner, &only(blocks(0.5, SHAPES[0])), &none, (None, &EmptiedBlocks::default()), 1).unwrap();
    let after = learner.params.get(id).mask.clone().unwrap();
    assert!(before.0.iter().zip(&*after.0).all(|(before, after)| after <= before));
    assert!(after.kept() < before.kept());
    learner.assert_masks().unwrap();
}

/// Trains for `steps` steps beside `gradual`; says after which steps it pruned.
pub fn train(learner: &mut Learner<Cpu>, gradual: &mut Gradual, steps: std::ops::Range<u64>) -> Vec<u64> {
    steps.filter(|&step| step_beside(learner, gradual, step, 1e-2).is_some()).collect()
}

#[test]
fn gradual_masks_grow_by_the_cubic_schedule() {
    for (importance, shape) in [
        (BlockImportance::Magnitude, SHAPES[0]),
        (BlockImportance::Movement, SHAPES[0]),
        (BlockImportance::Gradient, SHAPES[0]),
        (BlockImportance::Fisher, SHAPES[0]),
        (BlockImportance::Movement, SHAPES[5]),
        (BlockImportance::Fisher, SHAPES[5]),
    ] {
        let mut learner = learner(&config(Architecture::DistilBert, Pooling::FirstToken, 0.1));
        let budget = BlockBudget { importance, ..blocks(0.8, shape) };
        let mut gradual = Gradual::new(only(budget), 4, 24, &learner.model.config, 1);
        let ids = budget.all(&learner.model);
        let all: Vec<usize> = budget
            .shapes(&learner.model, &learner.params)
            .iter()
            .map(|matrix| shape.count(*matrix))
            .collect();
        let mut before: Vec<Vec<bool>> = Vec::new();
        for (event, steps) in (1..=4).zip([0..4, 4..9, 9..13, 13..18]) {
            let last = steps.end - 1;
            assert_eq!(train(&mut learner, &mut gradual, steps), [last], "{importance:?}");
            let now: Vec<Vec<bool>> = ids.iter().map(|&id| masked(&learner, id, shape)).collect();
            let share = 0.8 * (1.0 - (1.0 - event as f64 / 4.0_f64).powi(3));
            for (matrix, now) in now.iter().enumerate() {
                // Whole units of blocks may have left, and with them blocks that were none of the budget's.
                let gone = all[matrix] - now.len();
                let masked = (share * all[matrix] as f64).round() as usize;
                assert!(count(now) + gone >= masked, "event {event}");
                assert!(gone > 0 || count(now) == masked, "event {event}");
                let before = before.get(matrix).filter(|before| before.len() == now.len());
                let back = before.is_some_and(|before| before.iter().zip(now).any(|(b, n)| b > n));
                assert!(!back, "a block has come back");
            }
            before = now;
        }
        assert!(Callback::<Cpu>::settled(&gradual) && !Callback::<Cpu>::watches(&gradual, 18));
        // The rest of the training keeps the masks.
        assert!(train(&mut learner, &mut gradual, 18..24).is_empty());
        assert!(ids.iter().map(|&id| masked(&learner, id, shape)).eq(before));
        crate::network::assert_masks(&learner);
    }
}

#[test]
fn measures_differ() {
    let gone = |importance| {
        let mut learner = learner(&plain());
        let budget = BlockBudget { importance, ..blocks(0.5, SHAPES[2]) };
        let mut gradual = Gradual::new(only(budget), 2, 12, &learner.model.config, 1);
        train(&mut learner, &mut gradual, 0..12);
        let ids = budget.all(&learner.model);
        ids.iter().flat_map(|&id| masked(&learner, id, SHAPES[2])).collect::<Vec<bool>>()
    };
    let all = [
        BlockImportance::Magnitude,
        BlockImportance::Movement,
        BlockImportance::Gradient,
        BlockImportance::Fisher,
    ];
    let gone = all.map(gone);
    for i in 0..gone.len() {
        assert!(gone[..i].iter().all(|other| *other != gone[i]), "{:?}", all[i]);
    }
}

#[test]
fn heads_and_units_go_before_blocks() {
    let mut learner = learner(&config(Architecture::DistilBert, Pooling::FirstToken, 0.1));
    let blocks = BlockBudget { importance: BlockImportance::Movement, ..blocks(0.6, SHAPES[0]) };
    let budget = Budget { heads: 0.5, units: 0.6, ..only(blocks) };
    let mut gradual = Gradual::new(budget, 4, 24, &learner.model.config, 1);
    let sizes = |learner: &Learner<Cpu>| {
        let layers = &learner.model.config.layers;
        layers.iter().fold((0, 0), |sum, layer| (sum.0 + layer.heads.len(), sum.1 + layer.intermediate))
    };
    assert_eq!(train(&mut learner, &mut gradual, 0..9).len(), 2);
    assert_eq!(sizes(&learner), (LAYERS * HEADS / 2, LAYERS * UNITS * 2 / 5));
    assert!(learner.params.iter().all(|(_, param)| param.mask.is_none()), "blocks come later");
    assert_eq!(train(&mut learner, &mut gradual, 9..24).len(), 2);
    assert_eq!(sizes(&learner), (LAYERS * HEADS / 2, LAYERS * UNITS * 2 / 5));
    for id in blocks.all(&learner.model) {
        let masked = masked(&learner, id, SHAPES[0]);
        assert_eq!(count(&masked), (0.6 * masked.len() as f64).round() as usize);
    }
    learner.assert_masks().unwrap();
}

#[test]
fn a_state_is_gone_on_from_and_one_of_other_blocks_is_refused() {
    let budget = BlockBudget { importance: BlockImportance::Movement, ..blocks(0.6, SHAPES[1]) };
    let new = |learner: &Learner<Cpu>, budget| Gradual::new(only(budget), 4, 24, &learner.model.config, 1);
    let (mut whole, mut broken) = (learner(&plain()), learner(&plain()));
    let mut gradual = new(&whole, budget);
    train(&mut whole, &mut gradual, 0..24);
    let mut first = new(&broken, budget);
    train(&mut broken, &mut first, 0..11);
    let saved = Callback::<Cpu>::saved(&first);
    // A score for each block, not for each weight.
    let weights: usize = budget.all(&broken.model).iter().map(|&id| broken.params.get(id).spec.len()).sum();
    assert!(saved.numbers.len() < weights / 16, "{} numbers for {weights} weights", saved.numbers.len());
    let mut second = new(&broken, budget);
    second.restore(11, saved.clone(), &broken).unwrap();
    train(&mut broken, &mut second, 11..24);
    for (id, _) in whole.params.iter() {
        let [whole, broken] =
            [&whole, &broken].map(|learner| states(learner, id).map(|s| crate::network::bits(&s)));
        assert!(whole == broken);
    }
    let other = BlockBudget { shape: SHAPES[0], ..budget };
    assert!(new(&broken, other).restore(11, saved.clone(), &broken).is_err());
    let cut = CallbackState { numbers: saved.numbers[..1].to_vec(), ..saved };
    assert!(new(&broken, budget).restore(11, cut, &broken).is_err());
}
