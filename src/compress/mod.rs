//! Making a network smaller: whole layers, scores of heads and units, their deletion, masks of weights and of blocks,
//! schedules, smaller vocabularies, narrower embeddings, factored matrices, shared layers.

pub mod attention;
pub mod blocks;
pub mod expand;
pub mod factorization;
pub mod gradual;
pub mod importance;
pub mod layers;
pub mod layout;
pub mod low_rank;
pub mod magnitude;
pub mod pad;
pub mod quantize;
pub mod ranks;
mod rebuild;
pub mod schedule;
pub mod sharing;
pub mod structure;
pub mod vocabulary;

pub use attention::attention_scores;
pub use blocks::{BlockBudget, BlockImportance, BlockMatrices, BlockScope, BlockScores};
pub use gradual::{Budget, Gradual};
pub use importance::{Importance, Scores};
pub use layers::LayerImportance;
pub use magnitude::Scope;
pub use pad::Padding;
pub use ranks::{RankBudget, RankScope};
pub use sharing::ShareStart;
pub use structure::Keep;
