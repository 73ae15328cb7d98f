//! The head of a masked language model: which word stood where a text has a mask.
//!
//! ```text
//! states of the masked tokens ─▶ linear, nonlinearity ─▶ layer norm ─▶ × the word table, + bias ─▶ a logit a word
//! ```
//!
//! DistilBERT and BERT have the same one under different names (Devlin et al., arXiv:1810.04805). Only what is trained has it: it is
//! written over the tape, whose loss never holds all logits ([`vocabulary`](crate::ops::vocabulary)).

use super::Classifier;
use super::config::{Architecture, ModelConfig};
use crate::autograd::{Tape, Var};
use crate::nn::{Declare, LayerNorm, Linear};
use crate::ops::Backend;
use crate::ops::loss::{Distillation, LossOps};
use crate::ops::vocabulary::Teacher;
use crate::params::ParamStore;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// From states to logits of words; the values of its parameters live elsewhere.
#[derive(Clone, Debug)]
pub struct MaskedHead {
    /// `[hidden, hidden]`, with the encoder's nonlinearity.
    pub transform: Linear,
    /// Over its result.
    pub norm: LayerNorm,
    /// The word table, `[vocabulary, hidden]`, and a bias of its own.
    pub projector: Linear,
}

/// A loss that the host need not know yet, and, of a tape that records, its gradient by a variable.
pub type Masked<B> = (<B as LossOps>::Pending, Option<(Var<B>, Tensor<B>)>);

impl MaskedHead {
    /// Declares what the head has beside the word table of `model`, under Hugging Face's names.
    ///
    /// # Errors
    /// [`Error::Setting`]: the model's words are factored, so that their table is too narrow.
    pub fn new(declare: &mut Declare, model: &Classifier) -> Result<MaskedHead> {
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
        Ok(MaskedHead {
            transform: Linear::new(declare, transform, hidden, hidden, activation),
            norm: LayerNorm::new(declare, norm, hidden, layer_norm_eps),
            projector: Linear::tied(declare, model.embeddings.words, bias, hidden, vocab),
        })
    }

    /// What the projector reads of the tokens at `places` (ascending) of `states`: `[places, hidden]`.
    ///
    /// # Errors
    /// The device's.
    pub fn read<B: Backend>(
        &self,
        tape: &mut Tape<'_, B>,
        states: &Var<B>,
        places: &[u32],
    ) -> Result<Var<B>> {
        let states = tape.select(states, places)?;
        let transformed = self.transform.forward(tape, &states)?;
        tape.norm(&self.norm, &transformed)
    }

    /// The mean loss over the tokens at `places` of `states`, where `words` stood, one each; and `scale` times its gradient. With a
    /// teacher its distribution over words is learned too: it is the teacher's head and parameters, and what [`MaskedHead::read`] made
    /// of the same tokens there.
    ///
    /// # Errors
    /// The device's.
    pub fn loss<B: Backend>(
        &self,
        tape: &mut Tape<'_, B>,
        states: &Var<B>,
        [places, words]: [&[u32]; 2],
        teacher: Option<(&MaskedHead, &ParamStore<B>, &Var<B>, Distillation)>,
        scale: f64,
    ) -> Result<Masked<B>> {
        let h = self.read(tape, states, places)?;
        let teacher = teacher.map(|(head, params, h, how)| Teacher {
            params,
            layer: &head.projector,
            h: h.tensor(),
            how,
        });
        tape.vocabulary_loss(&self.projector, &h, words, teacher, scale)
    }
}
