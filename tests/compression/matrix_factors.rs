//! Factored matrices compute what their products do, keep all else, learn, shrink and become whole again.

use crate::common::distance;
use crate::network::{assert_masks, bits, change, config, download, examples, id, learner, plain, states};
use crate::oracle::Oracle;
use crate::slopes::compare_with_gate_gradients;
use limbeck::backend::Cpu;
use limbeck::compress::EmptiedBlocks;
use limbeck::compress::expand::expand;
use limbeck::compress::matrix_factors::{Spectrum, factorize, factorize_to, pays, unfactor};
use limbeck::compress::{BlockBudget, Budget, Keep, LayerMatrices, RankBudget, RankScope, Scope, Scores};
use limbeck::compress::{delete, prune};
use limbeck::infer::{Model, Session};
use limbeck::models::config::{Architecture, Pooling};
use limbeck::models::{Classifier, ModelConfig};
use limbeck::nn::ParamId;
use limbeck::ops::blocks::BlockShape;
use limbeck::params::{Mask, ParamStore};
use limbeck::train::Learner;
use limbeck::train::learner::{gradients, logits};

const QUERY: &str = "distilbert.transformer.layer.0.attention.q_lin.weight";
const QUERY_DOWN: &str = "distilbert.transformer.layer.0.attention.q_lin.down.weight";

fn families() -> [ModelConfig; 2] {
    [(Architecture::DistilBert, Pooling::FirstToken), (Architecture::Bert, Pooling::Mean)]
        .map(|(architecture, pooling)| config(architecture, pooling, 0.0))
}

const FIFTH: RankBudget =
    RankBudget { fraction: 0.2, scope: RankScope::Matrix, matrices: LayerMatrices::Encoder };

pub fn values(learner: &Learner<Cpu>) -> Vec<Vec<f32>> {
    learner.params.iter().map(|(_, param)| download(learner, param.value())).collect()
}

/// The configuration of the network expressed densely, and its logits.
pub fn expanded(learner: &Learner<Cpu>, batch: &limbeck::Batch) -> (ModelConfig, Vec<f32>) {
    let (config, values) = expand(&learner.model.config, values(learner));
    let (model, specs) = Classifier::new(&config);
    let mut values = values.into_iter();
    let params = ParamStore::new(&learner.backend, &specs, |_| Ok(values.next().unwrap())).unwrap();
    (config, logits(&learner.backend, &model, &params, batch).unwrap())
}

/// The logits of the formulas in f64, one text after the other.
pub fn of_formulas(learner: &Learner<Cpu>, batch: &limbeck::Batch) -> Vec<f32> {
    let mut values = values(learner).into_iter();
    let oracle = Oracle::new(&learner.model.config, |_| Ok(values.next().unwrap()), false);
    let texts = (0..batch.texts()).map(|text| &batch.ids[batch.text(text)]);
    texts.flat_map(|ids| oracle.logits(ids)).map(|logit| logit as f32).collect()
}

#[test]
fn factors_compute_what_their_products_do() {
    for config in families() {
        for matrices in [LayerMatrices::Encoder, LayerMatrices::Attention, LayerMatrices::FeedForward] {
            let mut factored = learner(&config);
            let batch = examples(0..9).batch;
            let whole = factored.logits(&batch).unwrap();
            let report = factorize(&mut factored, &RankBudget { matrices, ..FIFTH }).unwrap();
            let each = matrices.range().len();
            assert_eq!(report.matrices, [3 * each, 3 * each]);
            assert!(report.parameters[1] < report.parameters[0]);
            assert!(report.energy > 0.3 && report.energy < 0.9, "random rows have no low rank: {report:?}");
            // 24·24 and 20·24, of 24 and of 20.
            let mut ranks = [0; 6];
            matrices.range().for_each(|place| ranks[place] = [5, 5, 5, 5, 4, 4][place]);
            assert_eq!(factored.model.config.ranks, [ranks; 3]);

            let found = factored.logits(&batch).unwrap();
            let (dense, expected) = expanded(&factored, &batch);
            assert_eq!(dense, config);
            assert!(distance(&found, &expected) <= 1e-5, "{:?}", config.architecture);
            assert!(distance(&found, &of_formulas(&factored, &batch)) <= 2e-5);
            assert!(distance(&found, &whole) > 1e-2, "something was lost");
            // The session computes what the tape does.
            let mut values = values(&factored).into_iter();
            let model = Model::from_values(&factored.model.config, |_| Ok(values.next().unwrap())).unwrap();
            let session = Session::new(&model).logits(&batch).unwrap().to_vec();
            assert!(distance(&session, &found) <= 1e-6, "{:?}", config.architecture);
        }
    }
}

