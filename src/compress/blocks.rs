//! Masks that drop whole blocks of a matrix: zeros that a packed product can skip.
//!
//! ```text
//! magnitude   ‖w‖₂ of the block                                        looks at the weights as they are
//! movement    -Σ over steps of Σ over the block of w·∂loss/∂w          looks at where training takes them
//! gradient    Σ over steps of (Σ over the block of w·∂loss/∂w)²        looks at what the loss would lose with them
//! fisher      Σ over steps of Σ over the block of (w·∂loss/∂w)²        the same, of each weight by itself
//! ```
//!
//! The norm is L2 because of all ways to drop so many blocks, dropping those of smallest L2 norm leaves the matrix
//! that is nearest to the one before, in Frobenius' norm; outputs then change least for inputs that are uncorrelated
//! and of one size. Movement (Sanh, Wolf and Rush, arXiv:2005.07683; by block Lagunas et al., arXiv:2109.04838)
//! is high for blocks that gradient descent moves away from zero, whatever their size. The gradient score is the
//! square of how the loss would change without the block, to first order (Molchanov et al., arXiv:1906.10771, equation
//! 8), over the steps since blocks last went; it is of one measure for all matrices, so that they may compete. A smaller
//! block at an edge competes as it is: it costs as much to keep as a whole one.
//!
//! A trained network is at a minimum, where without a block the loss grows by `½·wᵀHw`. With the empirical Fisher
//! `F = mean of g·gᵀ` for the Hessian (Optimal BERT Surgeon, Kurtic et al., arXiv:2203.07259, section 3; whose answer for a
//! group that is a whole block of a block-diagonal F this is) that is `½·mean (Σ w·g)²`: the gradient score again. The
//! fisher score is `½·wᵀ diag(F) w`, which needs fewer steps to be known, and in which weights that now undo each
//! other's effect do not pass for useless. Both leave out the factor ½/steps, which is the same for all.
//! They take the weights as they were at each step, so that a number for each block is all that is kept. A single
//! weight is a block of 1×1, for which the two are one.
//!
//! A block that has been dropped stays so: its mask is enforced by the optimizer's step, so there is neither a
//! weight nor a moment to bring back. The cubic schedule makes up for that by dropping few blocks late, when those
//! that are left matter.

use super::lowest::{fill, stay};
use super::structure::Deletion;
use crate::Result;
use crate::autograd::Grads;
use crate::models::Classifier;
use crate::nn::ParamId;
use crate::ops::Backend;
use crate::ops::blocks::{BlockShape, Summed};
use crate::params::{Mask, ParamStore};
use crate::tensor::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What makes a block important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockImportance {
    /// Its L2 norm.
    #[default]
    Magnitude,
    /// Whether training has moved it away from zero: `-Σ w·∂loss/∂w` over the block and all steps (Sanh et al., 2020;
    /// Lagunas et al., 2021). Not with `schedule = "once"`.
    Movement,
    /// How much the loss would change without it: `Σ (Σ w·∂loss/∂w)²` over the steps since blocks last went (Molchanov et
    /// al., 2019). Not with `schedule = "once"`.
    Gradient,
    /// How much the loss would change without each of its weights by itself: `Σ Σ (w·∂loss/∂w)²`, by the diagonal of the
    /// empirical Fisher information. Not with `schedule = "once"`.
    Fisher,
}

impl BlockImportance {
    /// Whether it is collected from the steps of a training.
    pub fn is_watched(self) -> bool {
        self != BlockImportance::Magnitude
    }

    /// Whether it is collected anew after blocks have gone.
    pub fn is_recent(self) -> bool {
        matches!(self, BlockImportance::Gradient | BlockImportance::Fisher)
    }
}

/// Over what blocks compete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockScope {
    /// Within each matrix: all lose the same fraction.
    #[default]
    Matrix,
    /// Within each layer: all lose the same fraction, whose matrices may lose more or less.
    Layer,
    /// Over the whole network.
    Global,
}

/// Which matrices of the layers lose blocks or single weights, or are factored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerMatrices {
    /// Those of attention and of the feed-forward part, of every layer.
    #[default]
    Encoder,
    /// Query, key, value and attention output of every layer.
    Attention,
    /// Both feed-forward matrices of every layer.
    FeedForward,
}

impl LayerMatrices {
    /// Their places in [`MatrixRanks`](crate::models::config::MatrixRanks).
    pub fn range(self) -> Range<usize> {
        match self {
            LayerMatrices::Encoder => 0..6,
            LayerMatrices::Attention => 0..4,
            LayerMatrices::FeedForward => 4..6,
        }
    }
}

/// How many blocks go, and by which measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockBudget {
    /// Fraction of the blocks that are masked; 0 for none.
    pub fraction: f64,
    /// The shape of a block.
    pub shape: BlockShape,
    /// What makes one important.
    pub importance: BlockImportance,
    /// Over what they compete.
    pub scope: BlockScope,
    /// Where they are.
    pub matrices: LayerMatrices,
}

