//! Networks between stages: Hugging Face directories, read into a learner and written from one.

use super::corpus::first_few;
use super::recipe::tables::{PoolingChoice, Train};
use super::{Corpus, Stage, StageContext};
use crate::checkpoint::{self, Dtype, HfDirectory, TensorToWrite, Values, read_values};
use crate::infer::Model;
use crate::models::config::{Architecture, Pooling, limits};
use crate::models::{Classifier, ModelConfig};
use crate::ops::Backend;
use crate::params::{Mask, ParamStore};
use crate::tokenizer::Tokenizer;
use crate::train::{AdamW, AdamWSettings, Learner, forget_state};
use crate::{Error, Result, files};
use std::collections::BTreeMap;
use std::path::Path;

/// A learner with the network at `path`, and its optimizer before the first step. Zeros of masked parameters
/// are masked again.
///
/// # Errors
/// Whatever is wrong with the directory.
pub fn load<B: Backend>(device: &B, path: &Path, train: &Train) -> Result<Learner<B>> {
    let directory = HfDirectory::open(path)?;
    let config = directory.config.clone();
    learner(device, &config, Some((&directory, false)), 0, train)
}

/// A learner with the network that a recipe starts from, for these classes.
///
/// # Errors
/// Whatever is wrong with the model's directory, or with the sizes of a new encoder.
pub fn start<B: Backend>(
    context: &StageContext<'_>,
    device: &B,
    tokenizer: &Tokenizer,
    labels: &[String],
) -> Result<Learner<B>> {
    let recipe = context.recipe;
    let directory = match recipe.model.path.as_str() {
        "" => None,
        path => Some(HfDirectory::open(Path::new(path))?),
    };
    let mut config = match &directory {
        Some(directory) => directory.config.clone(),
        None => recipe.model.encoder(tokenizer.vocab()),
    };
    // A classifier of other classes is another classifier.
    let fresh_classifier = config.labels != labels;
    if let Some(directory) = directory.as_ref().filter(|_| fresh_classifier)
        && checkpoint::find("classifier.weight", |name| directory.tensors.shape(name).is_some()).is_some()
    {
        context.progress.message(&format!(
            "train: the model's classifier is of the classes {}, those of the data are {}: a new one is trained",
            first_few(&config.labels),
            first_few(labels)
        ));
    }
    if labels.len() > limits::LABELS {
        let problem = format!("the data have {} classes", labels.len());
        return Err(Error::setting("data.labels", problem, format!("{} at most", limits::LABELS)));
    }
    config.labels = labels.to_vec();
    adapt(&mut config, context)?;
    let source = directory.as_ref().map(|directory| (directory, fresh_classifier));
    learner(device, &config, source, recipe.seed, &recipe.train)
}

/// Applies what the recipe says of the model, and checks that it can read the texts.
fn adapt(config: &mut ModelConfig, context: &StageContext<'_>) -> Result<()> {
    let model = &context.recipe.model;
    config.pooling = match (model.pooling, config.architecture) {
        (PoolingChoice::Auto, _) => config.pooling,
        (PoolingChoice::First, _) => Pooling::FirstToken,
        (PoolingChoice::Mean, _) => Pooling::Mean,
        (PoolingChoice::Pooler, Architecture::Bert) => Pooling::Pooler,
        (PoolingChoice::Pooler, Architecture::DistilBert) => {
            let mend = "use \"first\": DistilBERT's own head has a dense layer already";
            return Err(Error::setting("model.pooling", "DistilBERT has no pooler", mend));
        }
    };
    let rates = &mut config.dropout;
    let overrides = [
        (model.dropout, &mut rates.hidden),
        (model.attention_dropout, &mut rates.attention),
        (model.classifier_dropout, &mut rates.classifier),
    ];
    for (chosen, rate) in overrides {
        *rate = chosen.map_or(*rate, |chosen| chosen as f32);
    }
    if !context.recipe.data.second_columns.is_empty() && config.token_types == 1 {
        let problem = "pairs of sentences have two token types, and the model has one";
        return Err(Error::setting("data.second_columns", problem, "use another model, or join the columns"));
    }
    let longest = context.recipe.data.max_tokens;
    if longest > config.positions {
        let problem = format!("{longest} tokens, and the model has {} positions", config.positions);
        return Err(Error::setting("data.max_tokens", problem, "lower it"));
    }
    Ok(())
}