#[test]
fn of_full_rank_it_is_the_same_function_and_less_loses_more() {
    let batch = examples(0..9).batch;
    let whole = learner(&plain()).logits(&batch).unwrap();
    let loss = |less: usize| {
        let mut factored = learner(&plain());
        let full = |of: &Spectrum| of.sides[0].min(of.sides[1]) - less;
        factorize_to(&mut factored, LayerMatrices::Encoder, |all| all.iter().map(full).collect()).unwrap();
        distance(&factored.logits(&batch).unwrap(), &whole)
    };
    assert!(loss(0) <= 1e-5);
    let losses = [1, 6, 12, 18].map(loss);
    assert!(losses[0] > 1e-5 && losses.is_sorted(), "{losses:?}");
    // Where a product is no smaller, all stays as it is.
    let mut same = learner(&plain());
    let report = factorize(&mut same, &RankBudget { fraction: 1.0, ..FIFTH }).unwrap();
    assert_eq!((report.matrices[0], same.model.config.ranks.len()), (0, 0));
    assert_eq!(bits(&same.logits(&batch).unwrap()), bits(&whole));
}

#[test]
fn a_global_budget_has_no_more_parameters_and_keeps_more() {
    let made = |scope| {
        let mut factored = learner(&plain());
        // One matrix of nearly rank 2.
        let query = id(&factored, QUERY);
        change(&mut factored, query, |row, col, x| {
            0.02 * x + [1.0, -0.5][row % 2] * (col as f32 * 0.7).sin()
        });
        let report = factorize(&mut factored, &RankBudget { scope, ..FIFTH }).unwrap();
        (report, factored.model.config.ranks[0][0])
    };
    let ((even, even_rank), (global, global_rank)) = (made(RankScope::Matrix), made(RankScope::Global));
    assert!(global.parameters[1] <= even.parameters[1] && global.energy > even.energy, "{global:?} {even:?}");
    assert!(global_rank < 3 && even_rank == 5, "{global_rank}");
}

#[test]
fn all_else_keeps_values_masks_and_moments_and_the_network_learns() {
    let mut learner = learner(&plain());
    let masked = "distilbert.transformer.layer.1.ffn.lin1.weight";
    let of = id(&learner, masked);
    let mask = Mask((0..20 * 24).map(|i| u8::from(i % 3 > 0)).collect());
    learner.params.set_mask(&learner.backend, of, mask.clone()).unwrap();
    (0..3).for_each(|step| _ = learner.step(&examples(step * 4..step * 4 + 4), None, 1e-2, None).unwrap());
    let before: Vec<_> =
        learner.params.iter().map(|(id, param)| (param.spec.name.clone(), states(&learner, id))).collect();
    assert_eq!(factorize(&mut learner, &FIFTH).unwrap().matrices, [17, 17]);
    // What is masked stays whole: zeros of a matrix are none of its factors.
    assert_eq!(learner.model.config.ranks[1], [5, 5, 5, 5, 0, 4]);
    let is_matrix =
        |name: &str| name.contains("_lin.weight") || name.contains("ffn.lin") && !name.contains("bias");
    for (name, states_before) in before.iter().filter(|(name, _)| name == masked || !is_matrix(name)) {
        assert!(states(&learner, id(&learner, name)) == *states_before, "{name}");
    }
    assert_eq!(learner.params.len(), before.len() + 17);
    assert_eq!(learner.optimizer.steps(), 3);
    assert_eq!(learner.params.get(id(&learner, masked)).mask.as_ref(), Some(&mask));
    let [_, m, v] = states(&learner, id(&learner, QUERY_DOWN));
    assert!(m.iter().chain(&v).all(|&moment| moment == 0.0));

    let (_, grads) =
        gradients(&learner.backend, &learner.model, &learner.params, &examples(0..6), None, None).unwrap();
    for (id, param) in learner.params.iter().filter(|(_, param)| param.spec.name.contains("layer.")) {
        let gradient = grads.param(id).expect("it matters");
        assert!(download(&learner, gradient).iter().any(|&x| x != 0.0), "{}", param.spec.name);
    }
    let mut step = || learner.step(&examples(0..6), None, 1e-2, None).unwrap().loss;
    let first = step();
    let last = (0..20).map(|_| step()).last().unwrap();
    assert!(last < 0.5 * first, "{first} {last}");
    assert_masks(&learner);
}

