//! A narrower network: hidden features are deleted everywhere, which are the columns of the embeddings, one side of
//! every matrix, and the places of the norms.
//!
//! ```text
//! gradient  Σ over texts of (Σ over norms of γ·∂loss/∂γ + β·∂loss/∂β)²   a gate on the feature wherever a norm lets it out
//! norm      Σ over matrices of the feature's share of the sum of squares   looks at the weights alone
//! random    drawn from the seed                                             the control
//! ```
//!
//! A norm's output is `γ·x̂ + β`, and whatever reads the feature reads it behind one: so `γ·∂γ + β·∂β`, summed over all
//! norms, is the derivative of the loss by one gate on the feature in the whole network, and half the mean of its squares
//! what the loss gains without it, by the diagonal of the gates' empirical Fisher information. That leaves something out:
//! the mean and the variance of a norm are over the features that there are, so a network without some is not what
//! the whole one computes with them at zero. It is the network of that width with those rows and columns, no more and
//! no less, and has to be trained to make up for it.
//!
//! The head's dense layer has as many outputs as the network is wide, but they are no features of it: they are scored by
//! themselves, by gates before the classifier, and as many stay. Heads keep their size, so `head_size · heads` is no
//! longer the width; transformers has no key for that ([`Padding`](super::Padding) says when it needs none).

use super::importance::select;
use super::magnitude::Scope;
use super::rebuild::delete;
use super::structure::{Keep, Side, dense_sides, hidden_sides};
use crate::Result;
use crate::nn::{LayerNorm, ParamId, Role};
use crate::ops::Backend;
use crate::train::learner::gradients;
use crate::train::{Examples, Learner};
use limbeck_kernels::random::mix;
use serde::{Deserialize, Serialize};

/// What makes a hidden feature important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WidthImportance {
    /// How the loss would change without it: mean over texts of (∂loss/∂gate)² for a gate on the feature behind every norm, of
    /// (Σ γ·∂γ + β·∂β)².
    #[default]
    Gradient,
    /// The sum over matrices of the feature's share of the sum of squares.
    Norm,
    /// A number drawn from the seed: the control.
    Random,
}

/// Importance of each hidden feature, and of each output of the head's dense layer.
#[derive(Clone, Debug, PartialEq)]
pub struct WidthScores {
    /// `[hidden]`.
    pub hidden: Vec<f64>,
    /// `[hidden]`; all zero if there is no such layer.
    pub dense: Vec<f64>,
}

impl WidthScores {
    /// All zero.
    pub fn zeros(hidden: usize) -> WidthScores {
        WidthScores { hidden: vec![0.0; hidden], dense: vec![0.0; hidden] }
    }

    /// Adds one text's [`WidthImportance::Gradient`] scores.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If the examples are not of one text: gradients of several are sums, and no sum of squares comes of them.
    pub fn add_gradients<B: Backend>(&mut self, learner: &Learner<B>, examples: &Examples) -> Result<()> {
        assert_eq!(examples.batch.texts(), 1, "squares are of one text");
        let Learner { backend, model, params, .. } = learner;
        let (_, grads) = gradients(backend, model, params, examples, None, None)?;
        let mut hidden = vec![0.0; self.hidden.len()];
        let mut dense = vec![0.0; self.dense.len()];
        let add = |slopes: &mut [f64], id: ParamId| -> Result<()> {
            let Some(gradient) = grads.param(id) else { return Ok(()) };
            let (values, gradient) = (params.value(id).download(backend)?, gradient.download(backend)?);
            for (i, (value, gradient)) in values.iter().zip(gradient).enumerate() {
                slopes[i % model.config.hidden] += f64::from(*value) * f64::from(gradient) / grads.scale();
            }
            Ok(())
        };
        // Of parameters that layers share there is one gradient.
        let own = model.config.own_layers().map(|layer| &model.layers[layer]);
        let of_layers = own.flat_map(|layer| [&layer.attention_norm, &layer.output_norm]);
        for LayerNorm { gamma, beta, .. } in of_layers.chain([&model.embeddings.norm]) {
            add(&mut hidden, *gamma)?;
            add(&mut hidden, *beta)?;
        }
        if model.head.dense.is_some() {
            add(&mut dense, model.head.classifier.weight)?;
        }
        for (scores, slopes) in [(&mut self.hidden, hidden), (&mut self.dense, dense)] {
            scores.iter_mut().zip(slopes).for_each(|(score, slope)| *score += slope * slope);
        }
        Ok(())
    }

    /// [`WidthImportance::Norm`].
    ///
    /// # Errors
    /// The device's.
    pub fn norms<B: Backend>(learner: &Learner<B>) -> Result<WidthScores> {
        let mut scores = WidthScores::zeros(learner.model.config.hidden);
        let (hidden, dense) = (hidden_sides(&learner.model), dense_sides(&learner.model));
        for (scores, sides) in [(&mut scores.hidden, hidden), (&mut scores.dense, dense)] {
            for (id, side) in sides {
                let param = learner.params.get(id);
                if !matches!(param.spec.role, Role::Weight | Role::Embedding) {
                    continue;
                }
                let (values, cols) = (param.value().download(&learner.backend)?, param.value().cols());
                let squares: Vec<f64> = values.iter().map(|value| f64::from(*value).powi(2)).collect();
                let all = squares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
                for (i, square) in squares.into_iter().enumerate() {
                    scores[if side == Side::Rows { i / cols } else { i % cols }] += square / all;
                }
            }
        }
        Ok(scores)
    }

    /// [`WidthImportance::Random`].
    pub fn random(hidden: usize, seed: u64) -> WidthScores {
        let draw = |kind: u64| (0..hidden as u64).map(|i| mix(mix(seed ^ kind) ^ i) as f64).collect();
        WidthScores { hidden: draw(2), dense: draw(3) }
    }

    /// The `count` features and outputs that stay, those of highest score.
    fn keep(&self, count: usize) -> [Vec<usize>; 2] {
        [&self.hidden, &self.dense].map(|scores| {
            let all = std::slice::from_ref(scores);
            select(all, scores.len().saturating_sub(count), Scope::Global).remove(0)
        })
    }
}

/// Deletes all but `count` hidden features, from parameters, masks and moments.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If somebody teaches the network already, by projections from its width, or its word table has wider rows.
pub fn narrow<B: Backend>(learner: &mut Learner<B>, scores: &WidthScores, count: usize) -> Result<()> {
    assert!(learner.feature_teacher.is_none(), "features go before a feature teacher counts them");
    assert!(learner.model.config.embedding_size.is_none_or(|size| size < count), "a narrower table");
    let [hidden, dense] = scores.keep(count);
    delete(learner, &Keep { hidden, dense, ..Keep::all(&learner.model.config) }).map(drop)
}
