//! What pruning will want of a baseline, asked before its first step.

use super::{decoupling, embedding_factors, layers, positions, sharing, vocabulary, width};
use crate::Result;
use crate::models::ModelConfig;
use crate::stages::{Corpus, StageContext};
use crate::tokenizer::Tokenizer;

/// What pruning will leave of a baseline, as far as others ask before its first step.
pub struct Prospect {
    /// Layers.
    pub layers: usize,
    /// What will read the texts, if the vocabulary becomes a smaller one.
    pub tokenizer: Option<Tokenizer>,
}

/// Whether a baseline of this configuration, which reads these texts, can be pruned as the recipe says, as far as that can be
/// known of what is not trained yet. Checked in the order in which pruning goes on: each part asks what it asks of the
/// network when its turn comes.
///
/// # Errors
/// [`Error::Setting`](crate::Error::Setting), naming the key.
pub fn check(context: &StageContext<'_>, config: &ModelConfig, corpus: &Corpus) -> Result<Prospect> {
    let settings = &context.recipe.prune;
    let layers = layers::left(settings, config.layers.len())?;
    sharing::check(settings, config, layers)?;
    decoupling::check(settings, layers)?;
    let tokenizer = vocabulary::check(settings, corpus)?;
    let pieces = tokenizer.as_ref().map_or(config.vocab, Tokenizer::vocab);
    positions::check(settings, config)?;
    let narrower = width::check(settings, config)?;
    embedding_factors::check(settings, &ModelConfig { vocab: pieces, ..narrower })?;
    Ok(Prospect { layers, tokenizer })
}
