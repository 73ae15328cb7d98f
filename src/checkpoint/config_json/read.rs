//! From the text of a `config.json` to sizes that fit each other, or an error that names the key.

use super::{ACTIVATIONS, Block, BlockLayer, Keys, POOLINGS, keys, usual_pooling};
use crate::checkpoint::label_names::label_names;
use crate::json::Json;
use crate::models::config::{
    Activation, Architecture, DropoutConfig, LAYER_NORM_EPS, LayerConfig, ModelConfig, Pooling, limits,
};
use crate::{Error, Result, files};
use std::fmt::Display;
use std::path::Path;

/// The family of a class of transformers, as `BertForMaskedLM`.
fn family(class: &str) -> Option<Architecture> {
    Architecture::ALL.into_iter().find(|family| class.starts_with(keys(*family).class))
}

/// Reads a `config.json`.
///
/// `labels` is empty if the file names none: a pretrained encoder, or the two classes that are transformers'
/// default.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] if it is no JSON object, a key is missing or out of range, or the
/// architecture or activation is not supported, or if the model is no classifier with one answer a text.
pub fn read_config(path: &Path) -> Result<ModelConfig> {
    let text = files::read_to_string(path)?;
    parse_config(path, &text)
}

/// Parses the text of a `config.json`; `path` is for errors only. See [`read_config`].
///
/// # Errors
/// As [`read_config`].
pub fn parse_config(path: &Path, text: &str) -> Result<ModelConfig> {
    let object = Json::parse(text).and_then(|value| match value {
        Json::Object(_) => Ok(value),
        other => Err(format!("it is {other}")),
    });
    let object = object.map_err(|problem| {
        Error::file(path, format!("not a JSON object: {problem}"), "fetch the model's config.json again")
    })?;
    let reader = Reader { path, object: &object };
    let architecture = reader.architecture()?;
    reader.check_problem_type()?;
    let keys = keys(architecture);
    let hidden = reader.size(keys.hidden)?;
    let heads = reader.size(keys.heads)?;
    let hidden_dropout = reader.number(keys.hidden_dropout)?.unwrap_or(0.1);
    let block = reader.block()?;
    let head_size = match block.head_size {
        Some(size) => size,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(
                reader.wrong(keys.heads, format!("{heads} heads do not divide {} {hidden}", keys.hidden))
            );
        }
    };
    let bert = architecture == Architecture::Bert;
    let config = ModelConfig {
        architecture,
        vocab: reader.size("vocab_size")?,
        positions: reader.size("max_position_embeddings")?,
        token_types: if bert { reader.size("type_vocab_size")? } else { 0 },
        hidden,
        embedding_size: reader.embedding_size(hidden)?,
        head_size,
        original_heads: heads,
        original_intermediate: reader.size(keys.intermediate)?,
        layers: reader.layers(keys, block.layers)?,
        deleted_layers: block.deleted_layers,
        ranks: block.ranks,
        shared: block.shared,
        decoupled: block.decoupled,
        activation: reader.activation(keys.activation)?,
        layer_norm_eps: if bert {
            reader.number("layer_norm_eps")?.unwrap_or(LAYER_NORM_EPS)
        } else {
            LAYER_NORM_EPS
        },
        dropout: DropoutConfig {
            hidden: hidden_dropout,
            attention: reader.number(keys.attention_dropout)?.unwrap_or(0.1),
            classifier: reader.number(keys.classifier_dropout)?.unwrap_or(if bert {
                hidden_dropout
            } else {
                0.2
            }),
        },
        pooling: reader.pooling(architecture, block.pooling)?,
        labels: reader.labels()?,
        masked: block.masked,
    };
    config.validate().map_err(|problem| Error::file(path, problem, "mend config.json"))?;
    Ok(config)
}

fn texts(value: &Json<'_>) -> Option<Vec<String>> {
    value.list(|value| value.text().map(str::to_owned))
}

fn sizes(value: &Json<'_>) -> Option<Vec<usize>> {
    value.list(Json::size)
}

/// The members of an object, each of which must be one of `known`.
fn members<'o, 't>(
    value: &'o Json<'t>,
    known: &[&str],
) -> Result<&'o [(std::borrow::Cow<'t, str>, Json<'t>)], String> {
    let Json::Object(members) = value else { return Err(format!("{value} is no object")) };
    match members.iter().find(|(name, _)| !known.contains(&&**name)) {
        Some((name, _)) => Err(format!("{name:?} is unknown (known: {})", known.join(", "))),
        None => Ok(members),
    }
}

