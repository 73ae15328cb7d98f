//! Making a network smaller.
//!
//! | to | look into |
//! |---|---|
//! | score heads and units | [`importance`], [`attention`]; whole layers [`layers`], hidden features [`width`] |
//! | delete them | [`structure`] (what stays), `rebuild` (carries values, masks and moments over), [`emptied`] (what masks have left empty) |
//! | mask weights | [`magnitude`] (single ones), [`blocks`] (blocks, by scores that are watched while a network trains), `lowest` |
//! | do both up to a budget, at once or by and by | [`budget`], `prune`, [`schedule`], [`gradual`] (in events), [`rounds`] (with rewinding) |
//! | keep fewer words, or narrower ones | [`vocabulary`], [`embedding_factors`] |
//! | make matrices of lower rank, layers that share | [`matrix_factors`], [`low_rank`], [`sharing`]; [`expand`] and [`pad`] undo them for other programs |
//!
//! Few bits are made of what is left in [`crate::quantize`].

pub mod attention;
pub mod blocks;
pub mod budget;
pub mod embedding_factors;
pub mod emptied;
pub mod expand;
pub mod gradual;
pub mod importance;
pub mod layers;
pub mod low_rank;
mod lowest;
pub mod magnitude;
pub mod matrix_factors;
pub mod pad;
mod prune;
mod rebuild;
pub mod rounds;
pub mod schedule;
pub mod sharing;
pub mod structure;
pub mod vocabulary;
pub mod width;

pub use attention::attention_scores;
pub use blocks::{BlockBudget, BlockImportance, BlockScope, BlockScores, EmptiedBlocks, LayerMatrices};
pub use budget::Budget;
pub use emptied::delete_emptied;
pub use gradual::Gradual;
pub use importance::{Importance, Scores};
pub use layers::LayerImportance;
pub use magnitude::Scope;
pub use matrix_factors::{RankBudget, RankScope};
pub use pad::Padding;
pub use prune::prune;
pub use rebuild::delete;
pub use rounds::{Rewind, Rounds};
pub use sharing::ShareStart;
pub use structure::Keep;
pub use width::{WidthImportance, WidthScores};
