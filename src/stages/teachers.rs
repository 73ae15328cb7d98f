//! Those whom a student learns from: which they are, whether they can teach it, and what is asked of them.
//!
//! Logits are computed once for all texts, each as its teacher's own tokenizer reads it, and kept on disk; of several teachers they become one, whose probabilities at
//! the recipe's temperature are the weighted mean of theirs. What lies within a teacher (the first of them) is too much
//! to keep, and is computed anew for each batch ([`crate::train::feature_teacher`]).

use super::recipe::tables::{Distill, LayerMapChoice, NamedLayerMap, Train};
use super::{Corpus, Stage, StageContext, artifact};
use crate::checkpoint::{HfDirectory, check_complete};
use crate::data::TokenSet;
use crate::models::Classifier;
use crate::ops::Backend;
use crate::ops::loss::{Distillation, mean_teacher};
use crate::tokenizer::Tokenizer;
use crate::train::layer_map::{LayerMap, similarities};
use crate::train::{FeatureDistillation, Learner, Terms, teacher};
use crate::{Batch, Error, Result};
use std::path::{Path, PathBuf};

/// The teacher that is this run's own first artifact.
const BASELINE: &str = "baseline";

/// Texts that the similarity of layers is measured on: some thousands of tokens, several for each column.
const SAMPLE: usize = 64;

/// Where the recipe's teachers are.
fn paths(context: &StageContext<'_>) -> Result<Vec<PathBuf>> {
    let path = |name: &String| match name.as_str() {
        BASELINE => context.need_whole(Stage::Train),
        path => Ok(Path::new(path).to_owned()),
    };
    context.recipe.distill.teacher.names().iter().map(path).collect()
}

/// Those of the recipe's teachers that are none of the run's own networks.
fn given(distill: &Distill) -> impl Iterator<Item = &Path> {
    distill.teacher.names().iter().filter(|name| *name != BASELINE).map(Path::new)
}

/// The content hashes of the weights and tokenizers of given teachers, as text: the run's own is bound as the first artifact is.
///
/// # Errors
/// A file cannot be read.
pub fn hashes(context: &StageContext<'_>) -> Result<String> {
    let hashes = |path: &Path| {
        let tokenizer = HfDirectory::open(path)?.tokenizer()?;
        Ok(format!(
            " taught by {}, which reads by {}",
            artifact::weights_hash(path)?,
            tokenizer.content_hash()
        ))
    };
    given(&context.recipe.distill).map(|path| hashes(path).map_err(of_teacher)).collect()
}

/// Whether the recipe's teachers, as far as they are none of the run's own networks, can teach; whether the layers exist
/// that are to learn and to be learnt from, if so many will be `left` of the baseline's `layers`; and, where they are compared
/// token by token, whether student and teacher will read the same tokens if a `trimmed` vocabulary reads the student's. Told
/// before the first step rather than after the first stage.
///
/// # Errors
/// Whatever is wrong, naming the key.
pub fn check_early(
    context: &StageContext<'_>,
    corpus: &Corpus,
    [left, layers]: [usize; 2],
    trimmed: Option<&Tokenizer>,
) -> Result<()> {
    let distill = &context.recipe.distill;
    for (place, name) in distill.teacher.names().iter().enumerate() {
        if name != BASELINE {
            check(context, Path::new(name), corpus, place)?;
        }
    }
    let teacher = match distill.teacher.names()[0].as_str() {
        BASELINE => layers,
        path => HfDirectory::open(Path::new(path))?.config.layers.len(),
    };
    check_layers(distill, [left, teacher])?;
    let terms = terms(distill);
    match trimmed {
        Some(tokenizer) if terms.any() => {
            // Kept on disk, as the student will read them.
            let texts = context.ranks.first_then(|| corpus.train_read_by(tokenizer))?;
            check_lengths(&terms, &texts, &corpus.train)
        }
        _ => Ok(()),
    }
}

/// What each term of feature distillation counts.
fn terms(distill: &Distill) -> Terms<f64> {
    Terms {
        hidden: distill.hidden,
        cosine: distill.cosine,
        attention: distill.attention,
        relations: distill.relations,
    }
}