const KNOWN: [&str; 8] =
    ["head_size", "layers", "deleted_layers", "ranks", "shared", "decoupled", "pooling", "masked"];

fn block(value: &Json<'_>) -> Result<Block, String> {
    let mut block = Block::default();
    for (name, value) in members(value, &KNOWN)? {
        let wrong = |expected: &str| format!("{name} is {value}, no {expected}");
        match (&**name, value) {
            ("masked", _) => block.masked = texts(value).ok_or_else(|| wrong("list of names"))?,
            ("deleted_layers", _) => {
                block.deleted_layers = sizes(value).ok_or_else(|| wrong("list of layers"))?;
            }
            ("shared", _) => block.shared = sizes(value).ok_or_else(|| wrong("list of layers"))?,
            ("ranks", _) => {
                let ranks = value.list(|ranks| sizes(ranks)?.try_into().ok());
                block.ranks = ranks.ok_or_else(|| wrong("list of six ranks for each layer"))?;
            }
            (_, Json::Null) => {}
            ("decoupled", _) => block.decoupled = value.size().ok_or_else(|| wrong("number of layers"))?,
            ("head_size", _) => block.head_size = Some(value.size().ok_or_else(|| wrong("size"))?),
            ("pooling", _) => block.pooling = Some(value.text().ok_or_else(|| wrong("name"))?.to_owned()),
            _ => {
                let Json::List(layers) = value else { return Err(wrong("list")) };
                block.layers = Some(layers.iter().map(layer).collect::<Result<_, _>>()?);
            }
        }
    }
    Ok(block)
}

fn layer(value: &Json<'_>) -> Result<BlockLayer, String> {
    members(value, &["heads", "intermediate"])?;
    let heads = value.get("heads").and_then(sizes).ok_or("a layer's \"heads\" are no list of sizes")?;
    let intermediate = value.get("intermediate").and_then(Json::size);
    Ok(BlockLayer { heads, intermediate: intermediate.ok_or("a layer's \"intermediate\" is no size")? })
}

/// The JSON object of one file, with errors that name it.
struct Reader<'a> {
    path: &'a Path,
    object: &'a Json<'a>,
}

