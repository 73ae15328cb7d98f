//! Names of tensors. The one external spelling is Hugging Face's; checkpoints spell it in a few ways.

/// Finds the tensor that `name` (as `distilbert.embeddings.LayerNorm.weight`) means in a file: under that
/// name, without the model's prefix (a bare encoder), with it, or with TensorFlow's `gamma` and `beta`.
///
/// What nobody asks for is never looked at: `position_ids`, masked-LM heads, sentence-pair heads.
pub fn find(name: &str, contains: impl Fn(&str) -> bool) -> Option<String> {
    let bare = ["distilbert.", "bert."].into_iter().find_map(|prefix| name.strip_prefix(prefix));
    let spellings = [Some(name), bare].into_iter().flatten();
    spellings
        .flat_map(|spelling| [Some(spelling.to_owned()), legacy(spelling)])
        .flatten()
        .find(|name| contains(name))
}

/// A layer norm's name as TensorFlow checkpoints have it.
fn legacy(name: &str) -> Option<String> {
    let (path, last) = name.rsplit_once('.')?;
    let last = match last {
        "weight" => "gamma",
        "bias" => "beta",
        _ => return None,
    };
    path.to_lowercase().replace('_', "").ends_with("layernorm").then(|| format!("{path}.{last}"))
}

/// Whether a tensor belongs to the classification head, which a pretrained encoder need not have: BERT's
/// pooler, DistilBERT's `pre_classifier`, the classifier.
pub fn is_head(name: &str) -> bool {
    ["classifier.", "pre_classifier.", "bert.pooler."].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a tensor of the head depends on the classes: the classifier alone. What lies before it is as wide as the
/// encoder, and was pretrained with it in BERT.
pub fn is_of_classes(name: &str) -> bool {
    name.starts_with("classifier.")
}

/// The layer that a tensor of an encoder belongs to, from 0; `None` if it belongs to none.
pub fn layer_of(name: &str) -> Option<usize> {
    let bare = ["distilbert.transformer.", "transformer.", "bert.encoder.", "encoder."];
    let rest = bare.into_iter().find_map(|prefix| name.strip_prefix(prefix))?;
    rest.strip_prefix("layer.")?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, file: &[&str]) -> Option<String> {
        find(name, |candidate| file.contains(&candidate))
    }

    #[test]
    fn spellings() {
        let name = "bert.embeddings.LayerNorm.weight";
        for spelling in [
            name,
            "embeddings.LayerNorm.weight",
            "bert.embeddings.LayerNorm.gamma",
            "embeddings.LayerNorm.gamma",
        ] {
            assert_eq!(found(name, &["x", spelling]).as_deref(), Some(spelling));
        }
        let name = "distilbert.transformer.layer.0.sa_layer_norm.bias";
        assert_eq!(
            found(name, &["transformer.layer.0.sa_layer_norm.bias"]).unwrap(),
            name["distilbert.".len()..]
        );
        assert_eq!(found("classifier.weight", &["classifier.gamma"]), None);
        assert_eq!(found(name, &["embeddings.position_ids"]), None);
    }

    #[test]
    fn layers() {
        for (name, layer) in [
            ("distilbert.transformer.layer.5.ffn.lin1.bias", Some(5)),
            ("transformer.layer.0.ffn.lin1.bias", Some(0)),
            ("bert.encoder.layer.11.output.dense.bias", Some(11)),
            ("encoder.layer.3.output.dense.bias", Some(3)),
            ("distilbert.embeddings.LayerNorm.weight", None),
            ("cls.predictions.layer.2.bias", None),
            ("encoder.layer.x.bias", None),
        ] {
            assert_eq!(layer_of(name), layer, "{name}");
        }
    }

    #[test]
    fn the_exact_name_goes_first() {
        let name = "bert.pooler.dense.weight";
        assert_eq!(found(name, &["pooler.dense.weight", name]).unwrap(), name);
    }
}
