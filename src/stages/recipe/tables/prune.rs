//! `[prune]`: how networks become smaller.

use super::Train;
use crate::compress::{
    BlockImportance, BlockScope, Importance, LayerImportance, LayerMatrices, RankScope, Rewind, Scope,
    ShareStart, WidthImportance,
};
use serde::{Deserialize, Serialize};

/// What makes a feed-forward unit important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitImportance {
    /// Mean of |∂loss/∂gate| for a gate on the unit's output.
    #[default]
    Gradient,
    /// Mean of (∂loss/∂gate)².
    Fisher,
    /// L2 norm of the unit's row in the first matrix and column in the second.
    Norm,
    /// Chance, from the seed: the control.
    Random,
}

impl From<UnitImportance> for Importance {
    fn from(unit: UnitImportance) -> Importance {
        match unit {
            UnitImportance::Gradient => Importance::Gradient,
            UnitImportance::Fisher => Importance::Fisher,
            UnitImportance::Norm => Importance::Norm,
            UnitImportance::Random => Importance::Random,
        }
    }
}

/// What makes a single weight important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightImportance {
    /// Its absolute value.
    #[default]
    Magnitude,
    /// Whether training moves it away from zero: `-Σ w·∂loss/∂w` over all steps (Sanh et al., 2020). Not with
    /// `schedule = "once"`.
    Movement,
    /// How the loss would change without it, by the diagonal of the empirical Fisher information: `Σ (w·∂loss/∂w)²` over
    /// the steps since weights last went. Not with `schedule = "once"`.
    Fisher,
}

impl From<WeightImportance> for BlockImportance {
    fn from(weight: WeightImportance) -> BlockImportance {
        match weight {
            WeightImportance::Magnitude => BlockImportance::Magnitude,
            WeightImportance::Movement => BlockImportance::Movement,
            WeightImportance::Fisher => BlockImportance::Fisher,
        }
    }
}

/// Over what a budget is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerScope {
    /// The whole network: the least important go first, wherever they are.
    #[default]
    Global,
    /// The same fraction of each layer.
    Layer,
}

impl From<LayerScope> for Scope {
    fn from(scope: LayerScope) -> Scope {
        match scope {
            LayerScope::Global => Scope::Global,
            LayerScope::Layer => Scope::Each,
        }
    }
}

/// Over what the magnitude masks are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightScope {
    /// All masked matrices together.
    #[default]
    Global,
    /// The same fraction of each matrix.
    Matrix,
}

impl From<WeightScope> for Scope {
    fn from(scope: WeightScope) -> Scope {
        match scope {
            WeightScope::Global => Scope::Global,
            WeightScope::Matrix => Scope::Each,
        }
    }
}

/// When pruning happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// All at once, nothing trained.
    #[default]
    Once,
    /// In `events` steps during `[prune.train]`, much at first and little at the end: after a fraction t of
    /// the way, `1 - (1 - t)³` of the final amount is gone (Zhu & Gupta, 2017).
    Cubic,
    /// In rounds: `[prune.train]` is cut into `events` + 1 equal parts, and after each but the last the same fraction of
    /// what is left goes, such that the final amount is gone after the last event. What follows an event is
    /// `rewind`'s to say.
    Iterative,
}