/// A learner with the network of `config`, its values from a directory, or drawn from `seed` where there is none
/// (and, if the flag says so, for the classifier), and its optimizer before the first step.
///
/// # Errors
/// Whatever is wrong with the directory's weights.
pub fn learner<B: Backend>(
    device: &B,
    config: &ModelConfig,
    source: Option<(&HfDirectory, bool)>,
    seed: u64,
    train: &Train,
) -> Result<Learner<B>> {
    let (model, specs) = Classifier::new(config);
    let values = match source {
        Some((directory, fresh_classifier)) => read_values(directory, &specs, fresh_classifier, seed)?,
        None => specs.iter().map(|spec| checkpoint::fresh(spec, seed)).collect(),
    };
    let mut values = values.into_iter();
    let mut params = ParamStore::new(device, &specs, |_| Ok(values.next().expect("a vector for each spec")))?;
    let masked = params.iter().filter(|(_, param)| config.masked.contains(&param.spec.name));
    for id in masked.map(|(id, _)| id).collect::<Vec<_>>() {
        let mask = Mask::of_nonzero(&params.value(id).download(device)?);
        params.set_mask(device, id, mask)?;
    }
    let optimizer = AdamW::new(device, &params, settings(train))?;
    Ok(Learner { backend: device.clone(), model, params, optimizer, feature_teacher: None })
}

/// The optimizer's part of a recipe's training table.
pub fn settings(train: &Train) -> AdamWSettings {
    AdamWSettings {
        beta1: train.beta1,
        beta2: train.beta2,
        eps: train.eps,
        weight_decay: train.weight_decay,
        decay_all: false,
        clip: train.clip,
    }
}

/// Writes a learner's network as a directory that appears whole or not at all. `origin` says what it was made
/// from.
///
/// # Errors
/// A full disk; a value that is no number.
fn save<B: Backend>(
    path: &Path,
    learner: &Learner<B>,
    tokenizer: &Tokenizer,
    origin: &BTreeMap<String, String>,
) -> Result<()> {
    let mut config = learner.model.config.clone();
    let masked = learner.network().filter(|(_, param)| param.mask.is_some());
    config.masked = masked.map(|(_, param)| param.spec.name.clone()).collect();
    let values = learner.network().map(|(_, param)| param.value().download(&learner.backend));
    let values = values.collect::<Result<Vec<_>>>()?;
    let dims: Vec<Vec<usize>> = learner.network().map(|(_, param)| param.spec.dims()).collect();
    let tensors: Vec<TensorToWrite<'_>> = learner
        .network()
        .zip(values.iter().zip(&dims))
        .map(|((_, param), (values, shape))| TensorToWrite {
            name: &param.spec.name,
            shape,
            values: Values::F32(values),
        })
        .collect();
    HfDirectory::save(path, &config, &tensors, Dtype::F32, origin, tokenizer)
}

/// The content hash of the weights in a model directory.
///
/// # Errors
/// The file cannot be read.
pub fn weights_hash(path: &Path) -> Result<String> {
    Ok(files::sha256(&files::map(&path.join(checkpoint::WEIGHTS))?))
}

/// Whether an artifact of `stage` is whole, as far as it says so itself. Returns its configuration and the content hash
/// of the weights that it was made from; `None` if it does not say.
///
/// # Errors
/// The artifact cannot be read, or is damaged.
pub fn check(artifact: &Path, stage: Stage) -> Result<(ModelConfig, Option<String>)> {
    if stage == Stage::Quantize {
        let model = Model::open(artifact)?;
        model.check_data()?;
        let recorded = model.metadata().and_then(|metadata| metadata.parents.model.clone());
        return Ok((model.config().clone(), recorded));
    }
    let directory = HfDirectory::open(artifact)?;
    directory.tensors.check()?;
    let tokenizer = directory.tensors.metadata().get(TOKENIZER);
    if tokenizer.is_some_and(|hash| directory.tokenizer().map_or(true, |found| found.content_hash() != *hash))
    {
        let problem = "its tokenizer is not the one that its network was trained with";
        return Err(Error::file(artifact, problem, "put vocab.txt and tokenizer.json back"));
    }
    let key = stage.parent().map(|parent| parent_key(parent.variant()));
    let recorded = key.and_then(|key| directory.tensors.metadata().get(&key).cloned());
    Ok((directory.config, recorded))
}