impl Reader<'_> {
    fn wrong(&self, key: &str, problem: impl Display) -> Error {
        Error::file(self.path, format!("\"{key}\": {problem}"), "mend config.json, or fetch it again")
    }

    fn present(&self, key: &str) -> Option<&Json<'_>> {
        self.object.get(key).filter(|value| **value != Json::Null)
    }

    fn size(&self, key: &str) -> Result<usize> {
        let value = self.present(key).ok_or_else(|| self.wrong(key, "missing"))?;
        let number = value.size().filter(|&number| u32::try_from(number).is_ok());
        number.ok_or_else(|| self.wrong(key, format!("{value} is not a size")))
    }

    /// The width of a narrower word table; one as wide as the network is none.
    fn embedding_size(&self, hidden: usize) -> Result<Option<usize>> {
        let key = "embedding_size";
        let size = self.present(key).map(|_| self.size(key)).transpose()?;
        Ok(size.filter(|&size| size != hidden))
    }

    fn number(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value
            .number()
            .map(|number| Some(number as f32))
            .ok_or_else(|| self.wrong(key, format!("{value} is no number")))
    }

    /// `model_type`, or what old files have instead: a class name in `architectures`. Where both are there they must
    /// agree on the family; which of its heads the weights were trained with does not matter.
    fn architecture(&self) -> Result<Architecture> {
        const SUPPORTED: &str = "supported: distilbert, bert";
        let named = match self.present("model_type") {
            None => None,
            Some(value) => {
                let found = Architecture::ALL.into_iter().find(|known| value.text() == Some(known.name()));
                let unknown = || self.wrong("model_type", format!("{value} is not supported ({SUPPORTED})"));
                Some(found.ok_or_else(unknown)?)
            }
        };
        let classes: Vec<String> = match self.present("architectures") {
            Some(value) => texts(value).ok_or_else(|| self.wrong("architectures", "no list of names"))?,
            None => Vec::new(),
        };
        let Some(family) = named.or_else(|| family(classes.first()?)) else {
            return Err(self.wrong("model_type", format!("missing ({SUPPORTED})")));
        };
        match classes.iter().find(|class| self::family(class) != Some(family)) {
            None => Ok(family),
            Some(class) => {
                let problem =
                    format!("{class:?} is not of the family {:?}, as \"model_type\" has it", family.name());
                Err(self.wrong("architectures", problem))
            }
        }
    }

    /// The answer here is the one class with the largest logit: of other heads it would be wrong.
    fn check_problem_type(&self) -> Result<()> {
        const MEND: &str = "to train a new classifier on this model's encoder, delete the key";
        let kind =
            self.present("problem_type").filter(|kind| kind.text() != Some("single_label_classification"));
        kind.map_or(Ok(()), |kind| {
            let problem =
                format!("\"problem_type\": {kind} is not supported: here each text has exactly one class");
            Err(Error::file(self.path, problem, MEND))
        })
    }

    fn activation(&self, key: &str) -> Result<Activation> {
        if let Some(kind) =
            self.present("position_embedding_type").filter(|kind| kind.text() != Some("absolute"))
        {
            return Err(self
                .wrong("position_embedding_type", format!("{kind} is not supported (supported: absolute)")));
        }
        let Some(value) = self.present(key) else { return Ok(Activation::Gelu) };
        let found = ACTIVATIONS
            .iter()
            .find(|(name, _)| value.text() == Some(name))
            .map(|&(_, activation)| activation);
        found.ok_or_else(|| {
            self.wrong(key, format!("{value} is not supported (supported: gelu, relu, tanh, linear)"))
        })
    }

    fn pooling(&self, architecture: Architecture, name: Option<String>) -> Result<Pooling> {
        let Some(name) = name else { return Ok(usual_pooling(architecture)) };
        let found = POOLINGS.iter().find(|(known, _)| *known == name).map(|&(_, pooling)| pooling);
        found.ok_or_else(|| {
            self.wrong("limbeck", format!("pooling {name:?} is unknown (known: first_token, pooler, mean)"))
        })
    }

    fn block(&self) -> Result<Block> {
        match self.present("limbeck") {
            Some(value) => block(value).map_err(|problem| self.wrong("limbeck", problem)),
            None => Ok(Block::default()),
        }
    }

    fn layers(&self, keys: &Keys, block: Option<Vec<BlockLayer>>) -> Result<Vec<LayerConfig>> {
        let count = self.size(keys.layers)?;
        if count == 0 {
            return Err(self.wrong(keys.layers, "0 layers; a network has one at least"));
        }
        if let Some(layers) = block {
            if layers.len() != count {
                let problem = format!("{} layers, but \"{}\" is {count}", layers.len(), keys.layers);
                return Err(self.wrong("limbeck", problem));
            }
            let layer =
                |layer: BlockLayer| LayerConfig { heads: layer.heads, intermediate: layer.intermediate };
            return Ok(layers.into_iter().map(layer).collect());
        }
        let (heads, intermediate) = (self.size(keys.heads)?, self.size(keys.intermediate)?);
        // Checked before it is multiplied out: the numbers come from a file.
        for (key, size, most) in [(keys.layers, count, limits::LAYERS), (keys.heads, heads, limits::HEADS)] {
            if size > most {
                return Err(self.wrong(key, format!("{size} is beyond any BERT (at most {most})")));
            }
        }
        let mut layers = vec![LayerConfig::dense(heads, intermediate); count];
        if let Some(value) = self.present("pruned_heads") {
            let Json::Object(pruned) = value else {
                return Err(self.wrong("pruned_heads", format!("{value} is no object of layers")));
            };
            for (layer, gone) in pruned {
                let layer: usize = layer
                    .parse()
                    .map_err(|_| self.wrong("pruned_heads", format!("layer {layer:?} is no whole number")))?;
                let gone = sizes(gone).ok_or_else(|| {
                    self.wrong("pruned_heads", format!("layer {layer} has {gone}, no list of heads"))
                })?;
                let Some(layer) = layers.get_mut(layer) else {
                    return Err(
                        self.wrong("pruned_heads", format!("layer {layer} of {count} does not exist"))
                    );
                };
                if let Some(head) = gone.iter().find(|&&head| head >= heads) {
                    return Err(self.wrong("pruned_heads", format!("head {head} of {heads} does not exist")));
                }
                layer.heads.retain(|head| !gone.contains(head));
            }
        }
        Ok(layers)
    }

    fn labels(&self) -> Result<Vec<String>> {
        label_names(self.object).map_err(|problem| self.wrong("id2label", problem))
    }
}