/// `[prune]`: what is removed, and by which measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prune {
    /// Fraction of whole layers deleted, before anything else goes and before the first step of `[prune.train]`.
    /// One layer stays at least. What else is a fraction, is one of the layers that stay. Default 0.
    pub layers: f64,
    /// The layers that stay, counted from 0, ascending, as `[0, 2, 5]`; instead of `layers`. Default `[]`: by
    /// `layers`.
    pub keep_layers: Vec<usize>,
    /// `"gradient"`, `"uniform"`, `"last"` or `"random"`. Default `"gradient"`.
    pub layer_importance: LayerImportance,
    /// Fraction of hidden features deleted, with their column or row of every matrix; after layers and word pieces, and
    /// before the first step of `[prune.train]`. One stays at least. Heads keep their size. Not an exact deletion:
    /// norms take the mean of the features that are left. Default 0.
    #[serde(skip_serializing_if = "is_nothing")]
    pub hidden: f64,
    /// `"gradient"`, `"norm"` or `"random"`. Default `"gradient"`.
    #[serde(skip_serializing_if = "is_default")]
    pub hidden_importance: WidthImportance,
    /// Fraction of attention heads deleted. Default 0.
    pub heads: f64,
    /// `"gradient"`, `"fisher"`, `"block-fisher"`, `"attention"`, `"norm"` or `"random"`. Default `"gradient"`.
    pub head_importance: Importance,
    /// `"global"` or `"layer"`. Default `"global"`.
    pub head_scope: LayerScope,
    /// Fraction of feed-forward units deleted, each with its row and column of weights. Default 0.
    pub units: f64,
    /// `"gradient"`, `"fisher"`, `"norm"` or `"random"`. Default `"gradient"`.
    pub unit_importance: UnitImportance,
    /// `"global"` or `"layer"`. Default `"global"`.
    pub unit_scope: LayerScope,
    /// Fraction of the remaining weights of `weight_matrices` set to zero, least important first. Makes the file smaller, not
    /// the model faster. Default 0.
    pub weights: f64,
    /// `"feed-forward"`, `"attention"` or `"encoder"` (both). Default `"feed-forward"`.
    #[serde(skip_serializing_if = "is_feed_forward")]
    pub weight_matrices: LayerMatrices,
    /// `"magnitude"`, `"movement"` or `"fisher"`. With the latter two, where heads or units go too, they go first: in the
    /// first half of the events. Default `"magnitude"`.
    #[serde(skip_serializing_if = "is_default")]
    pub weight_importance: WeightImportance,
    /// Fraction of the classification head's weights set to zero, smallest magnitude first. Default 0.
    pub classifier: f64,
    /// `"global"` or `"matrix"`. Default `"global"`.
    pub weight_scope: WeightScope,
    /// Fraction of the blocks of the encoder's matrices set to zero, which a packed int8 product can skip.
    /// Default 0. Where heads or units go too, they go first: in the first half of the events.
    pub blocks: f64,
    /// `[outputs, inputs]` of a block: 4, 8, 16 or 32 consecutive outputs by 4, 8, 16 or 32 consecutive inputs.
    /// Default `[16, 4]`: one 64-byte register of the int8 layout.
    pub block_shape: [usize; 2],
    /// `"magnitude"`, `"movement"`, `"gradient"` or `"fisher"`. Default `"magnitude"`.
    pub block_importance: BlockImportance,
    /// `"matrix"`, `"layer"` or `"global"`. Default `"matrix"`.
    pub block_scope: BlockScope,
    /// `"encoder"`, `"attention"` or `"feed-forward"`. Default `"encoder"`.
    pub block_matrices: LayerMatrices,
    /// Most word pieces that are kept; 0 = all. Kept are the special tokens, the characters of the training texts,
    /// alone and inside of words, then the pieces that the training texts use most. Pieces that they never use go,
    /// however much room there is. Words whose piece goes are spelled with smaller ones; the baseline, as a teacher, goes
    /// on reading with all. Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub vocabulary: usize,
    /// Positions that are kept, the first ones; 0 = all. `data.max_tokens` or more; whoever deploys the file can give it texts of
    /// so many tokens, and no longer ones. Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub positions: usize,
    /// Width of the word table's rows, from which a projection makes the network's: a table of so many columns and a
    /// small matrix in the place of one table, by a singular value decomposition of it, trained from there. 0 = as wide
    /// as the network. Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub embedding_size: usize,
    /// Sets of parameters that the layers that stay have among them: neighbours share one, in groups as even as they can be
    /// (ALBERT, Lan et al., 2020). Stored once and trained as one; as slow as before. 0 = each layer has its own. Heads and units
    /// of such layers go together. Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub share: usize,
    /// `"mean"` or `"first"`. Default `"mean"`.
    #[serde(skip_serializing_if = "is_default")]
    pub share_start: ShareStart,
    /// Rank of the encoder's matrices, as a fraction of the full one: each becomes the product of two thin ones, by a singular
    /// value decomposition, trained from there. A matrix that would not become smaller stays whole, as does one that is masked
    /// already; one whose factors are no smaller after pruning becomes whole again. 0 = all are whole. Default 0.
    #[serde(skip_serializing_if = "is_nothing")]
    pub rank: f64,
    /// `"encoder"`, `"attention"` or `"feed-forward"`. Default `"encoder"`.
    #[serde(skip_serializing_if = "is_default")]
    pub rank_matrices: LayerMatrices,
    /// `"matrix"` or `"global"`. Default `"matrix"`.
    #[serde(skip_serializing_if = "is_default")]
    pub rank_scope: RankScope,
    /// The first layers, of those that stay, in which each sentence of a pair attends to itself alone (Cao et al., 2020): what
    /// they make of a first sentence can be kept, and used with any number of second ones. At least one layer has to
    /// read both. Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub decouple: usize,
    /// Training texts that importance is measured on. Default 2000.
    pub samples: usize,
    /// `"once"`, `"cubic"` or `"iterative"`. Default `"once"`.
    pub schedule: Schedule,
    /// Pruning events of the cubic schedule, spread evenly over the first three quarters of
    /// `[prune.train]`, whose last quarter recovers; or of the iterative one, one after each round but the last.
    /// Default 8.
    pub events: usize,
    /// `"weights"`, `"rate"` or `"none"`: what the iterative schedule sets back after an event. Default `"weights"`.
    #[serde(skip_serializing_if = "is_default")]
    pub rewind: Rewind,
    /// To where: a fraction, less than 1, of the steps of the first round. Default 0: the network as the stage began
    /// with it.
    #[serde(skip_serializing_if = "is_nothing")]
    pub rewind_to: f64,
    /// Training while pruning, with `[distill]`'s teacher and loss. Used by the cubic and the iterative schedule.
    pub train: Train,
}