impl BlockBudget {
    /// No block.
    pub const NONE: BlockBudget = BlockBudget {
        fraction: 0.0,
        shape: BlockShape::PACKED,
        importance: BlockImportance::Magnitude,
        scope: BlockScope::Matrix,
        matrices: LayerMatrices::Encoder,
    };

    /// The matrices that lose blocks, by layer; of factored ones both factors. Those that layers share are there once.
    pub fn layers(&self, model: &Classifier) -> Vec<Vec<ParamId>> {
        let matrices = |layer: usize| {
            let linears = model.layers[layer].linears();
            linears[self.matrices.range()].iter().flat_map(|linear| linear.matrices()).collect()
        };
        model.config.own_layers().map(matrices).collect()
    }

    /// The shapes of those matrices, in the order of [`BlockBudget::all`].
    pub fn shapes<B: Backend>(&self, model: &Classifier, params: &ParamStore<B>) -> Vec<Shape> {
        self.all(model).into_iter().map(|id| params.value(id).shape()).collect()
    }

    /// The matrices that lose blocks, in the order of [`BlockBudget::layers`].
    pub fn all(&self, model: &Classifier) -> Vec<ParamId> {
        self.layers(model).concat()
    }
}

/// Importance of each block: a list for each matrix, row of blocks by row of blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockScores(pub Vec<Vec<f64>>);

impl BlockScores {
    /// All zero.
    pub fn zeros<B: Backend>(
        budget: &BlockBudget,
        model: &Classifier,
        params: &ParamStore<B>,
    ) -> BlockScores {
        let blocks = |id: ParamId| vec![0.0; budget.shape.count(params.value(id).shape())];
        BlockScores(budget.all(model).into_iter().map(blocks).collect())
    }

    /// [`BlockImportance::Magnitude`].
    ///
    /// # Errors
    /// The device's.
    pub fn norms<B: Backend>(
        budget: &BlockBudget,
        backend: &B,
        model: &Classifier,
        params: &ParamStore<B>,
    ) -> Result<BlockScores> {
        let mut scores = BlockScores::zeros(budget, model, params);
        for (id, scores) in budget.all(model).into_iter().zip(&mut scores.0) {
            let weight = params.value(id);
            backend.block_sums(Summed::Products, weight, weight, budget.shape, scores)?;
            scores.iter_mut().for_each(|score| *score = score.sqrt());
        }
        Ok(scores)
    }

    /// Adds what one step says of a measure that is watched. The step's loss is a
    /// mean over its texts, of which there are `texts`, and counts as often: a text counts the same in a small batch as
    /// in a large one.
    ///
    /// # Errors
    /// The device's.
    pub fn add_step<B: Backend>(
        &mut self,
        budget: &BlockBudget,
        backend: &B,
        model: &Classifier,
        params: &ParamStore<B>,
        grads: &Grads<B>,
        texts: usize,
    ) -> Result<()> {
        for (id, scores) in budget.all(model).into_iter().zip(&mut self.0) {
            let Some(gradient) = grads.param(id) else { continue };
            let (weight, mut sums) = (params.value(id), vec![0.0; scores.len()]);
            let is_fisher = budget.importance == BlockImportance::Fisher;
            let summed = if is_fisher { Summed::Squares } else { Summed::Products };
            backend.block_sums(summed, weight, gradient, budget.shape, &mut sums)?;
            let scale = grads.scale().powi(if is_fisher { 2 } else { 1 });
            sums.iter_mut().for_each(|sum| *sum /= scale);
            match budget.importance {
                BlockImportance::Gradient => sums.iter_mut().for_each(|slope| *slope *= *slope),
                BlockImportance::Movement => sums.iter_mut().for_each(|slope| *slope = -*slope),
                BlockImportance::Fisher | BlockImportance::Magnitude => {}
            }
            scores.iter_mut().zip(sums).for_each(|(score, sum)| *score += texts as f64 * sum);
        }
        Ok(())
    }

    /// What is left of them where heads and units left the network, whose matrices had these shapes.
    pub(super) fn shrink(&mut self, budget: &BlockBudget, deletion: &Deletion, before: &[Shape]) {
        let BlockShape { outputs, inputs } = budget.shape;
        for ((id, scores), shape) in budget.all(&deletion.model).into_iter().zip(&mut self.0).zip(before) {
            let Some(part) = deletion.parts.get(&id) else { continue };
            let [_, across] = budget.shape.grid(*shape);
            // Whole blocks have gone: the first row and the first column stand for all.
            let stays = |kept: &Option<Vec<usize>>, first: usize| {
                kept.as_ref().is_none_or(|kept| kept.binary_search(&first).is_ok())
            };
            let mut place = 0..;
            scores.retain(|_| {
                let place = place.next().expect("endless");
                stays(&part.rows, place / across * outputs) && stays(&part.cols, place % across * inputs)
            });
        }
    }

