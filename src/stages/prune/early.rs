//! What pruning will want of a baseline, asked before its first step.

use super::{decoupling, factorization, layers, sharing, vocabulary, width};
use crate::Result;
use crate::models::ModelConfig;
use crate::stages::{Corpus, StageContext};

/// Whether a baseline of this configuration, which reads these texts, can be pruned as the recipe says, as far as that can be
/// known of what is not trained yet. Checked in the order in which pruning goes on: each part asks what it asks of the
/// network when its turn comes. Returns how many layers will be left.
///
/// # Errors
/// [`Error::Setting`](crate::Error::Setting), naming the key.
pub fn check(context: &StageContext<'_>, config: &ModelConfig, corpus: &Corpus) -> Result<usize> {
    let settings = &context.recipe.prune;
    let left = layers::left(settings, config.layers.len())?;
    sharing::check(settings, config, left)?;
    decoupling::check(settings, left)?;
    let pieces = vocabulary::check(settings, corpus)?.unwrap_or(config.vocab);
    let narrower = width::check(settings, config)?;
    factorization::check(settings, &ModelConfig { vocab: pieces, ..narrower })?;
    Ok(left)
}
