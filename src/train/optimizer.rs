//! AdamW over a parameter store, with clipping by the global norm.

use crate::Result;
use crate::autograd::Grads;
use crate::nn::{ParamId, Role};
use crate::ops::Backend;
use crate::ops::optimizer::AdamWStep;
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
}

impl<B: Backend> AdamW<B> {
    /// Before the first step: all moments are zero.
    ///
    /// # Errors
    /// No memory.
    pub fn new(backend: &B, params: &ParamStore<B>, settings: AdamWSettings) -> Result<AdamW<B>> {
        let mut optimizer = AdamW { settings, moments: Vec::with_capacity(params.len()), step: 0 };
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
    pub fn resumed(settings: AdamWSettings, moments: Vec<[Tensor<B>; 2]>, step: u64) -> AdamW<B> {
        AdamW { settings, moments, step }
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
    /// Gradients of masked elements are zeroed first: what is dead neither takes part in the norm, so that the
    /// rest is clipped as if it were alone, nor ends a training by overflowing.
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
        for (id, param) in params.iter() {
            if let (Some(mask), Some(gradient)) = (&param.mask, grads.param_mut(id)) {
                backend.mask(gradient, mask)?;
            }
        }
        let norm = grads.global_norm(backend)?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        self.step += 1;
        let AdamWSettings { beta1, beta2, eps, clip, .. } = self.settings;
        // As torch.nn.utils.clip_grad_norm_ does it, its 1e-6 included.
        let scale = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        for (i, moments) in self.moments.iter_mut().enumerate() {
            let id = ParamId(i as u32);
            let Some(gradient) = grads.param(id) else { continue };
            let decays = matches!(params.get(id).spec.role, Role::Weight | Role::Embedding);
            let step = AdamWStep {
                learning_rate,
                beta1,
                beta2,
                eps,
                weight_decay: if decays || self.settings.decay_all {
                    self.settings.weight_decay
                } else {
                    0.0
                },
                gradient_scale: scale,
                step: self.step,
            };
            let [m, v] = moments;
            let (w, mask) = params.value_mut(id);
            backend.adamw(w, [m, v], gradient, mask, &step)?;
        }
        Ok(norm)
    }
}