/// The logits of the recipe's teachers for all training texts, computed by what a stage trains on, and how to learn from them.
///
/// # Errors
/// A teacher's logits would mean something else than the student's; and those of [`teacher::logits`].
pub fn teach<B: Backend>(
    context: &StageContext<'_>,
    stage: Stage,
    device: &B,
    corpus: &Corpus,
) -> Result<(Vec<f32>, Distillation)> {
    let distill = &context.recipe.distill;
    let (_, train) = context.recipe.training(stage).expect("it trains");
    let computed_by = format!("{} {}", context.kernels_name(), context.precision_name(train.precision));
    let mut all = Vec::new();
    for (place, path) in paths(context)?.into_iter().enumerate() {
        let own = check(context, &path, corpus, place)?;
        let own =
            own.map(|tokenizer| context.ranks.first_then(|| corpus.train_read_by(&tokenizer))).transpose()?;
        let texts = own.as_ref().unwrap_or(&corpus.train);
        let hash = artifact::weights_hash(&path)?;
        let load = || artifact::load(device, &path, &distill.train);
        let name = match place {
            0 => "teacher-logits.safetensors".to_owned(),
            place => format!("teacher-logits-{}.safetensors", place + 1),
        };
        let cache = context.cache().join(name);
        let (progress, stop) = (context.progress, context.stop);
        all.push(
            context
                .ranks
                .first_then(|| teacher::logits(load, [&hash, &computed_by], texts, &cache, progress, stop))?,
        );
    }
    let how = Distillation { temperature: distill.temperature as f32, alpha: distill.alpha as f32 };
    let logits = match all.len() {
        1 => all.remove(0),
        _ => mean_teacher(&all, &distill.weights(), corpus.train.labels().len(), how.temperature),
    };
    Ok((logits, how))
}

/// Has `learner`, whose network is the one that is to be trained as `train` says, learn from the layers of the recipe's
/// first teacher, if the recipe asks for that. The student reads the texts as `corpus` has them, the teacher as `whole` has
/// them, which may be the same.
///
/// # Errors
/// Layers that do not exist; texts of which teacher and student read a different number of tokens.
pub fn distill_features<B: Backend>(
    context: &StageContext<'_>,
    corpus: &Corpus,
    whole: &Corpus,
    learner: &mut Learner<B>,
    train: &Train,
) -> Result<()> {
    let distill = &context.recipe.distill;
    let weights = terms(distill);
    if !weights.any() {
        return Ok(());
    }
    // A feature teacher keeps what its teacher reads.
    let other = whole.tokenizer.content_hash() != corpus.tokenizer.content_hash();
    let read = || whole.train_read_by(&whole.tokenizer);
    let texts = other.then(|| context.ranks.first_then(read)).transpose()?;
    texts.as_ref().map_or(Ok(()), |texts| check_lengths(&weights, &corpus.train, texts))?;
    let path = paths(context)?.swap_remove(0);
    let Learner { model, params, .. } = artifact::load(&learner.backend, &path, train)?;
    let layers = match &distill.layer_map {
        LayerMapChoice::Named(NamedLayerMap::Original) => LayerMap::Original,
        LayerMapChoice::Named(NamedLayerMap::Uniform) => LayerMap::Uniform,
        LayerMapChoice::Named(NamedLayerMap::Last) => LayerMap::Last,
        LayerMapChoice::Named(NamedLayerMap::Search) => LayerMap::Search,
        LayerMapChoice::Pairs(pairs) => LayerMap::Pairs(pairs.clone()),
    };
    let own = texts.as_ref().unwrap_or(&corpus.train);
    let layers = layers.pairs(&learner.model.config, &model.config, || {
        let [mine, theirs] = [&corpus.train, own].map(|texts| sample(corpus, texts));
        similarities(&learner.backend, (&learner.model, &learner.params, &mine), (&model, &params, &theirs))
    })?;
    let counts = [&learner.model.config, &model.config].map(|config| config.layers.len());
    let features = FeatureDistillation {
        weights,
        layers,
        relation_layers: distill.relation_layers.unwrap_or(counts.map(|count| count - 1)),
        relation_heads: distill.relation_heads,
    };
    check_layers(distill, counts)?;
    context.progress.message(&format!("the student's layers learn from the teacher's: {}", shown(&features)));
    let [own, _] = features.relation_layers;
    if features.weights.relations > 0.0 && learner.model.config.layers[own].heads.is_empty() {
        context.progress.message(&format!(
            "distill.relations: the student's layer {own} has no head left, so that this term teaches nothing; name another by \
             distill.relation_layers"
        ));
    }
    learner.distill_features((model, params), features, texts, context.recipe.seed)
}

/// The pairs that are compared, for people.
fn shown(features: &FeatureDistillation) -> String {
    let pair = |[student, teacher]: &[usize; 2]| format!("{student} from {teacher}");
    let mut shown = Vec::new();
    if features.weights.compares_states() || features.weights.attention > 0.0 {
        shown.extend(features.layers.iter().map(pair));
    }
    if features.weights.relations > 0.0 {
        shown.push(format!("relations of {}", pair(&features.relation_layers)));
    }
    shown.join(", ")
}

