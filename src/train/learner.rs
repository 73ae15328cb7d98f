//! One training step: forward, loss, backward, clipping, AdamW.

use super::optimizer::AdamW;
use super::{Terms, Tutor};
use crate::Batch;
use crate::autograd::{Grads, Tape};
use crate::models::{Classifier, Rows, Taps};
use crate::ops::Backend;
use crate::ops::loss::{Distillation, LossOps, Losses};
use crate::ops::noise::Noise;
use crate::params::ParamStore;
use crate::ranks::{Alone, Ranks};
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
    /// The global norm of the gradients of what is not masked, before clipping. Where it is not finite, the step was left out:
    /// gradients that are stored in few bits overflowed, and the loss is scaled less from here on.
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

/// A process among those that take a step together, and its part of their batch.
#[derive(Clone, Copy)]
pub struct Among<'a> {
    /// The processes.
    pub ranks: &'a dyn Ranks,
    /// This one's share of the texts of all, 0 to 1.
    pub texts: f64,
    /// Its share of their tokens.
    pub tokens: f64,
}

impl Among<'static> {
    /// Alone, with all texts.
    pub const ALONE: Among<'static> = Among { ranks: &Alone, texts: 1.0, tokens: 1.0 };
}

impl Among<'_> {
    /// The share of something that has a row for each text or for each token of `batch`.
    pub(super) fn share(&self, batch: &Batch, rows: usize) -> f64 {
        if rows == batch.texts() { self.texts } else { self.tokens }
    }

    /// Losses of all ranks together: `own` are means over this one's texts, terms its shares.
    fn all(&self, own: Option<Losses>, terms: Terms<Option<f64>>) -> Result<(Losses, Terms<Option<f64>>)> {
        let own = own.unwrap_or(Losses { total: 0.0, cross_entropy: 0.0, distillation: 0.0 });
        if !self.ranks.are_several() {
            return Ok((own, terms));
        }
        let Terms { hidden, cosine, attention, relations } = terms;
        let mut sums: Vec<f64> =
            [own.total, own.cross_entropy, own.distillation].map(|loss| self.texts * loss).to_vec();
        let terms = [hidden, cosine, attention, relations];
        sums.extend(terms.iter().flat_map(|term| [term.unwrap_or(0.0), f64::from(u8::from(term.is_some()))]));
        self.ranks.sum_wide(&mut sums)?;
        let (losses, terms) = sums.split_at(3);
        let term = |i: usize| (terms[2 * i + 1] > 0.0).then_some(terms[2 * i]);
        let losses = Losses { total: losses[0], cross_entropy: losses[1], distillation: losses[2] };
        Ok((losses, Terms { hidden: term(0), cosine: term(1), attention: term(2), relations: term(3) }))
    }
}

