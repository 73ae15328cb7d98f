use super::*;
use crate::models::Classifier;

fn config(architecture: Architecture, pooling: Pooling) -> ModelConfig {
    ModelConfig {
        architecture,
        token_types: if architecture == Architecture::Bert { 2 } else { 0 },
        dropout: DropoutConfig { hidden: 0.0, attention: 0.0, classifier: 0.0 },
        pooling,
        head_size: 5,
        ..ModelConfig::distilbert(
            Sizes { vocab: 40, positions: 9, hidden: 12, heads: 3, intermediate: 7, layers: 2 },
            ["a", "b"],
        )
    }
}

#[test]
fn parameters_are_those_that_a_network_declares() {
    for (architecture, pooling) in [
        (Architecture::DistilBert, Pooling::FirstToken),
        (Architecture::DistilBert, Pooling::Mean),
        (Architecture::Bert, Pooling::Pooler),
        (Architecture::Bert, Pooling::FirstToken),
    ] {
        let config = config(architecture, pooling);
        let declared: usize = Classifier::new(&config).1.iter().map(|spec| spec.len()).sum();
        assert_eq!(config.original_parameters(), declared as u64, "{architecture:?} {pooling:?}");
        let factored = ModelConfig { embedding_size: Some(3), ..config };
        let declared: usize = Classifier::new(&factored).1.iter().map(|spec| spec.len()).sum();
        assert_eq!(factored.original_parameters(), declared as u64);
    }
}

#[test]
fn sizes_beyond_any_bert_are_refused() {
    let good = config(Architecture::Bert, Pooling::Pooler);
    good.validate().unwrap();
    type Change = fn(&mut ModelConfig);
    let wrong: [(Change, &str); 9] = [
        (|c| c.decoupled = 2, "2 of 2 layers are decoupled; the last one must read both"),
        (|c| c.embedding_size = Some(12), "embedding size is 12; it must be between 1 and 11"),
        (|c| c.embedding_size = Some(0), "embedding size is 0; "),
        (|c| c.vocab = limits::VOCAB + 1, "vocabulary is 16777217; it must be between 1 and 16777216"),
        (|c| c.layers = vec![LayerConfig::dense(3, 7); limits::LAYERS + 1], "number of layers is 1025"),
        (|c| c.original_intermediate = limits::INTERMEDIATE + 1, "intermediate size is 262145"),
        (|c| c.original_heads = 0, "number of heads is 0"),
        (|c| c.labels = vec!["x".to_owned(); limits::LABELS + 1], "number of classes is 4097"),
        // The largest of all, whose products no 32 bits hold.
        (
            |c| {
                (c.vocab, c.hidden, c.head_size) = (limits::VOCAB, limits::HIDDEN, limits::HIDDEN);
                (c.original_heads, c.original_intermediate) = (limits::HEADS, limits::INTERMEDIATE);
                c.layers = vec![LayerConfig::dense(0, 0); limits::LAYERS];
            },
            "its sizes make 72",
        ),
    ];
    for (change, words) in wrong {
        let mut config = good.clone();
        change(&mut config);
        let refused = config.validate().unwrap_err();
        assert!(refused.starts_with(words), "{refused}");
    }
}
