//! `config.json`: the round trip, and what is wrong is named by its key.

use limbeck::checkpoint::{config_to_json, parse_config};
use limbeck::models::config::{Activation, LayerConfig, ModelConfig, Pooling};
use std::path::Path;

pub fn bert() -> ModelConfig {
    let text = r#"{"model_type": "bert", "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 56, "hidden_act": "relu", "max_position_embeddings": 24, "type_vocab_size": 2, "layer_norm_eps": 1e-7,
        "hidden_dropout_prob": 0.25, "classifier_dropout": null, "pruned_heads": {"1": [3, 0], "2": [0, 1, 2, 3]},
        "id2label": {"0": "no", "1": "yes"}, "some_new_key": [1]}"#;
    parse_config(Path::new("config.json"), text).unwrap()
}

#[test]
fn configurations_survive_the_round_trip() {
    let mut config = bert();
    assert_eq!(config.layers[1].heads, [1, 2]);
    assert_eq!(config.layers[2].heads, [] as [usize; 0]);
    assert_eq!(
        (config.dropout.hidden, config.dropout.attention, config.dropout.classifier),
        (0.25, 0.1, 0.25)
    );
    assert_eq!(
        (config.activation, config.pooling, config.layer_norm_eps),
        (Activation::Relu, Pooling::Pooler, 1e-7)
    );
    config.layers[0] = LayerConfig { heads: vec![2], intermediate: 0 };
    config.embedding_size = Some(8);
    // Narrower than four heads of eight.
    config.hidden = 27;
    config.ranks = vec![[1, 2, 0, 4, 5, 6], [0; 6], [0, 0, 27, 0, 0, 0]];
    config.pooling = Pooling::Mean;
    config.masked = vec!["bert.encoder.layer.0.output.dense.weight".to_owned()];
    config.labels = vec!["Sci/Tech".to_owned(), "a \"b\"".to_owned(), "ü".to_owned()];
    let text = format!("{:#}", config_to_json(&config));
    assert_eq!(parse_config(Path::new("config.json"), &text).unwrap(), config);
    assert!(
        text.contains("\"hidden_dropout_prob\": 0.25") && text.contains("\"layer_norm_eps\": 1e-7"),
        "{text}"
    );

    // A word table as wide as the network is none that is narrower.
    let mut json = config_to_json(&config);
    assert_eq!(json["embedding_size"], 8);
    json["embedding_size"] = 27.into();
    let whole = parse_config(Path::new("config.json"), &json.to_string()).unwrap();
    assert_eq!(whole, ModelConfig { embedding_size: None, ..config.clone() });

    // Layers that share parameters are of one size.
    let alike = ModelConfig {
        layers: vec![config.layers[0].clone(); 3],
        ranks: vec![config.ranks[0]; 3],
        shared: vec![0, 0, 2],
        ..config.clone()
    };
    let text = config_to_json(&alike).to_string();
    assert_eq!(parse_config(Path::new("config.json"), &text).unwrap(), alike);

    for (shared, words) in [
        (vec![0, 0, 1], "layer 2 uses the parameters of layer 1, which has none"),
        (vec![0, 2, 2], "layer 1 "),
    ] {
        let refused = ModelConfig { shared, ..alike.clone() }.validate().unwrap_err();
        assert!(refused.starts_with(words), "{refused}");
    }

    // What transformers 4 understands of it: sizes before pruning, and which heads are gone.
    let mut json = config_to_json(&config);
    json.as_object_mut().unwrap().remove("limbeck");
    json["hidden_size"] = 32.into();
    let known = parse_config(Path::new("config.json"), &json.to_string()).unwrap();
    assert_eq!(known.layers[0], LayerConfig { heads: vec![2], intermediate: 56 });
}

