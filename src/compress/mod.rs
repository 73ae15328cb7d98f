//! Making a network smaller: whole layers, scores of heads and units, their deletion, masks of weights and of blocks, the
//! deletion of what these emptied, schedules, smaller vocabularies, hidden width, narrower embeddings, factored
//! matrices, shared layers; what few bits do to each matrix, and which of them it can do with.

pub mod attention;
pub mod blocks;
pub mod budget;
pub mod calibration;
pub mod emptied;
pub mod expand;
pub mod factorization;
pub mod gradual;
pub mod importance;
pub mod layers;
pub mod layout;
pub mod low_rank;
mod lowest;
pub mod magnitude;
pub mod pad;
pub mod precision;
pub mod quantize;
pub mod ranks;
mod rebuild;
pub mod rounds;
pub mod schedule;
pub mod sensitivity;
pub mod sharing;
pub mod structure;
mod tensors;
pub mod vocabulary;
pub mod width;

pub use attention::attention_scores;
pub use blocks::{BlockBudget, BlockImportance, BlockMatrices, BlockScope, BlockScores, Gone};
pub use budget::{Budget, prune};
pub use emptied::delete_emptied;
pub use gradual::Gradual;
pub use importance::{Importance, Scores};
pub use layers::LayerImportance;
pub use magnitude::Scope;
pub use pad::Padding;
pub use ranks::{RankBudget, RankScope};
pub use rebuild::delete;
pub use rounds::{Rewind, Rounds};
pub use sharing::ShareStart;
pub use structure::Keep;
pub use width::{WidthImportance, WidthScores};
