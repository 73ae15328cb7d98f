//! From a network to the `config.json` that describes it.

use super::{ACTIVATIONS, Block, BlockLayer, POOLINGS, is_stock, keys};
use crate::models::config::{Architecture, LayerConfig, ModelConfig};
use serde_json::{Map, Value, json};

/// The content of a `config.json` for a network. Sizes are those before pruning, as transformers expects;
/// what is left is in `"limbeck"`, and for transformers 4 also in `pruned_heads`. A network that the plain keys
/// describe ([`is_stock`]) has no such block, unless whole layers were deleted from it: which ones, no plain key says.
pub fn config_to_json(config: &ModelConfig) -> Value {
    let keys = keys(config.architecture);
    let activation = ACTIVATIONS.iter().find(|(_, known)| *known == config.activation).map(|&(name, _)| name);
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
    set("model_type", json!(config.architecture.name()));
    set("architectures", json!([format!("{}ForSequenceClassification", keys.class)]));
    set("vocab_size", json!(config.vocab));
    set("max_position_embeddings", json!(config.positions));
    set(keys.hidden, json!(config.hidden));
    if let Some(size) = config.embedding_size {
        set("embedding_size", json!(size));
    }
    set(keys.layers, json!(config.layers.len()));
    set(keys.heads, json!(config.original_heads));
    set(keys.intermediate, json!(config.original_intermediate));
    set(keys.activation, json!(activation));
    set(keys.hidden_dropout, json!(shortest(config.dropout.hidden)));
    set(keys.attention_dropout, json!(shortest(config.dropout.attention)));
    set(keys.classifier_dropout, json!(shortest(config.dropout.classifier)));
    match config.architecture {
        Architecture::DistilBert => {
            set("sinusoidal_pos_embds", json!(false));
        }
        Architecture::Bert => {
            set("type_vocab_size", json!(config.token_types));
            set("layer_norm_eps", json!(shortest(config.layer_norm_eps)));
        }
    }
    set("pad_token_id", json!(0));
    set("problem_type", json!("single_label_classification"));
    let id_to_label = config.labels.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label)));
    set("id2label", Value::Object(id_to_label.collect()));
    let label_to_id = config.labels.iter().enumerate().map(|(id, label)| (label.clone(), json!(id)));
    set("label2id", Value::Object(label_to_id.collect()));
    let pruned = (0..config.layers.len()).map(|layer| (layer.to_string(), config.pruned_heads(layer)));
    let pruned: Map<String, Value> =
        pruned.filter(|(_, heads)| !heads.is_empty()).map(|(layer, heads)| (layer, json!(heads))).collect();
    if !pruned.is_empty() {
        set("pruned_heads", Value::Object(pruned));
    }
    if !is_stock(config) || !config.deleted_layers.is_empty() {
        set("limbeck", block_to_json(config));
    }
    Value::Object(object)
}

fn block_to_json(config: &ModelConfig) -> Value {
    let layer =
        |layer: &LayerConfig| BlockLayer { heads: layer.heads.clone(), intermediate: layer.intermediate };
    let pooling =
        POOLINGS.iter().find(|(_, known)| *known == config.pooling).map(|&(name, _)| name.to_owned());
    json!(Block {
        head_size: Some(config.head_size),
        layers: Some(config.layers.iter().map(layer).collect()),
        deleted_layers: config.deleted_layers.clone(),
        ranks: config.ranks.clone(),
        shared: config.shared.clone(),
        decoupled: config.decoupled,
        pooling,
        masked: config.masked.clone(),
    })
}

/// The f64 with the same shortest decimal text, so that 0.1 is written as 0.1 and not as 0.10000000149011612.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
