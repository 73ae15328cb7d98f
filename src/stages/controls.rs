//! The controls of a run: files beside its artifacts, made from the same texts and the same baseline.
//!
//! They are cheap, and nothing is made from them. So they are no stages: one that was made from something else than is
//! there now, or with other settings, is made again.

use super::{Corpus, Stage, StageContext, artifact, quantize};
use crate::controls::{Linear, Settings, Words};
use crate::infer::Model;
use crate::quantize::{Exceptions, Quantization};
use crate::{Result, files};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A control, as `[controls]` asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The baseline, quantized.
    Int8,
    /// Words and pairs of neighbours, weighted.
    NGrams,
}

/// The key under which a file names the hash of all that it was made from.
const MADE_FROM: &str = "limbeck.made_from";

impl Control {
    /// In the order of their rows.
    pub const ALL: [Control; 2] = [Control::Int8, Control::NGrams];

    /// What its row is called in the table.
    pub const fn variant(self) -> &'static str {
        match self {
            Control::Int8 => "int8 baseline",
            Control::NGrams => "n-grams",
        }
    }

    /// Whether the recipe asks for it.
    pub fn is_wanted(self, context: &StageContext<'_>) -> bool {
        match self {
            Control::Int8 => context.recipe.controls.int8,
            Control::NGrams => context.recipe.controls.ngrams,
        }
    }

    /// Where its file is.
    pub fn path(self, context: &StageContext<'_>) -> PathBuf {
        context.out.join(match self {
            Control::Int8 => "int8-baseline.limbeck",
            Control::NGrams => "ngrams.safetensors",
        })
    }
}

/// Makes the controls that the recipe asks for, as far as they are not there.
///
/// # Errors
/// The baseline is missing; whatever is wrong with the texts; a signal; a full disk.
pub fn controls(context: &StageContext<'_>) -> Result<()> {
    for control in Control::ALL.into_iter().filter(|control| control.is_wanted(context)) {
        context.check_stop()?;
        match control {
            Control::Int8 => int8(context)?,
            Control::NGrams => ngrams(context)?,
        }
    }
    Ok(())
}

fn int8(context: &StageContext<'_>) -> Result<()> {
    let (source, path) = (context.need(Stage::Train)?, Control::Int8.path(context));
    let (model, recipe) =
        (Some(artifact::weights_hash(&source)?), Some(context.recipe_hash(Stage::Quantize)));
    // Exceptions are of the compressed network, whose parameters may have other names.
    let plain = Quantization { exceptions: Exceptions::NONE, ..context.recipe.quantize.quantization() };
    let there = Model::open(&path).is_ok_and(|file| {
        let made = file.metadata().map(|metadata| &metadata.parents);
        made.is_some_and(|made| made.model == model && made.recipe == recipe) && file.check_data().is_ok()
    });
    if there { Ok(()) } else { quantize::write(context, &source, &path, &plain) }
}

fn ngrams(context: &StageContext<'_>) -> Result<()> {
    let (recipe, path) = (&context.recipe.controls, Control::NGrams.path(context));
    let corpus = Corpus::open(context)?;
    let texts = corpus.train_read_by(&Words)?;
    let settings = Settings {
        buckets: recipe.ngram_buckets,
        epochs: recipe.ngram_epochs,
        learning_rate: recipe.ngram_learning_rate as f32,
        l2: recipe.ngram_l2 as f32,
        seed: context.recipe.seed,
    };
    let decided = format!("{} {:?} {settings:?}", texts.content_hash(), corpus.train_rows());
    let decided = files::sha256(decided.as_bytes());
    let there = Linear::origin(&path).is_some_and(|origin| origin.get(MADE_FROM) == Some(&decided));
    if there && Linear::open(&path).is_ok() {
        return Ok(());
    }
    let model = Linear::train(&texts, corpus.train_rows(), &settings, context.progress, context.stop)?;
    let origin = BTreeMap::from([
        (MADE_FROM.to_owned(), decided),
        ("limbeck.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("limbeck.recipe".to_owned(), context.recipe.name.clone()),
        ("limbeck.seed".to_owned(), context.recipe.seed.to_string()),
        ("limbeck.parent.texts".to_owned(), texts.content_hash().to_owned()),
    ]);
    model.save(&path, &origin)
}