#[test]
fn wrong_configurations_say_what_is_wrong() {
    let good: serde_json::Value = config_to_json(&bert());
    let refusal = |key: &str, value: serde_json::Value| {
        let mut json = good.clone();
        json[key] = value;
        if !key.eq("limbeck") {
            json.as_object_mut().unwrap().remove("limbeck");
        }
        parse_config(Path::new("model/config.json"), &json.to_string()).unwrap_err().to_string()
    };
    use serde_json::json;
    for (key, value, expected) in [
        ("model_type", json!("roberta"), "supported: distilbert, bert"),
        ("embedding_size", json!(64), "embedding size is 64; it must be between 1 and 31"),
        ("embedding_size", json!(0), "embedding size is 0"),
        ("embedding_size", json!("8"), "\"embedding_size\": \"8\" is not a size"),
        ("model_type", json!(null), "Bert"),
        ("hidden_size", json!(33), "do not divide"),
        ("hidden_size", json!(null), "missing"),
        ("num_attention_heads", json!(0), "0"),
        ("num_hidden_layers", json!(4_000_000_000_u64), "beyond any BERT"),
        ("vocab_size", json!("many"), "not a size"),
        ("vocab_size", json!(0), "vocabulary is 0"),
        ("hidden_act", json!("gelu_new"), "supported: gelu, relu, tanh, linear"),
        ("position_embedding_type", json!("relative_key"), "absolute"),
        ("hidden_dropout_prob", json!(1.0), "dropout"),
        ("layer_norm_eps", json!(0), "layer_norm_eps"),
        ("pruned_heads", json!({"0": [4]}), "head 4"),
        ("pruned_heads", json!({"9": [0]}), "layer 9"),
        ("num_hidden_layers", json!(0), "0 layers"),
        ("problem_type", json!("regression"), "each text has exactly one class"),
        ("problem_type", json!("multi_label_classification"), "each text has exactly one class"),
        ("id2label", json!({"0": "a", "2": "b"}), "class 1"),
        ("id2label", json!({"0": "a", "1": "a"}), "two classes are called"),
        ("id2label", json!({"0": "a", "1": ""}), "class 1 has no name"),
        (
            "architectures",
            json!(["DistilBertForMaskedLM"]),
            "\"DistilBertForMaskedLM\" is not of the family \"bert\"",
        ),
        ("architectures", json!(["RobertaForSequenceClassification"]), "\"Roberta"),
        ("architectures", json!("BertModel"), "\"architectures\": "),
        ("limbeck", json!({"layers": []}), "0 layers"),
        ("limbeck", json!({"pooling": "max"}), "first_token, pooler, mean"),
        ("limbeck", json!({"speed": 3}), "speed"),
        ("limbeck", json!({"ranks": [[1, 1, 1, 1, 1, 1]]}), "ranks of 1 layers; there are 3"),
        ("limbeck", json!({"ranks": [[1, 2], [1, 2], [1, 2]]}), "no list of six ranks for each layer"),
        ("limbeck", json!({"ranks": 3}), "no list of six ranks for each layer"),
        (
            "limbeck",
            json!({"ranks": [[0, 0, 0, 0, 0, 0], [0, 33, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]}),
            "layer 1: a rank of 33; a matrix there has 32",
        ),
        ("limbeck", json!({"shared": [0, 1]}), "shared layers of 2 layers; there are 3"),
        ("limbeck", json!({"shared": [0, "a", 2]}), "no list of layers"),
        ("limbeck", json!({"shared": [1, 1, 2]}), "layer 0 uses the parameters of layer 1, which has none"),
        (
            "limbeck",
            json!({"shared": [0, 0, 1]}),
            "layer 1 uses the parameters of layer 0, which has other sizes",
        ),
        ("limbeck", json!({"shared": [0, 99, 2]}), "layer 1 uses the parameters of layer 99"),
        (
            "limbeck",
            json!({"shared": [0, 0, 2], "ranks": [[1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0]]}),
            "layer 0, which has other sizes",
        ),
    ] {
        if key == "model_type" && value.is_null() {
            // Old files have no model_type; the class name tells.
            let mut json = good.clone();
            json.as_object_mut().unwrap().remove("model_type");
            assert_eq!(parse_config(Path::new("x"), &json.to_string()).unwrap(), bert());
            continue;
        }
        let message = refusal(key, value);
        assert!(message.contains(expected) && message.starts_with("model/config.json"), "{key}: {message}");
    }
    assert!(parse_config(Path::new("x"), "[]").is_err() && parse_config(Path::new("x"), "").is_err());
    let mut open = good.clone();
    open["problem_type"] = json!(null);
    assert_eq!(parse_config(Path::new("x"), &open.to_string()).unwrap(), bert());
    for class in ["BertModel", "BertForMaskedLM", "BertForQuestionAnswering"] {
        let mut other = good.clone();
        other["architectures"] = json!([class]);
        assert_eq!(parse_config(Path::new("x"), &other.to_string()).unwrap(), bert(), "{class}");
    }
}
