//! Making a network smaller: whole layers, scores of heads and units, their deletion, masks of weights and of blocks,
//! schedules, smaller vocabularies, narrower embeddings.

pub mod attention;
pub mod blocks;
pub mod calibration;
pub mod factorization;
pub mod gradual;
pub mod importance;
pub mod layers;
pub mod layout;
pub mod low_rank;
pub mod magnitude;
pub mod pad;
pub mod precision;
pub mod quantize;
pub mod schedule;
pub mod sensitivity;
pub mod structure;
pub mod vocabulary;

pub use attention::attention_scores;
pub use blocks::{BlockBudget, BlockImportance, BlockMatrices, BlockScope, BlockScores};
pub use gradual::{Budget, Gradual};
pub use importance::{Importance, Scores};
pub use layers::LayerImportance;
pub use magnitude::Scope;
pub use pad::Padding;
pub use structure::Keep;