#[test]
fn gradients_of_factors_are_slopes_of_the_loss() {
    for config in families() {
        let mut learner = learner(&config);
        factorize(&mut learner, &FIFTH).unwrap();
        let compared = compare_with_gate_gradients(&learner, &examples(0..6), |name| name.contains("layer."));
        // Both factors and the bias of each of six matrices, and two norms.
        assert_eq!(compared, 3 * (6 * 3 + 4) - 3, "all but the biases of keys");
    }
}

#[test]
fn heads_and_units_go_from_factors_as_from_products() {
    for config in families() {
        let mut factored = learner(&config);
        factorize(&mut factored, &FIFTH).unwrap();
        let keep = Keep {
            heads: vec![vec![0, 2], vec![1, 2, 3], vec![3]],
            units: vec![(0..13).collect(), (3..20).collect(), vec![2, 5, 19]],
            ..Keep::all(&config)
        };
        let (dense, values) = expand(&factored.model.config, values(&factored));
        let mut of_products = learner(&dense);
        for (place, values) in values.into_iter().enumerate() {
            change(&mut of_products, ParamId(place as u32), |row, col, _| {
                values[row * columns(&dense, place) + col]
            });
        }
        let norms = [&factored, &of_products].map(|of| {
            let scores = Scores::norms(&of.backend, &of.model, &of.params).unwrap();
            scores.flatten().into_iter().map(|score| score as f32).collect::<Vec<f32>>()
        });
        assert!(distance(&norms[0], &norms[1]) <= 1e-5, "what norms say of both");
        for learner in [&mut factored, &mut of_products] {
            delete(learner, &keep).unwrap();
        }
        let batch = examples(0..9).batch;
        let found = factored.logits(&batch).unwrap();
        assert!(distance(&found, &of_products.logits(&batch).unwrap()) <= 1e-5);
        assert_eq!(factored.model.config.ranks, [[5, 5, 5, 5, 4, 4]; 3], "ranks stay");

        // With 1 head of 6 columns and 3 units, products of rank 4 or 5 are no smaller; with 3 heads they are.
        let whole = unfactor(&mut factored).unwrap();
        let ranks = factored.model.config.ranks.clone();
        for (layer, ranks) in ranks.iter().enumerate() {
            let sides = factored.model.config.sides(layer);
            for (place, &rank) in ranks.iter().enumerate() {
                let was = [5, 5, 5, 5, 4, 4][place];
                assert_eq!(rank, if pays(sides[place], was) { was } else { 0 });
            }
        }
        assert_eq!(ranks[2], [0; 6]);
        assert!(whole == ranks.as_flattened().iter().filter(|&&rank| rank == 0).count() && whole < 18);
        assert!(distance(&factored.logits(&batch).unwrap(), &found) <= 1e-5);
        factored.step(&examples(0..6), None, 1e-2, None).unwrap();
        assert_eq!(unfactor(&mut factored).unwrap(), 0);
    }
}

fn columns(config: &ModelConfig, place: usize) -> usize {
    Classifier::new(config).1[place].cols
}

#[test]
fn blocks_and_weights_of_factors_are_masked_and_masked_factors_stay() {
    let blocks =
        BlockBudget { fraction: 0.5, shape: BlockShape { outputs: 4, inputs: 4 }, ..BlockBudget::NONE };
    for (budget, masked) in [
        (Budget { blocks, ..Budget::NONE }, 3 * 12),
        (Budget { weights: 0.5, weight_scope: Scope::Each, ..Budget::NONE }, 3 * 4),
    ] {
        let mut learner = learner(&plain());
        factorize(&mut learner, &FIFTH).unwrap();
        let scores = Scores::zeros(&learner.model.config);
        prune(&mut learner, &budget, &scores, (None, &EmptiedBlocks::default()), 0).unwrap();
        let masks: Vec<_> = learner.params.iter().filter(|(_, param)| param.mask.is_some()).collect();
        assert_eq!(masks.len(), masked);
        for (_, param) in &masks {
            let (kept, all) = (param.mask.as_ref().unwrap().kept(), param.spec.len());
            assert!(kept < all && kept > 0, "{}: {kept} of {all}", param.spec.name);
        }
        learner.step(&examples(0..6), None, 1e-2, None).unwrap();
        assert_masks(&learner);
        let units = (0..3).map(|_| vec![0, 1]).collect();
        let keep = Keep { units, ..Keep::all(&learner.model.config) };
        delete(&mut learner, &keep).unwrap();
        let whole = unfactor(&mut learner).unwrap();
        assert_eq!(whole, 0, "zeros of a factor are none of the product: those of two units stay factored");
        assert_masks(&learner);
    }
}
