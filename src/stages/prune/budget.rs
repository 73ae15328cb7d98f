//! What a recipe has deleted and masked in a network of a given form: heads, units, weights and blocks.

use crate::compress::{BlockBudget, BlockScope, Budget};
use crate::ops::blocks::BlockShape;
use crate::stages::recipe::tables::{Prune, WeightImportance, WeightScope};

/// The budget of `[prune]`.
pub fn budget(prune: &Prune) -> Budget {
    let watched = prune.weights > 0.0 && prune.weight_importance != WeightImportance::Magnitude;
    Budget {
        heads: prune.heads,
        head_importance: prune.head_importance,
        head_scope: prune.head_scope.into(),
        units: prune.units,
        unit_importance: prune.unit_importance.into(),
        unit_scope: prune.unit_scope.into(),
        weights: if watched { 0.0 } else { prune.weights },
        weight_matrices: prune.weight_matrices,
        classifier: prune.classifier,
        weight_scope: prune.weight_scope.into(),
        blocks: if watched { single_weights(prune) } else { blocks(prune) },
    }
}

/// Weights that are watched while the network trains: blocks of one weight.
fn single_weights(prune: &Prune) -> BlockBudget {
    BlockBudget {
        fraction: prune.weights,
        shape: BlockShape::SINGLE,
        importance: prune.weight_importance.into(),
        scope: match prune.weight_scope {
            WeightScope::Global => BlockScope::Global,
            WeightScope::Matrix => BlockScope::Matrix,
        },
        matrices: prune.weight_matrices,
    }
}

fn blocks(prune: &Prune) -> BlockBudget {
    let [outputs, inputs] = prune.block_shape;
    BlockBudget {
        fraction: prune.blocks,
        shape: BlockShape { outputs, inputs },
        importance: prune.block_importance,
        scope: prune.block_scope,
        matrices: prune.block_matrices,
    }
}