    /// Lists of these lengths, filled from one; `None` if it is not as long as all of them.
    pub(super) fn unflatten(mut self, flat: &[f64]) -> Option<BlockScores> {
        fill(self.0.iter_mut().flatten(), flat)?;
        Some(self)
    }
}

/// For each matrix of [`BlockBudget::all`], how many of its blocks were deleted with heads and units that had no block left. They
/// still count towards the budget's fraction. Empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmptiedBlocks(pub Vec<usize>);

impl EmptiedBlocks {
    /// Counts what left between two states of the matrices.
    pub(super) fn add(&mut self, shape: BlockShape, before: &[Shape], after: &[Shape]) {
        self.0.resize(before.len(), 0);
        for ((gone, before), after) in self.0.iter_mut().zip(before).zip(after) {
            *gone += shape.count(*before) - shape.count(*after);
        }
    }
}

/// Masks `budget.fraction` of the blocks, by what was `watched` or, where that is not asked for or there is nothing yet,
/// by magnitude. Blocks that are zero already count, and come first, and so do those of each matrix that have left it
/// ([`EmptiedBlocks`]). What was masked before stays masked.
///
/// # Errors
/// The device's.
pub fn mask<B: Backend>(
    backend: &B,
    model: &Classifier,
    params: &mut ParamStore<B>,
    budget: &BlockBudget,
    watched: Option<&BlockScores>,
    gone: &EmptiedBlocks,
) -> Result<()> {
    let norms = BlockScores::norms(budget, backend, model, params)?;
    let watched = watched.filter(|_| budget.importance.is_watched());
    let mut scores = watched.unwrap_or(&norms).clone();
    for (score, norm) in scores.0.iter_mut().flatten().zip(norms.0.iter().flatten()) {
        if *norm == 0.0 {
            *score = f64::NEG_INFINITY;
        }
    }
    let layers = budget.layers(model);
    let groups: Vec<usize> = match budget.scope {
        BlockScope::Matrix => vec![1; layers.iter().map(Vec::len).sum()],
        BlockScope::Layer => layers.iter().map(Vec::len).collect(),
        BlockScope::Global => vec![layers.iter().map(Vec::len).sum()],
    };
    let (mut ids, mut scores) = (budget.all(model).into_iter(), &scores.0[..]);
    let mut gone = gone.0.iter();
    for matrices in groups {
        let (group, rest) = scores.split_at(matrices);
        scores = rest;
        let gone = gone.by_ref().take(matrices).sum();
        for (kept, id) in kept(group, gone, budget.fraction).into_iter().zip(&mut ids) {
            let param = params.get(id);
            let mut mask = elements(&kept, budget.shape, param.value().shape());
            if let Some(before) = &param.mask {
                mask = Mask(mask.0.iter().zip(&*before.0).map(|(kept, before)| kept & before).collect());
            }
            params.set_mask(backend, id, mask)?;
        }
    }
    Ok(())
}

/// Which blocks stay when exactly `round(fraction · all)` go, those of lowest score. So many have gone before, of those that there
/// were.
fn kept(scores: &[Vec<f64>], gone: usize, fraction: f64) -> Vec<Vec<bool>> {
    let all = scores.iter().map(Vec::len).sum::<usize>() + gone;
    stay(scores, ((fraction * all as f64).round() as usize).saturating_sub(gone))
}

/// The mask of a matrix of this shape.
fn elements(kept: &[bool], block: BlockShape, matrix: Shape) -> Mask {
    let [_, across] = block.grid(matrix);
    let place = |i: usize| {
        let (row, col) = (i / matrix.cols, i % matrix.cols);
        row / block.outputs * across + col / block.inputs
    };
    Mask((0..matrix.len()).map(|i| u8::from(kept[place(i)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_asked_fraction_goes_even_among_equals() {
        let scores = vec![vec![1.0, 3.0, 1.0], vec![1.0, f64::NEG_INFINITY]];
        assert_eq!(kept(&scores, 0, 0.0), [vec![true; 3], vec![true; 2]]);
        assert_eq!(kept(&scores, 0, 0.6), [vec![false, true, false], vec![true, false]]);
        assert_eq!(kept(&scores, 0, 1.0), [vec![false; 3], vec![false; 2]]);
        // Five of ten have gone: six tenths are one more.
        assert_eq!(kept(&scores, 5, 0.6), [vec![true; 3], vec![true, false]]);
        assert_eq!(kept(&scores, 5, 0.4), [vec![true; 3], vec![true; 2]]);
    }

    #[test]
    fn blocks_at_the_edges_are_smaller() {
        let block = BlockShape { outputs: 2, inputs: 3 };
        let mask = elements(&[true, false, false, true], block, Shape::new(3, 4));
        assert_eq!(*mask.0, [1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1]);
    }
}
