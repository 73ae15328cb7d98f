//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) as PyTorch's `torch.optim.AdamW` computes it:
//!
//!   g' = gradient_scale·g,   w *= 1 − learning_rate·weight_decay
//!   m = beta1·m + (1 − beta1)·g',   v = beta2·v + (1 − beta2)·g'²
//!   w −= learning_rate / (1 − beta1^step) · m / (√v / √(1 − beta2^step) + eps)
//!
//! One pass over memory, 28 bytes a parameter; the division and the root hide behind it.

use crate::Kernels;
use crate::simd::{LANES, Simd};

/// One tensor and its state, all of one length.
#[derive(Debug)]
pub struct AdamW<'a> {
    /// The parameters.
    pub w: &'a mut [f32],
    /// The running mean of the gradient.
    pub m: &'a mut [f32],
    /// The running mean of its square.
    pub v: &'a mut [f32],
    /// The gradient.
    pub g: &'a [f32],
    /// 1 for parameters that are kept, 0 for pruned ones, whose w, m and v become exactly 0.
    pub mask: Option<&'a [u8]>,
}

/// One step's numbers. In double precision because 1 − beta2 in `f32` would be off by 5e-5.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the mean.
    pub beta1: f64,
    /// Decay of the mean square.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// What gradients are multiplied by first: min(1, max_norm / norm).
    pub gradient_scale: f64,
    /// The step, counted from 1.
    pub step: u64,
}

impl AdamWStep {
    /// How far the mean that `beta` keeps has come from the zeros that it began with: `1 − beta^step`.
    pub fn bias_correction(&self, beta: f64) -> f64 {
        1.0 - beta.powf(self.step as f64)
    }
}

impl Kernels {
    /// One step of AdamW.
    ///
    /// # Panics
    /// If the lengths differ.
    #[cfg(feature = "train")]
    pub fn adamw(self, mut tensors: AdamW<'_>, step: &AdamWStep) {
        let len = tensors.w.len();
        assert!(tensors.m.len() == len && tensors.v.len() == len && tensors.g.len() == len);
        assert!(tensors.mask.is_none_or(|mask| mask.len() == len));
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.adamw)(&mut tensors, step) }
    }
}

/// The step's factors, in every lane.
#[derive(Clone, Copy)]
struct Factors<S: Simd> {
    clip: S::Floats,
    beta1: S::Floats,
    one_minus_beta1: S::Floats,
    beta2: S::Floats,
    one_minus_beta2: S::Floats,
    root: S::Floats,
    eps: S::Floats,
    decay: S::Floats,
    minus_rate: S::Floats,
}

impl<S: Simd> Factors<S> {
    #[inline(always)]
    fn new(s: S, step: &AdamWStep) -> Self {
        Factors {
            clip: s.splat(step.gradient_scale as f32),
            beta1: s.splat(step.beta1 as f32),
            one_minus_beta1: s.splat((1.0 - step.beta1) as f32),
            beta2: s.splat(step.beta2 as f32),
            one_minus_beta2: s.splat((1.0 - step.beta2) as f32),
            root: s.splat((1.0 / step.bias_correction(step.beta2).sqrt()) as f32),
            eps: s.splat(step.eps as f32),
            decay: s.splat((1.0 - step.learning_rate * step.weight_decay) as f32),
            minus_rate: s.splat((-step.learning_rate / step.bias_correction(step.beta1)) as f32),
        }
    }

    /// From (w, m, v, g) to (w, m, v).
    #[inline(always)]
    fn step(self, s: S, [w, m, v, g]: [S::Floats; 4]) -> [S::Floats; 3] {
        let g = s.mul(g, self.clip);
        let m = s.fma(m, self.beta1, s.mul(g, self.one_minus_beta1));
        let v = s.fma(v, self.beta2, s.mul(s.mul(g, g), self.one_minus_beta2));
        let denominator = s.fma(s.sqrt(v), self.root, self.eps);
        let w = s.fma(s.div(m, denominator), self.minus_rate, s.mul(w, self.decay));
        [w, m, v]
    }
}

/// 0 where the mask is 0.
#[inline(always)]
fn keep<S: Simd>(s: S, mask: &[u8; LANES], lanes: [S::Floats; 3]) -> [S::Floats; 3] {
    let kept = s.less(s.zero(), s.load_i8(&mask.map(u8::cast_signed)));
    let [w, m, v] = lanes;
    [s.select(kept, w, s.zero()), s.select(kept, m, s.zero()), s.select(kept, v, s.zero())]
}

#[inline(always)]
pub(super) fn adamw<S: Simd>(s: S, tensors: &mut AdamW<'_>, step: &AdamWStep) {
    let factors = Factors::new(s, step);
    let (w, w_rest) = tensors.w.as_chunks_mut::<LANES>();
    let (m, m_rest) = tensors.m.as_chunks_mut::<LANES>();
    let (v, v_rest) = tensors.v.as_chunks_mut::<LANES>();
    let (g, g_rest) = tensors.g.as_chunks::<LANES>();
    let mask = tensors.mask.map(|mask| mask.as_chunks::<LANES>());

    for (i, (((w, m), v), g)) in w.iter_mut().zip(m).zip(v).zip(g).enumerate() {
        let mut new = factors.step(s, [s.load(w), s.load(m), s.load(v), s.load(g)]);
        if let Some((mask, _)) = mask {
            new = keep(s, &mask[i], new);
        }
        s.store(new[0], w);
        s.store(new[1], m);
        s.store(new[2], v);
    }
    if !w_rest.is_empty() {
        let mut lanes = [s.zero(); 4];
        for (lanes, rest) in lanes.iter_mut().zip([&*w_rest, m_rest, v_rest, g_rest]) {
            *lanes = s.load_partial(rest, 0.0);
        }
        let mut new = factors.step(s, lanes);
        if let Some((_, mask)) = mask {
            let mut padded = [0; LANES];
            padded[..mask.len()].copy_from_slice(mask);
            new = keep(s, &padded, new);
        }
        s.store_partial(new[0], w_rest);
        s.store_partial(new[1], m_rest);
        s.store_partial(new[2], v_rest);
    }
}