/// Whether the network at `path` was trained on these texts and by the tokenizer that reads them now, as far as it says so: between
/// two stages the data, or the model that the tokenizer is of, may have been exchanged for others.
///
/// # Errors
/// [`Error::File`] naming which.
pub fn check_texts(path: &Path, corpus: &Corpus) -> Result<()> {
    let directory = HfDirectory::open(path)?;
    let is_other =
        |key: &str, now: &str| directory.tensors.metadata().get(key).is_some_and(|then| then != now);
    let refused = |problem: &str, what: &str| {
        let mend = format!("put {what} back as they were, or start a new run with another --out");
        Err(Error::file(path, problem, mend))
    };
    if is_other(TOKENIZER, corpus.tokenizer.content_hash()) {
        return refused("it reads by another tokenizer than model.path has now", "that model's files");
    }
    if is_other(&parent_key("texts"), corpus.train.content_hash()) {
        return refused("it was trained on other texts than data.train has now", "the data");
    }
    Ok(())
}

/// Whether a network of this configuration can come from one of `parent`'s: stages delete (layers, heads, units, hidden features,
/// word pieces, positions), mask, factor the word table and matrices, have layers share parameters, decouple some, and change
/// nothing else.
pub fn is_derived_from(config: &ModelConfig, parent: &ModelConfig) -> bool {
    // Field by field: whoever adds one decides here whether a stage may change it.
    let unchanged = |config: &ModelConfig| ModelConfig {
        architecture: config.architecture,
        vocab: 0,
        positions: 0,
        token_types: config.token_types,
        hidden: 0,
        embedding_size: None,
        head_size: config.head_size,
        original_heads: config.original_heads,
        original_intermediate: config.original_intermediate,
        layers: Vec::new(),
        deleted_layers: Vec::new(),
        ranks: Vec::new(),
        shared: Vec::new(),
        decoupled: 0,
        activation: config.activation,
        layer_norm_eps: config.layer_norm_eps,
        dropout: config.dropout,
        pooling: config.pooling,
        labels: config.labels.clone(),
        masked: Vec::new(),
    };
    let layers = config.original_layers() == parent.original_layers()
        && parent.deleted_layers.iter().all(|layer| config.deleted_layers.contains(layer));
    let factored = parent.embedding_size.is_none() || config.embedding_size == parent.embedding_size;
    let smaller = config.vocab <= parent.vocab
        && config.positions <= parent.positions
        && config.hidden <= parent.hidden;
    layers && factored && smaller && unchanged(config) == unchanged(parent)
}

/// The key under which an artifact has the content hash of its tokenizer.
const TOKENIZER: &str = "limbeck.tokenizer_sha256";

/// The key under which an artifact names the hash of what it was made from.
fn parent_key(parent: &str) -> String {
    format!("limbeck.parent.{parent}")
}

/// Ends a stage that trains: its network becomes its artifact, which says what it was made from, and `more` if that is given;
/// the state that it could have been gone on with goes. The first rank writes.
///
/// # Errors
/// A full disk; a value that is no number.
pub fn finish<B: Backend>(
    context: &StageContext<'_>,
    stage: Stage,
    learner: &Learner<B>,
    corpus: &Corpus,
    more: Option<(String, String)>,
) -> Result<()> {
    let mut origin = origin(context, stage, corpus)?;
    origin.extend(more);
    context.ranks.from_first(|| {
        save(&context.artifact(stage), learner, &corpus.tokenizer, &origin)?;
        forget_state(&context.state(stage))
    })
}

/// What every artifact records: program, recipe, seed, kernels, and the hashes of the texts and of the network that it was
/// made from, so that a number can be traced to what it was measured on.
fn origin(context: &StageContext<'_>, stage: Stage, corpus: &Corpus) -> Result<BTreeMap<String, String>> {
    let mut origin = BTreeMap::from([
        ("limbeck.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("limbeck.recipe".to_owned(), context.recipe.name.clone()),
        ("limbeck.recipe_sha256".to_owned(), context.recipe_hash(stage)),
        ("limbeck.seed".to_owned(), context.recipe.seed.to_string()),
        ("limbeck.kernels".to_owned(), context.kernels_name()),
        (TOKENIZER.to_owned(), corpus.tokenizer.content_hash().to_owned()),
        (parent_key("texts"), corpus.train.content_hash().to_owned()),
    ]);
    let model = &context.recipe.model.path;
    match stage.parent() {
        Some(parent) => {
            origin.insert(parent_key(parent.variant()), weights_hash(&context.artifact(parent))?);
        }
        None if !model.is_empty() => {
            origin.insert(parent_key("model"), weights_hash(Path::new(model))?);
        }
        None => {}
    }
    Ok(origin)
}
