//! AdamW over a parameter store, with clipping by the global norm.

use super::LossScale;
use crate::Result;
use crate::autograd::Grads;
use crate::nn::Role;
use crate::ops::Backend;
use crate::ops::optimizer::{AdamWStep, Update};
use crate::params::ParamStore;
use crate::tensor::Tensor;

/// What stays the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether biases and layer norms decay as well; PyTorch's AdamW does so, Hugging Face's trainer does not.
    pub decay_all: bool,
    /// Largest global norm of the gradients; 0 for no limit.
    pub clip: f64,
}

/// AdamW and its moments, a pair for each parameter.
pub struct AdamW<B: Backend> {
    settings: AdamWSettings,
    moments: Vec<[Tensor<B>; 2]>,
    step: u64,
    scale: LossScale,
}

impl<B: Backend> AdamW<B> {
    /// Before the first step: all moments are zero.
    ///
    /// # Errors
    /// No memory.
    pub fn new(backend: &B, params: &ParamStore<B>, settings: AdamWSettings) -> Result<AdamW<B>> {
        let scale = LossScale::new(backend);
        let mut optimizer = AdamW { settings, moments: Vec::with_capacity(params.len()), step: 0, scale };
        optimizer.extend(backend, params)?;
        Ok(optimizer)
    }

    /// Moments of zero for the parameters that have been appended to `params` since.
    ///
    /// # Errors
    /// No memory.
    pub fn extend(&mut self, backend: &B, params: &ParamStore<B>) -> Result<()> {
        for (_, param) in params.iter().skip(self.moments.len()) {
            let shape = param.value().shape();
            let zeros = || backend.zeros(shape.len()).map(|buffer| Tensor::from_buffer(buffer, shape));
            self.moments.push([zeros()?, zeros()?]);
        }
        Ok(())
    }

    /// After `step` steps, with these moments, in the order of the parameters.
    pub fn resumed(
        settings: AdamWSettings,
        moments: Vec<[Tensor<B>; 2]>,
        step: u64,
        scale: LossScale,
    ) -> AdamW<B> {
        AdamW { settings, moments, step, scale }
    }

    /// This optimizer, of a network whose parameters have become others, with these moments.
    pub fn with_moments(&self, moments: Vec<[Tensor<B>; 2]>) -> AdamW<B> {
        AdamW { settings: self.settings, moments, step: self.step, scale: self.scale }
    }

    /// What losses are to be multiplied by.
    pub fn loss_scale(&self) -> LossScale {
        self.scale
    }

    /// What stays the same from step to step.
    pub fn settings(&self) -> AdamWSettings {
        self.settings
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// First and second moment of each parameter.
    pub fn moments(&self) -> &[[Tensor<B>; 2]] {
        &self.moments
    }

    /// Zeroes the moments of what is masked, as [`AdamW::step`] does by itself: for parameters that have been
    /// masked since.
    ///
    /// # Errors
    /// The device's.
    pub fn mask(&mut self, backend: &B, params: &ParamStore<B>) -> Result<()> {
        for ((_, param), moments) in params.iter().zip(&mut self.moments) {
            if let Some(mask) = &param.mask {
                moments.iter_mut().try_for_each(|moment| backend.mask(moment, mask))?;
            }
        }
        Ok(())
    }

    /// One step. Returns the global norm before clipping; if it is not finite, no parameter has been changed.
    ///
    /// Gradients of masked elements do not count: what is dead neither takes part in the norm, so that the rest is clipped as
    /// if it were alone, nor ends a training by overflowing.
    ///
    /// # Errors
    /// The device's.
    pub fn step(
        &mut self,
        backend: &B,
        params: &mut ParamStore<B>,
        grads: &mut Grads<B>,
        learning_rate: f64,
    ) -> Result<f64> {
        let norm = self.launch(backend, params, grads, learning_rate)?;
        let norm = backend.norm(norm)?;
        self.step += u64::from(norm.is_finite());
        Ok(norm)
    }

    /// Launches a step without waiting for the gradient's norm. The counter of steps goes up at the launch ([`AdamW::launched`]) and down
    /// again if the norm turns out not to be finite ([`AdamW::finished`]).
    ///
    /// # Errors
    /// The device's.
    pub(super) fn launch(
        &mut self,
        backend: &B,
        params: &mut ParamStore<B>,
        grads: &mut Grads<B>,
        learning_rate: f64,
    ) -> Result<B::Norm> {
        let AdamWSettings { beta1, beta2, eps, weight_decay, decay_all, clip } = self.settings;
        let step = AdamWStep {
            learning_rate,
            beta1,
            beta2,
            eps,
            weight_decay,
            gradient_scale: 1.0 / grads.scale(),
            step: self.step + 1,
        };
        let states = params.values_mut().zip(&mut self.moments).zip(grads.params_mut());
        let updates = states.filter_map(|(((spec, w, mask), moments), gradient)| {
            let decays = decay_all || matches!(spec.role, Role::Weight | Role::Embedding);
            Some(Update { w, moments, gradient: gradient?, mask, decays })
        });
        backend.adamw(updates.collect(), clip, &step)
    }

    /// Counts a step that the device has been asked for.
    pub(super) fn launched(&mut self) {
        self.step += 1;
    }

    /// Learns what the norm of a step's gradients was: with one that is not finite nothing was done. Gives whether a step whose gradients
    /// were not finite is only one to be left out, as [`LossScale::after`].
    pub(super) fn finished(&mut self, norm: f64) -> bool {
        self.step -= u64::from(!norm.is_finite());
        self.scale.after(norm.is_finite())
    }
}
