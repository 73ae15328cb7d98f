//! One training step: forward, loss, backward, clipping, AdamW.

mod features;
mod finish;

use super::examples::{BatchShard, Examples};
use super::filling::filled;
use super::launched::LaunchedStep;
use super::optimizer::AdamW;
use super::{FeatureTeacher, Terms};
use crate::Batch;
use crate::Result;
use crate::autograd::{Grads, Tape};
use crate::models::{Classifier, Rows, Taps};
use crate::ops::Backend;
use crate::ops::dropout::DropoutSeed;
use crate::ops::loss::{LossOps, Losses};
use crate::params::ParamStore;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The loss that was minimized.
    pub loss: f64,
    /// Its cross-entropy.
    pub cross_entropy: f64,
    /// Its distillation term, before alpha.
    pub distillation: f64,
    /// Its terms of feature distillation, before their weights; none of those that do not count.
    pub terms: Terms<Option<f64>>,
    /// The global norm of the gradients of what is not masked, before clipping. Where it is not finite, the step was left out:
    /// gradients that are stored in few bits overflowed, and the loss is scaled less from here on.
    pub gradient_norm: f64,
}

/// The parts of a learner that may be looked at during a step.
pub struct LearnerView<'a, B: Backend> {
    /// The device.
    pub backend: &'a B,
    /// The network.
    pub model: &'a Classifier,
    /// Its parameters, as they were in the forward pass.
    pub params: &'a ParamStore<B>,
}

/// What looks at the inside of a step: it is handed the results inside the network and the gradients.
pub type Watch<'w, B> =
    dyn FnMut(LearnerView<'_, B>, &Batch, &Taps<crate::autograd::Var<B>>, &Grads<B>) -> Result<()> + 'w;

/// How a step is computed.
#[derive(Clone, Copy)]
struct How<'a> {
    dropout_seed: Option<DropoutSeed>,
    /// What the loss is multiplied by.
    scale: f64,
    among: BatchShard<'a>,
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
    /// Whose features the network learns from, if anybody's ([`Learner::distill_features`]).
    pub feature_teacher: Option<FeatureTeacher<B>>,
}

impl<B: Backend> Learner<B> {
    /// One step at `learning_rate`, as [`Learner::step_sharded`] by a process alone. With `watch`, the gradients of attention contexts
    /// and of feed-forward units are kept for it.
    ///
    /// # Errors
    /// [`Error::Diverged`](crate::Error::Diverged) if the loss or a gradient is not finite, in which case the parameters are as before
    /// the step; and the device's.
    pub fn step(
        &mut self,
        examples: &Examples,
        dropout_seed: Option<DropoutSeed>,
        learning_rate: f64,
        watch: Option<&mut Watch<'_, B>>,
    ) -> Result<Step> {
        self.step_sharded(examples, BatchShard::ALONE, dropout_seed, learning_rate, watch)
    }

    /// One step at `learning_rate` of all ranks together, of which this one learns from `examples`.
    ///
    /// # Errors
    /// As [`Learner::step`]; [`Error::Ranks`](crate::Error::Ranks).
    pub fn step_sharded(
        &mut self,
        examples: &Examples,
        among: BatchShard<'_>,
        dropout_seed: Option<DropoutSeed>,
        learning_rate: f64,
        watch: Option<&mut Watch<'_, B>>,
    ) -> Result<Step> {
        let launched = self.begin(examples, among, dropout_seed, learning_rate, watch)?;
        let step = self.optimizer.steps();
        self.finish(launched, among, step)
    }

    /// Has the device do a step, which is to be finished ([`Learner::finish`]).
    pub(super) fn begin(
        &mut self,
        examples: &Examples,
        among: BatchShard<'_>,
        dropout_seed: Option<DropoutSeed>,
        learning_rate: f64,
        watch: Option<&mut Watch<'_, B>>,
    ) -> Result<LaunchedStep<B>> {
        let how = How { dropout_seed, scale: self.optimizer.loss_scale().factor(), among };
        let backend = self.backend.clone();
        let repeats = watch.is_none() && self.repeats(examples, among);
        let filled = if repeats { filled(examples, self.model.config.positions) } else { None };
        let launched = match &filled {
            Some(filled) => backend.repeated(&filled.batch, |backend| {
                // Packed weights of an evaluation before would make this step another than the others.
                self.params.invalidate_packs();
                self.launch(backend, filled, how, learning_rate, None)
            })?,
            None => self.launch(&backend, examples, how, learning_rate, watch)?,
        };
        self.optimizer.launched();
        Ok(launched)
    }

