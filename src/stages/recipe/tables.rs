//! Every key of a recipe: its meaning, its unit, its default. A key that a recipe leaves out has the value in the `Default` of its
//! table, which the key's description repeats.

mod controls;
mod input;
mod prune;
mod quantize;
mod training;

// Choices that compression has exactly as a recipe names them.
pub use crate::compress::{
    BlockImportance, BlockScope, Importance, LayerImportance, LayerMatrices, RankScope, Rewind, ShareStart,
    WidthImportance,
};
pub use crate::quantize::Form;
pub use crate::quantize::layout::Layout;
pub use controls::Controls;
pub use input::{Column, Data, Format, Labels, Model, PoolingChoice, Source};
pub(super) use prune::PRUNE_EPOCHS;
pub use prune::{LayerScope, Prune, Schedule, UnitImportance, WeightImportance, WeightScope};
pub use quantize::{EmbeddingKind, Quantize, WeightKind};
use serde::{Deserialize, Serialize};
pub use training::{Distill, LayerMapChoice, NamedLayerMap, Teachers, Train, TrainPrecision};

/// `[bench]`: the latency columns of the table; one thread, batch 1, real test texts, all variants interleaved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bench {
    /// Test texts timed. Default 200.
    pub texts: usize,
    /// Times each text is timed. Default 3.
    pub repeat: usize,
    /// Untimed calls of each variant before. Default 10.
    pub warmup: usize,
}

impl Default for Bench {
    fn default() -> Self {
        Bench { texts: 200, repeat: 3, warmup: 10 }
    }
}
