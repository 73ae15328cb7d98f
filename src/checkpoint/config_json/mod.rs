//! `config.json` ↔ [`ModelConfig`].
//!
//! The keys are those of transformers' `DistilBertConfig` and `BertConfig`. A few things have no key there
//! and lie in a block of our own, which transformers ignores:
//!
//! ```json
//! "limbeck": {
//!   "head_size": 64,
//!   "layers": [{"heads": [0, 3, 7], "intermediate": 1024}],
//!   "deleted_layers": [1, 3, 4],
//!   "ranks": [[0, 0, 0, 0, 64, 64]],
//!   "shared": [0],
//!   "decoupled": 2,
//!   "pooling": "first_token",
//!   "masked": ["distilbert.transformer.layer.0.ffn.lin1.weight"]
//! }
//! ```
//!
//! `ranks` are those of each layer's factored matrices ([`MatrixRanks`]; 0: not factored), `shared` the layer whose parameters each
//! layer uses; neither is there if nothing is factored or shared. `embedding_size`, as ELECTRA and ALBERT call it, is the width of a word table that is narrower than the network.
//! Without the block every layer has the same sizes, less `pruned_heads` (transformers 4).

mod read;
#[cfg(feature = "train")]
mod write;

pub use read::{parse_config, read_config};
#[cfg(feature = "train")]
pub use write::config_to_json;

use crate::models::config::{Activation, Architecture, MatrixRanks, ModelConfig, Pooling};

/// The names of one family's keys.
struct Keys {
    /// How the names of its classes begin.
    class: &'static str,
    hidden: &'static str,
    layers: &'static str,
    heads: &'static str,
    intermediate: &'static str,
    activation: &'static str,
    hidden_dropout: &'static str,
    attention_dropout: &'static str,
    classifier_dropout: &'static str,
}

const DISTILBERT: Keys = Keys {
    class: "DistilBert",
    hidden: "dim",
    layers: "n_layers",
    heads: "n_heads",
    intermediate: "hidden_dim",
    activation: "activation",
    hidden_dropout: "dropout",
    attention_dropout: "attention_dropout",
    classifier_dropout: "seq_classif_dropout",
};

const BERT: Keys = Keys {
    class: "Bert",
    hidden: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    intermediate: "intermediate_size",
    activation: "hidden_act",
    hidden_dropout: "hidden_dropout_prob",
    attention_dropout: "attention_probs_dropout_prob",
    classifier_dropout: "classifier_dropout",
};

fn keys(architecture: Architecture) -> &'static Keys {
    match architecture {
        Architecture::DistilBert => &DISTILBERT,
        Architecture::Bert => &BERT,
    }
}

const ACTIVATIONS: [(&str, Activation); 4] = [
    ("gelu", Activation::Gelu),
    ("relu", Activation::Relu),
    ("tanh", Activation::Tanh),
    ("linear", Activation::Identity),
];

const POOLINGS: [(&str, Pooling); 3] =
    [("first_token", Pooling::FirstToken), ("pooler", Pooling::Pooler), ("mean", Pooling::Mean)];

/// What `config.json` has no key for.
#[derive(Default)]
#[cfg_attr(feature = "train", derive(serde::Serialize))]
struct Block {
    #[cfg_attr(feature = "train", serde(skip_serializing_if = "Option::is_none"))]
    head_size: Option<usize>,
    #[cfg_attr(feature = "train", serde(skip_serializing_if = "Option::is_none"))]
    layers: Option<Vec<BlockLayer>>,
    #[cfg_attr(feature = "train", serde(skip_serializing_if = "Vec::is_empty"))]
    deleted_layers: Vec<usize>,
    #[cfg_attr(feature = "train", serde(skip_serializing_if = "Vec::is_empty"))]
    ranks: Vec<MatrixRanks>,
    #[cfg_attr(feature = "train", serde(skip_serializing_if = "Vec::is_empty"))]
    shared: Vec<usize>,
    #[cfg_attr(feature = "train", serde(skip_serializing_if = "is_zero"))]
    decoupled: usize,
    #[cfg_attr(feature = "train", serde(skip_serializing_if = "Option::is_none"))]
    pooling: Option<String>,
    #[cfg_attr(feature = "train", serde(skip_serializing_if = "Vec::is_empty"))]
    masked: Vec<String>,
}

#[cfg(feature = "train")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[cfg_attr(feature = "train", derive(serde::Serialize))]
struct BlockLayer {
    heads: Vec<usize>,
    intermediate: usize,
}

/// Whether stock transformers runs this network: nothing is deleted but whole layers, nothing is masked, factored, shared or
/// decoupled, and its pooling is the one that its architecture has there.
pub fn is_stock(config: &ModelConfig) -> bool {
    config.is_dense()
        && config.embedding_size.is_none()
        && config.ranks.is_empty()
        && config.shared.is_empty()
        && config.decoupled == 0
        && config.head_size * config.original_heads == config.hidden
        && config.pooling == usual_pooling(config.architecture)
        && config.masked.is_empty()
}

/// The pooling of an architecture in transformers.
fn usual_pooling(architecture: Architecture) -> Pooling {
    match architecture {
        Architecture::DistilBert => Pooling::FirstToken,
        Architecture::Bert => Pooling::Pooler,
    }
}