impl Default for Prune {
    fn default() -> Self {
        Prune {
            layers: 0.0,
            keep_layers: Vec::new(),
            layer_importance: LayerImportance::Gradient,
            hidden: 0.0,
            hidden_importance: WidthImportance::Gradient,
            heads: 0.0,
            head_importance: Importance::Gradient,
            head_scope: LayerScope::Global,
            units: 0.0,
            unit_importance: UnitImportance::Gradient,
            unit_scope: LayerScope::Global,
            weights: 0.0,
            weight_matrices: LayerMatrices::FeedForward,
            weight_importance: WeightImportance::Magnitude,
            classifier: 0.0,
            weight_scope: WeightScope::Global,
            blocks: 0.0,
            block_shape: [16, 4],
            block_importance: BlockImportance::Magnitude,
            block_scope: BlockScope::Matrix,
            block_matrices: LayerMatrices::Encoder,
            vocabulary: 0,
            positions: 0,
            embedding_size: 0,
            share: 0,
            share_start: ShareStart::Mean,
            rank: 0.0,
            rank_matrices: LayerMatrices::Encoder,
            rank_scope: RankScope::Matrix,
            decouple: 0,
            samples: 2000,
            schedule: Schedule::Once,
            events: 8,
            rewind: Rewind::Weights,
            rewind_to: 0.0,
            train: Train { epochs: PRUNE_EPOCHS, ..Train::default() },
        }
    }
}

/// A key that is left out of a recipe's canonical text while it does nothing: recipes without it keep their hashes, and
/// their runs can be gone on with.
fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// As [`is_zero`], of matrices that it is the default to prune.
fn is_feed_forward(value: &LayerMatrices) -> bool {
    *value == LayerMatrices::FeedForward
}

/// As [`is_zero`], of fractions.
fn is_nothing(value: &f64) -> bool {
    *value == 0.0
}

/// As [`is_zero`], of choices.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Default of `prune.train.epochs`.
pub(in crate::stages::recipe) const PRUNE_EPOCHS: f64 = 1.0;