    /// Whether a step asks the device for the same as others do, and the host for nothing.
    fn repeats(&self, examples: &Examples, among: BatchShard<'_>) -> bool {
        let by_device =
            self.feature_teacher.is_none() && !self.params.rounds() && !among.ranks.is_distributed();
        self.backend.fills() && by_device && examples.batch.texts() > 0
    }

    /// All that the device does in a step.
    fn launch(
        &mut self,
        backend: &B,
        examples: &Examples,
        how: How<'_>,
        learning_rate: f64,
        watch: Option<&mut Watch<'_, B>>,
    ) -> Result<LaunchedStep<B>> {
        let Learner { model, params, feature_teacher, .. } = &*self;
        let (pending, terms, mut grads) = match examples.batch.texts() {
            // Fewer texts than ranks.
            0 => {
                let mut none = Grads::none(params.len()).scaled(how.scale);
                none.sum_over_ranks(backend, how.among.ranks, |id| params.value(id).shape())?;
                (None, Terms::default(), none)
            }
            _ => {
                let (pending, terms, grads) =
                    all_gradients(backend, model, params, examples, feature_teacher.as_ref(), how, watch)?;
                (Some(pending), terms, grads)
            }
        };
        let norm = self.optimizer.launch(backend, &mut self.params, &mut grads, learning_rate)?;
        Ok(LaunchedStep { pending, terms, grads: Some(grads), norm })
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

/// The loss of examples and its gradients.
///
/// # Errors
/// The device's.
pub fn gradients<B: Backend>(
    backend: &B,
    model: &Classifier,
    params: &ParamStore<B>,
    examples: &Examples,
    dropout_seed: Option<DropoutSeed>,
    watch: Option<&mut Watch<'_, B>>,
) -> Result<(Losses, Grads<B>)> {
    let how = How { dropout_seed, scale: backend.loss_scale().unwrap_or(1.0), among: BatchShard::ALONE };
    let (pending, _, grads) = all_gradients(backend, model, params, examples, None, how, watch)?;
    Ok((backend.losses(pending)?, grads))
}

/// A loss, the terms that a feature teacher adds to it, and gradients.
type LossAndGrads<B> = (<B as LossOps>::Pending, Terms<Option<f64>>, Grads<B>);

/// As [`gradients`], of a loss that a feature teacher adds terms to, summed over ranks.
fn all_gradients<B: Backend>(
    backend: &B,
    model: &Classifier,
    params: &ParamStore<B>,
    examples: &Examples,
    feature_teacher: Option<&FeatureTeacher<B>>,
    How { dropout_seed, scale, among }: How<'_>,
    watch: Option<&mut Watch<'_, B>>,
) -> Result<LossAndGrads<B>> {
    let Examples { batch, labels, teacher } = examples;
    let mut tape = Tape::recording(backend, params, batch, dropout_seed);
    if let Some(feature_teacher) = feature_teacher {
        feature_teacher.prepare(&mut tape);
    }
    let (output, taps) = model.forward_with_taps(&mut tape, Rows::Needed)?;
    let teacher = teacher.as_ref().map(|(logits, how)| (&logits[..], *how));
    let (loss, dy) = backend.loss(output.tensor(), labels, teacher, scale * among.texts)?;
    let (mut terms, mut derivatives) = (Terms::default(), vec![(output, dy)]);
    if let Some(feature_teacher) = feature_teacher {
        let (values, seeds) =
            feature_teacher.teach(backend, &mut tape, model, &taps, batch, (scale, among))?;
        derivatives.extend(seeds);
        terms = values;
    }
    let grads = match watch {
        None => {
            drop(taps);
            tape.backward_all_reduce(derivatives, among.ranks)?.scaled(scale)
        }
        Some(watch) => {
            for layer in &taps.layers {
                tape.retain(&layer.context);
                tape.retain(&layer.intermediate);
            }
            let mut grads = tape.backward(derivatives)?.scaled(scale);
            watch(LearnerView { backend, model, params }, batch, &taps, &grads)?;
            grads.sum_over_ranks(backend, among.ranks, |id| params.value(id).shape())?;
            grads
        }
    };
    Ok((loss, terms, grads))
}
