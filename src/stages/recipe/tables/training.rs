//! `[train]`, which other tables hold as well, and `[distill]`: how networks learn.

use serde::{Deserialize, Serialize};

/// The numbers that matrices are multiplied in. Weights and the optimizer are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainPrecision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16 operands, f32 sums. Pays where the CPU has AVX-512 BF16.
    Bf16,
}

/// `[train]`, `[prune.train]` and `[distill.train]`: one training.
///
/// A key that `[prune.train]` or `[distill.train]` leaves out is taken from `[train]`, except `epochs`
/// and `steps`: a stage says itself how long it lasts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Passes over the training rows; fractions are allowed, 0 trains nothing. Default 2, in
    /// `[prune.train]` 1.
    pub epochs: f64,
    /// Optimizer steps; when not 0, it decides instead of `epochs`. Default 0.
    pub steps: u64,
    /// Texts a step. Default 32.
    pub batch: usize,
    /// Peak learning rate. It rises linearly over the warm-up, then falls linearly to 0. Default 5e-5.
    pub learning_rate: f64,
    /// Warm-up, as a fraction of the steps. Default 0.06.
    pub warmup: f64,
    /// Decoupled weight decay, of weight matrices and embeddings (not biases, not layer norms). Default 0.01.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm when they exceed it; 0 = never. Default 1.
    pub clip: f64,
    /// AdamW's decay of the first moment. Default 0.9.
    pub beta1: f64,
    /// AdamW's decay of the second moment. Default 0.999.
    pub beta2: f64,
    /// AdamW's addition to the denominator. Default 1e-8.
    pub eps: f64,
    /// `"f32"` or `"bf16"`. Default `"f32"`.
    pub precision: TrainPrecision,
    /// Evaluate the held-out rows every so many steps; 0 = at the end of each epoch. Default 0.
    pub evaluate_every: u64,
    /// Save the state for `--resume` every so many steps; 0 = only when a signal stops the run. Default 500.
    pub checkpoint_every: u64,
    /// Stop after so many evaluations without a better one; 0 = never. Default 0.
    pub patience: u64,
    /// Keep the weights of the best evaluation rather than the last. Needs `data.validation`. Default true.
    pub keep_best: bool,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            epochs: 2.0,
            steps: 0,
            batch: 32,
            learning_rate: 5e-5,
            warmup: 0.06,
            weight_decay: 0.01,
            clip: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            precision: TrainPrecision::F32,
            evaluate_every: 0,
            checkpoint_every: 500,
            patience: 0,
            keep_best: true,
        }
    }
}

/// `[distill]`: the student learns the teacher's probabilities and the labels
/// (Hinton et al., 2015): `alpha · T² · KL(teacher/T ‖ student/T) + (1 - alpha) · cross-entropy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distill {
    /// T: logits of both are divided by it. Default 2.
    pub temperature: f64,
    /// Share of the teacher in the loss, 0 to 1; the labels have the rest. Default 0.7.
    pub alpha: f64,
    /// `"baseline"` (this run's trained model), or the path of a model directory with the same classes, in the
    /// same order, and the same tokenizer. Default `"baseline"`.
    pub teacher: String,
    /// Fraction of the steps, the last ones, in which the student computes as the file that it will become
    /// (quantization-aware training): `[quantize]` says to what weights are rounded, and activations are rounded as
    /// sessions do. A step then takes about as long as one in f32. Default 0.
    pub quantized: f64,
    /// The student's training.
    pub train: Train,
}

impl Default for Distill {
    fn default() -> Self {
        let (teacher, train) = ("baseline".into(), Train::default());
        Distill { temperature: 2.0, alpha: 0.7, teacher, quantized: 0.0, train }
    }
}
