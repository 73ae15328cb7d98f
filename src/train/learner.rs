//! One training step: forward, loss, backward, clipping, AdamW.

use super::optimizer::AdamW;
use super::{Terms, Tutor};
use crate::Batch;
use crate::autograd::{Grads, Tape};
use crate::models::{Classifier, Rows, Taps};
use crate::ops::Backend;
use crate::ops::loss::{self, Distillation, Loss};
use crate::ops::noise::Noise;
use crate::params::ParamStore;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A batch, and what is to be learned from it.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// The texts.
    pub batch: Batch,
    /// The class of each text.
    pub labels: Vec<usize>,
    /// The teacher's logits, `[texts, classes]`, and how to learn from them.
    pub teacher: Option<(Vec<f32>, Distillation)>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The loss that was minimized.
    pub loss: f64,
    /// Its cross-entropy.
    pub cross_entropy: f64,
    /// Its distillation term, before alpha.
    pub distillation: f64,
    /// Its terms that look inside a teacher, before their weights; none of those that do not count.
    pub terms: Terms<Option<f64>>,
    /// The global norm of the gradients of what is not masked, before clipping.
    pub gradient_norm: f64,
}

/// The parts of a learner that may be looked at during a step.
pub struct Seen<'a, B: Backend> {
    /// The device.
    pub backend: &'a B,
    /// The network.
    pub model: &'a Classifier,
    /// Its parameters, as they were in the forward pass.
    pub params: &'a ParamStore<B>,
}

/// What looks at the inside of a step: it is handed the results inside the network and the gradients.
pub type Watch<'w, B> =
    dyn FnMut(Seen<'_, B>, &Batch, &Taps<crate::autograd::Var<B>>, &Grads<B>) -> Result<()> + 'w;

/// A network, its parameters and their optimizer.
pub struct Learner<B: Backend> {
    /// Where it all runs.
    pub backend: B,
    /// The network.
    pub model: Classifier,
    /// Its parameters.
    pub params: ParamStore<B>,
    /// Their moments.
    pub optimizer: AdamW<B>,
    /// Whose inside the network learns from, if anybody's ([`Learner::learn_from`]).
    pub tutor: Option<Tutor<B>>,
}

impl<B: Backend> Learner<B> {
    /// One step at `learning_rate`. With `watch`, the gradients of attention contexts and of feed-forward
    /// units are kept for it.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or a gradient is not finite, in which case the parameters are as before
    /// the step; and the device's.
    pub fn step(
        &mut self,
        lesson: &Lesson,
        noise: Option<Noise>,
        learning_rate: f64,
        watch: Option<&mut Watch<'_, B>>,
    ) -> Result<Step> {
        let Learner { backend, model, params, tutor, .. } = &*self;
        let (loss, terms, mut grads) =
            all_gradients(backend, model, params, lesson, tutor.as_ref(), noise, watch)?;
        let step = self.optimizer.steps() + 1;
        let mend = "lower the learning_rate, or raise the warmup".to_owned();
        let diverged = |blame: String| Error::Diverged { step, loss: loss.total as f32, blame, mend };
        if !loss.total.is_finite() {
            return Err(diverged(self.params.blame(&self.backend)?));
        }
        let gradient_norm =
            self.optimizer.step(&self.backend, &mut self.params, &mut grads, learning_rate)?;
        if !gradient_norm.is_finite() {
            let first = grads.first_not_finite(&self.backend)?;
            let name = first.map_or("no parameter", |id| self.params.get(id).spec.name.as_str());
            return Err(diverged(format!("the gradient of {name} is the first that is not finite")));
        }
        let Loss { total, cross_entropy, distillation, .. } = loss;
        Ok(Step { loss: total, cross_entropy, distillation, terms, gradient_norm })
    }

    /// Checks that every masked element is exactly zero, and so are its moments; its gradient is zeroed by the
    /// optimizer, from whose moments any other would be seen.
    ///
    /// # Panics
    /// If one is not: a mask that leaks is a bug, never a matter of input.
    ///
    /// # Errors
    /// The device's.
    pub fn assert_masks(&self) -> Result<()> {
        self.params.assert_masks(&self.backend)?;
        for ((_, param), moments) in self.params.iter().zip(self.optimizer.moments()) {
            if let Some(mask) = &param.mask {
                for (moment, name) in moments.iter().zip(["first", "second"]) {
                    mask.assert_zero(&moment.download(&self.backend)?, || {
                        format!("the {name} moment of {}", param.spec.name)
                    });
                }
            }
        }
        Ok(())
    }

    /// Logits of `batch`: `[texts, labels]`, without dropout and without a record.
    ///
    /// # Errors
    /// The device's.
    pub fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        logits(&self.backend, &self.model, &self.params, batch)
    }
}

/// Logits of `batch`: `[texts, labels]`, without dropout and without a record.
///
/// # Errors
/// The device's.
pub fn logits<B: Backend>(
    backend: &B,
    model: &Classifier,
    params: &ParamStore<B>,
    batch: &Batch,
) -> Result<Vec<f32>> {
    let mut tape = Tape::evaluating(backend, params, batch);
    model.forward(&mut tape)?.tensor().download(backend)
}

/// The loss of a lesson and its gradients.
///
/// # Errors
/// The device's.
pub fn gradients<B: Backend>(
    backend: &B,
    model: &Classifier,
    params: &ParamStore<B>,
    lesson: &Lesson,
    noise: Option<Noise>,
    watch: Option<&mut Watch<'_, B>>,
) -> Result<(Loss, Grads<B>)> {
    let (loss, _, grads) = all_gradients(backend, model, params, lesson, None, noise, watch)?;
    Ok((loss, grads))
}

/// As [`gradients`], of a loss that a tutor adds terms to.
fn all_gradients<B: Backend>(
    backend: &B,
    model: &Classifier,
    params: &ParamStore<B>,
    lesson: &Lesson,
    tutor: Option<&Tutor<B>>,
    noise: Option<Noise>,
    watch: Option<&mut Watch<'_, B>>,
) -> Result<(Loss, Terms<Option<f64>>, Grads<B>)> {
    let Lesson { batch, labels, teacher } = lesson;
    let mut tape = Tape::recording(backend, params, batch, noise);
    if let Some(tutor) = tutor {
        tutor.prepare(&mut tape);
    }
    let (output, taps) = model.forward_with_taps(&mut tape, Rows::Needed)?;
    let values = output.tensor().download(backend)?;
    let mut loss = match teacher {
        None => loss::cross_entropy(&values, labels),
        Some((teacher, how)) => loss::distillation(&values, labels, teacher, *how),
    };
    let dy = Tensor::upload(backend, &loss.gradient, output.tensor().shape())?;
    let (mut terms, mut derivatives) = (Terms::default(), vec![(output, dy)]);
    if let Some(tutor) = tutor {
        let (values, seeds) = tutor.teach(backend, &mut tape, model, &taps, batch)?;
        loss.total += tutor.weights().weigh(&values);
        derivatives.extend(seeds);
        terms = values;
    }
    let grads = match watch {
        None => {
            drop(taps);
            tape.backward(derivatives)?
        }
        Some(watch) => {
            for layer in &taps.layers {
                tape.retain(&layer.context);
                tape.retain(&layer.intermediate);
            }
            let grads = tape.backward(derivatives)?;
            watch(Seen { backend, model, params }, batch, &taps, &grads)?;
            grads
        }
    };
    Ok((loss, terms, grads))
}
