//! The head of a masked language model: which word stood where a text has a mask.
//!
//! ```text
//! states of the masked tokens ─▶ linear, nonlinearity ─▶ layer norm ─▶ × the word table, + bias ─▶ a logit a word
//! ```
//!
//! DistilBERT and BERT have the same one under different names (Devlin et al., arXiv:1810.04805). Only what is trained has it: its loss,
//! which never holds all logits, is in the `train` room.

use super::Classifier;
use super::config::{Architecture, ModelConfig};
use crate::nn::{LayerNorm, Linear, ParamBuilder};
use crate::{Error, Result};

/// From states to logits of words; the values of its parameters live elsewhere.
#[derive(Clone, Debug)]
pub struct MlmHead {
    /// `[hidden, hidden]`, with the encoder's nonlinearity.
    pub transform: Linear,
    /// Over its result.
    pub norm: LayerNorm,
    /// The word table, `[vocabulary, hidden]`, and a bias of its own.
    pub projector: Linear,
}

impl MlmHead {
    /// Declares what the head has beside the word table of `model`, under Hugging Face's names.
    ///
    /// # Errors
    /// [`Error::Setting`]: the model's words are factored, so that their table is too narrow.
    pub fn new(declare: &mut ParamBuilder, model: &Classifier) -> Result<MlmHead> {
        let ModelConfig { hidden, vocab, activation, layer_norm_eps, .. } = model.config;
        if model.embeddings.projection.is_some() {
            let problem = "the word table is factored, and a head over the vocabulary reads it whole";
            return Err(Error::setting("prune.embedding_size", problem, "factor it after pre-training"));
        }
        let [transform, norm, bias] = match model.config.architecture {
            Architecture::DistilBert => ["vocab_transform", "vocab_layer_norm", "vocab_projector.bias"],
            Architecture::Bert => [
                "cls.predictions.transform.dense",
                "cls.predictions.transform.LayerNorm",
                "cls.predictions.bias",
            ],
        };
        Ok(MlmHead {
            transform: Linear::new(declare, transform, hidden, hidden, activation),
            norm: LayerNorm::new(declare, norm, hidden, layer_norm_eps),
            projector: Linear::tied(declare, model.embeddings.words, bias, hidden, vocab),
        })
    }
}