/// How a step is computed.
#[derive(Clone, Copy)]
struct How<'a> {
    noise: Option<Noise>,
    /// What the loss is multiplied by.
    scale: f64,
    among: Among<'a>,
}

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
    /// One step at `learning_rate`, as [`Learner::step_among`] by a process alone. With `watch`, the gradients of attention contexts and of feed-forward
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
        self.step_among(lesson, Among::ALONE, noise, learning_rate, watch)
    }

    /// One step at `learning_rate` of all ranks together, of which this one learns from `lesson`.
    ///
    /// # Errors
    /// As [`Learner::step`]; [`Error::Ranks`].
    pub fn step_among(
        &mut self,
        lesson: &Lesson,
        among: Among<'_>,
        noise: Option<Noise>,
        learning_rate: f64,
        watch: Option<&mut Watch<'_, B>>,
    ) -> Result<Step> {
        let Learner { backend, model, params, tutor, .. } = &*self;
        let how = How { noise, scale: self.optimizer.loss_scale().factor(), among };
        let (pending, terms, mut grads) = match lesson.batch.texts() {
            // Fewer texts than ranks.
            0 => {
                let mut none = Grads::none(params.len()).scaled(how.scale);
                if among.ranks.are_several() {
                    none.sum_over_ranks(backend, among.ranks, |id| params.value(id).shape())?;
                }
                (None, Terms::default(), none)
            }
            _ => {
                let (pending, terms, grads) =
                    all_gradients(backend, model, params, lesson, tutor.as_ref(), how, watch)?;
                (Some(pending), terms, grads)
            }
        };
        let step = self.optimizer.steps() + 1;
        // A loss that is not finite has a gradient that is not, and that changes nothing.
        let gradient_norm =
            self.optimizer.step(&self.backend, &mut self.params, &mut grads, learning_rate)?;
        let losses = pending.map(|pending| self.backend.losses(pending)).transpose()?;
        let (mut loss, terms) = among.all(losses, terms)?;
        if let Some(tutor) = &self.tutor {
            loss.total += tutor.weights().weigh(&terms);
        }
        let mend = "lower the learning_rate, or raise the warmup".to_owned();
        let diverged = |blame: String| Error::Diverged { step, loss: loss.total as f32, blame, mend };
        if !loss.total.is_finite() {
            return Err(diverged(self.params.blame(&self.backend)?));
        }
        if !self.optimizer.adapt(gradient_norm.is_finite()) {
            let first = grads.first_not_finite(&self.backend)?;
            let name = first.map_or("no parameter", |id| self.params.get(id).spec.name.as_str());
            return Err(diverged(format!("the gradient of {name} is the first that is not finite")));
        }
        let Losses { total, cross_entropy, distillation } = loss;
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
) -> Result<(Losses, Grads<B>)> {
    let how = How { noise, scale: backend.loss_scale().unwrap_or(1.0), among: Among::ALONE };
    let (pending, _, grads) = all_gradients(backend, model, params, lesson, None, how, watch)?;
    Ok((backend.losses(pending)?, grads))
}

/// A loss, the terms that a tutor adds to it, and gradients.
type Derived<B> = (<B as LossOps>::Pending, Terms<Option<f64>>, Grads<B>);

/// As [`gradients`], of a loss that a tutor adds terms to, summed over ranks.
fn all_gradients<B: Backend>(
    backend: &B,
    model: &Classifier,
    params: &ParamStore<B>,
    lesson: &Lesson,
    tutor: Option<&Tutor<B>>,
    How { noise, scale, among }: How<'_>,
    watch: Option<&mut Watch<'_, B>>,
) -> Result<Derived<B>> {
    let Lesson { batch, labels, teacher } = lesson;
    let mut tape = Tape::recording(backend, params, batch, noise);
    if let Some(tutor) = tutor {
        tutor.prepare(&mut tape);
    }
    let (output, taps) = model.forward_with_taps(&mut tape, Rows::Needed)?;
    let teacher = teacher.as_ref().map(|(logits, how)| (&logits[..], *how));
    let (loss, dy) = backend.loss(output.tensor(), labels, teacher, scale * among.texts)?;
    let (mut terms, mut derivatives) = (Terms::default(), vec![(output, dy)]);
    if let Some(tutor) = tutor {
        let (values, seeds) = tutor.teach(backend, &mut tape, model, &taps, batch, (scale, among))?;
        derivatives.extend(seeds);
        terms = values;
    }
    let grads = match watch {
        None => {
            drop(taps);
            tape.backward_among(derivatives, among.ranks)?.scaled(scale)
        }
        Some(watch) => {
            for layer in &taps.layers {
                tape.retain(&layer.context);
                tape.retain(&layer.intermediate);
            }
            let mut grads = tape.backward(derivatives)?.scaled(scale);
            watch(Seen { backend, model, params }, batch, &taps, &grads)?;
            if among.ranks.are_several() {
                grads.sum_over_ranks(backend, among.ranks, |id| params.value(id).shape())?;
            }
            grads
        }
    };
    Ok((loss, terms, grads))
}