/// The first texts to learn from.
fn sample(corpus: &Corpus, texts: &TokenSet) -> Batch {
    let rows = 0..corpus.train_rows().len().min(SAMPLE);
    Batch::from_texts(rows.map(|text| texts.text(text)))
}

/// Terms that compare token by token need the same number of tokens to student and teacher.
fn check_lengths(weights: &Terms<f64>, student: &TokenSet, teacher: &TokenSet) -> Result<()> {
    let lengths = |text: usize| [student, teacher].map(|texts| texts.tokens(text).len());
    let Some(text) = (0..teacher.len()).find(|&text| lengths(text)[0] != lengths(text)[1]) else {
        return Ok(());
    };
    let [mine, theirs] = lengths(text);
    let named = weights.named();
    let (name, _) = named.iter().find(|(_, weight)| *weight > 0.0).expect("one counts, or nobody asks");
    let problem = format!(
        "compares tokens, and the teacher reads others than the student: text {text} of the training file is {theirs} tokens \
         to it and {mine} to the student"
    );
    let mend = "set distill.hidden, cosine, attention and relations to 0, or leave the vocabulary (prune.vocabulary) whole";
    Err(Error::setting(format!("distill.{name}"), problem, mend))
}

/// Whether the layers that the recipe names exist in networks of so many, student's and teacher's.
fn check_layers(distill: &Distill, counts: [usize; 2]) -> Result<()> {
    let named = match &distill.layer_map {
        LayerMapChoice::Pairs(pairs) => &pairs[..],
        LayerMapChoice::Named(_) => &[],
    };
    let named = named.iter().map(|pair| ("distill.layer_map", pair));
    for (key, pair) in
        named.chain(distill.relation_layers.iter().map(|pair| ("distill.relation_layers", pair)))
    {
        for ((layer, count), whose) in pair.iter().zip(counts).zip(["student", "teacher"]) {
            if *layer >= count {
                let problem = format!("there is no layer {layer}: the {whose} has {count}, counted from 0");
                return Err(Error::setting(
                    key,
                    problem,
                    "[student, teacher], as limbeck inspect counts layers",
                ));
            }
        }
    }
    Ok(())
}

/// Whether the recipe's teacher in that place answers in the student's classes, and reads the student's tokens where they are
/// compared. Its tokenizer, if it is another than the corpus'.
fn check(
    context: &StageContext<'_>,
    path: &Path,
    corpus: &Corpus,
    place: usize,
) -> Result<Option<Tokenizer>> {
    let compared = place == 0 && terms(&context.recipe.distill).any();
    can_teach(path, corpus, context.recipe.data.max_tokens, compared).map_err(of_teacher)
}

fn can_teach(path: &Path, corpus: &Corpus, max_tokens: usize, compared: bool) -> Result<Option<Tokenizer>> {
    let teacher = &HfDirectory::open(path)?;
    let config = &teacher.config;
    let refused = |problem: String, mend: &str| {
        Err(Error::setting("distill.teacher", format!("{}: {problem}", path.display()), mend))
    };
    if config.labels.is_empty() {
        return refused(
            "it has no classification head".to_owned(),
            "give a model that was trained on this task",
        );
    }
    if config.labels != corpus.train.labels() {
        return refused(
            format!("its classes are {:?}, those of the data {:?}", config.labels, corpus.train.labels()),
            "give a model that was trained on this task, with the same names in the same order",
        );
    }
    check_complete(teacher, &Classifier::new(config).1)?;
    let tokenizer = teacher.tokenizer()?;
    let other = tokenizer.content_hash() != corpus.tokenizer.content_hash();
    if other && compared {
        return refused(
            "its tokenizer is not that of the model, and its layers are compared with the student's token by token".to_owned(),
            "set distill.hidden, cosine, attention and relations to 0, or give a teacher of the same vocabulary",
        );
    }
    if max_tokens > config.positions {
        return refused(
            format!("it reads {} tokens, and data.max_tokens is {max_tokens}", config.positions),
            "lower data.max_tokens, or give another teacher",
        );
    }
    Ok(other.then_some(tokenizer))
}

/// What is wrong with a teacher's files, under the key that names it.
fn of_teacher(error: Error) -> Error {
    let key = "distill.teacher";
    match error {
        Error::File { path, line: None, problem, mend } => {
            Error::setting(key, format!("{}: {problem}", path.display()), mend)
        }
        Error::Tensor { path, tensor, problem, mend } => {
            Error::setting(key, format!("{}, tensor {tensor}: {problem}", path.display()), mend)
        }
        other => other,
    }
}
