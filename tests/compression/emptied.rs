//! What masks have emptied leaves, and nobody notices: logits, moments and masks of the rest are what they were.

use crate::blocks::{only, train};
use crate::common::{distance, magnitude};
use crate::network::{
    HEAD_SIZE, HEADS, UNITS, assert_masks, config, download, examples, id, learner, states,
};
use limbeck::autograd::Tape;
use limbeck::backend::Cpu;
use limbeck::compress::{BlockBudget, BlockImportance, BlockScope, Gradual, delete_emptied};
use limbeck::models::config::{Activation, Architecture, Pooling};
use limbeck::ops::blocks::BlockShape;
use limbeck::params::Mask;
use limbeck::train::{Callback, Learner};

const PACKED: BlockShape = BlockShape::PACKED;

fn logits(learner: &Learner<Cpu>) -> Vec<f32> {
    let batch = examples(0..12).batch;
    let mut tape = Tape::evaluating(&learner.backend, &learner.params, &batch);
    let logits = learner.model.forward(&mut tape).unwrap();
    download(learner, logits.tensor())
}

/// Masks what `gone` says of row and column of a matrix of a layer.
fn mask(learner: &mut Learner<Cpu>, layer: usize, part: &str, gone: impl Fn(usize, usize) -> bool) {
    let id = id(learner, &format!("distilbert.transformer.layer.{layer}.{part}.weight"));
    let (backend, shape) = (learner.backend.clone(), learner.params.value(id).shape());
    let kept = |i: usize| u8::from(!gone(i / shape.cols, i % shape.cols));
    let mask = Mask((0..shape.len()).map(kept).collect());
    learner.params.set_mask(&backend, id, mask).unwrap();
    learner.optimizer.mask(&backend, &learner.params).unwrap();
}

#[test]
fn logits_stay_when_emptied_heads_and_units_leave() {
    for activation in [Activation::Gelu, Activation::Relu, Activation::Tanh] {
        let mut config = config(Architecture::DistilBert, Pooling::FirstToken, 0.0);
        config.activation = activation;
        let mut learner = learner(&config);
        learner.step(&examples(0..9), None, 1e-2, None).unwrap();
        let of_head = |head: usize, place: usize| place / HEAD_SIZE == head;
        // Heads: one that is not read, one whose values are its bias, one of which only a part is gone.
        mask(&mut learner, 0, "attention.out_lin", |_, col| of_head(1, col));
        mask(&mut learner, 1, "attention.v_lin", |row, _| of_head(3, row));
        mask(&mut learner, 2, "attention.v_lin", |row, _| of_head(0, row) && row > 0);
        // Units: the same; and all of a layer.
        mask(&mut learner, 0, "ffn.lin2", |_, col| col == 7);
        mask(&mut learner, 1, "ffn.lin1", |row, col| row > 16 || col == 2);
        mask(&mut learner, 2, "ffn.lin2", |_, _| true);
        let (before, loud) =
            (logits(&learner), id(&learner, "distilbert.transformer.layer.0.ffn.lin1.weight"));
        let kept = states(&learner, loud);
        let deletion = delete_emptied(&mut learner, BlockShape::SINGLE).unwrap();
        assert!(deletion.is_some());
        let left: Vec<(Vec<usize>, usize)> = learner
            .model
            .config
            .layers
            .iter()
            .map(|layer| (layer.heads.clone(), layer.intermediate))
            .collect();
        let all: Vec<usize> = (0..HEADS).collect();
        assert_eq!(left, [(vec![0, 2, 3], UNITS - 1), (vec![0, 1, 2], 17), (all, 0)]);
        let after = logits(&learner);
        assert!(distance(&before, &after) <= 1e-5 * magnitude(&before), "{activation:?}");
        let width = HEADS * HEAD_SIZE;
        for (state, kept) in states(&learner, loud).iter().zip(kept) {
            let expected: Vec<f32> = [&kept[..7 * width], &kept[8 * width..]].concat();
            assert_eq!(*state, expected, "values and moments of what is left");
        }
        assert_masks(&learner);
        assert!(
            delete_emptied(&mut learner, BlockShape::SINGLE).unwrap().is_none(),
            "nothing is left to leave"
        );
    }
}

/// Groups of units are as wide as the packed layout's blocks; a head of six columns would leave parts of blocks.
#[test]
fn what_is_left_is_of_whole_blocks() {
    let mut learner = learner(&config(Architecture::DistilBert, Pooling::FirstToken, 0.0));
    mask(&mut learner, 0, "attention.v_lin", |row, _| row < HEAD_SIZE);
    mask(&mut learner, 0, "ffn.lin1", |row, _| row < 16);
    mask(&mut learner, 1, "ffn.lin1", |row, _| row < 15);
    mask(&mut learner, 2, "ffn.lin2", |_, col| col >= 16);
    let before = logits(&learner);
    delete_emptied(&mut learner, PACKED).unwrap();
    let left: Vec<[usize; 2]> =
        learner.model.config.layers.iter().map(|layer| [layer.heads.len(), layer.intermediate]).collect();
    assert_eq!(left, [[HEADS, 4], [HEADS, UNITS], [HEADS, 16]]);
    assert!(distance(&before, &logits(&learner)) <= 1e-5 * magnitude(&before));
}

/// The budget is of the blocks that there were at first, also when whole units of them have left in between; and what is
/// saved in the middle goes on as if nothing had happened.
#[test]
fn budgets_count_what_has_left() {
    for (importance, shape) in [
        (BlockImportance::Movement, BlockShape::SINGLE),
        (BlockImportance::Magnitude, BlockShape::SINGLE),
        (BlockImportance::Gradient, PACKED),
    ] {
        let blocks =
            BlockBudget { fraction: 0.95, shape, importance, scope: BlockScope::Global, ..BlockBudget::NONE };
        let budget = only(blocks);
        let dense = config(Architecture::DistilBert, Pooling::FirstToken, 0.1);
        let mut learner = learner(&dense);
        let all: usize =
            blocks.shapes(&learner.model, &learner.params).iter().map(|matrix| shape.count(*matrix)).sum();
        let mut gradual = Gradual::new(budget, 4, 24, &dense, 1);
        for step in 0..24 {
            train(&mut learner, &mut gradual, step..step + 1);
            let mut again = Gradual::new(budget, 4, 24, &dense, 1);
            let saved = Callback::<Cpu>::saved(&gradual);
            again.restore(step, saved.clone(), &learner).unwrap();
            assert_eq!(Callback::<Cpu>::saved(&again), saved);
            gradual = again;
        }
        let left = learner.model.config.layers.iter().map(|layer| layer.intermediate).sum::<usize>();
        assert!(left < 3 * UNITS, "{importance:?}: units have left");
        let live = |id| {
            let param = learner.params.get(id);
            let (matrix, mask) = (param.value().shape(), param.mask.as_ref());
            let [_, across] = shape.grid(matrix);
            let mut blocks: Vec<usize> = (0..matrix.len())
                .filter(|i| mask.is_none_or(|mask| mask.0[*i] != 0))
                .map(|i| i / matrix.cols / shape.outputs * across + i % matrix.cols / shape.inputs)
                .collect();
            blocks.sort_unstable();
            blocks.dedup();
            blocks.len()
        };
        let live: usize = blocks.all(&learner.model).into_iter().map(live).sum();
        let asked = all - (0.95 * all as f64).round() as usize;
        // What a bias has taken over has left as well, beyond the budget.
        assert!(
            live <= asked && live * 2 >= asked,
            "{importance:?}: {live} of {all} blocks, asked for {asked}"
        );
        assert_masks(&learner);
    }
}
