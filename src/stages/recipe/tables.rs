//! Every key of a recipe: its meaning, its unit, its default. The defaults stand once, in the
//! `Default` of each table; a key that a recipe leaves out has that value.

mod compression;
mod controls;
mod input;
mod pruning;
mod quantize;
mod training;

pub(super) use compression::PRUNE_EPOCHS;
pub use compression::{
    BlockImportance, BlockMatrices, BlockScope, HeadImportance, LayerImportance, LayerScope, Prune,
    RankScope, Schedule, ShareStart, UnitImportance, WeightScope,
};
pub use controls::Controls;
pub use input::{Column, Data, Format, Labels, Model, PoolingChoice, Source};
pub use pruning::{HiddenImportance, Rewind, WeightImportance};
pub use quantize::{BlockLayout, EmbeddingKind, ExceptionKind, Quantize, WeightKind};
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
