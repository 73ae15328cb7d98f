//! Making a network smaller: scores of heads and units, their deletion, masks of weights and of blocks, schedules,
//! smaller vocabularies.

pub mod attention;
pub mod blocks;
pub mod gradual;
pub mod importance;
pub mod layout;
pub mod magnitude;
pub mod pad;
pub mod quantize;
pub mod schedule;
pub mod structure;
pub mod vocabulary;

pub use attention::attention_scores;
pub use blocks::{BlockBudget, BlockImportance, BlockMatrices, BlockScope, BlockScores};
pub use gradual::{Budget, Gradual};
pub use importance::{Importance, Scores};
pub use magnitude::Scope;
pub use pad::Padding;
pub use structure::Keep;
