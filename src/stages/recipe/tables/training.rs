//! `[train]`, which other tables hold as well, and `[distill]`: how networks learn.

use serde::{Deserialize, Serialize};

/// The numbers that matrices are multiplied in. Weights and the optimizer are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainPrecision {
    /// 32-bit floats on a CPU, bfloat16 on a GPU.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16 operands, f32 sums. Pays where the CPU has AVX-512 BF16; on a GPU activations are stored in it too.
    Bf16,
    /// On GPUs alone: IEEE half precision for operands and activations, f32 sums, and losses that are scaled so that gradients do not
    /// vanish.
    F16,
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
    /// `"f32"`, `"bf16"`, on a GPU `"f16"`, or `"auto"`: `"f32"` on a CPU and `"bf16"` on a GPU. Default `"auto"`.
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
            precision: TrainPrecision::Auto,
            evaluate_every: 0,
            checkpoint_every: 500,
            patience: 0,
            keep_best: true,
        }
    }
}

/// Whom a student learns from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"baseline\", the path of a model, or a list of these")]
pub enum Teachers {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Teachers {
    /// All of them.
    pub fn names(&self) -> &[String] {
        match self {
            Teachers::One(name) => std::slice::from_ref(name),
            Teachers::Several(names) => names,
        }
    }
}

/// How a student's layers find those that they learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedLayerMap {
    /// The layer that stands where the student's stood before layers were deleted (`prune.layers`); for a teacher that
    /// is no relative, `"uniform"`.
    Original,
    /// The last of each of as many equal groups as the student has layers.
    Uniform,
    /// The teacher's last layers, in order.
    Last,
    /// The layer whose hidden states are most like the student's at the start, by linear CKA on 64 training texts.
    Search,
}

/// Which layer of the teacher each of the student's learns from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"original\", \"uniform\", \"last\", \"search\", or a list of [student, teacher] layers"
)]
pub enum LayerMapChoice {
    /// By a rule.
    Named(NamedLayerMap),
    /// `[student's, teacher's]`, counted from 0; the student's others learn from none.
    Pairs(Vec<[usize; 2]>),
}

/// `[distill]`: the student learns the teacher's probabilities and the labels
/// (Hinton et al., 2015): `alpha · T² · KL(teacher/T ‖ student/T) + (1 - alpha) · cross-entropy`,
/// and, where their weights are above 0, the teacher's features: `hidden · MSE + cosine · (1 - cos) + attention ·
/// KL + relations · KL`, each a mean over layers and tokens. Of the student's last layer, which computes the first token
/// alone unless the pooling is a mean, states and attention of that token are compared; relations are of every token.
/// All this holds in `[prune.train]` too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distill {
    /// T: logits of both are divided by it. Default 2.
    pub temperature: f64,
    /// Share of the teacher in the loss, 0 to 1; the labels have the rest. Default 0.7.
    pub alpha: f64,
    /// `"baseline"` (this run's trained model), or the path of a model directory with the same classes, in the
    /// same order; or a list of these, whose probabilities at T are averaged. Each reads the texts by its own tokenizer. The
    /// terms below look into the first, which then has to have the student's. Default `"baseline"`.
    pub teacher: Teachers,
    /// What each teacher counts, a number above 0 for each; they are scaled to the sum 1. Default `[]`: all the same.
    pub teacher_weights: Vec<f64>,
    /// Weight of the mean square between hidden states, the embeddings' output among them (Jiao et al., 2019); where
    /// widths differ, a learnt projection stands between, drawn anew in each stage. Default 0.
    pub hidden: f64,
    /// Weight of one minus the cosine between the same states (Sanh et al., 2019). Default 0.
    pub cosine: f64,
    /// Weight of KL(teacher ‖ student) between attention maps, head by head, or between the means over heads where the
    /// teacher lacks heads that the student has (Wang et al., 2020). Default 0.
    pub attention: f64,
    /// Weight of KL(teacher ‖ student) between the relations of queries, of keys and of values with themselves (MiniLMv2,
    /// Wang et al., 2021): any width, any heads. Default 0.
    pub relations: f64,
    /// Parts that queries, keys and values are cut into for their relations. Default 12.
    pub relation_heads: usize,
    /// `[student, teacher]` layers whose relations are compared, counted from 0. Left out: the last of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_layers: Option<[usize; 2]>,
    /// `"original"`, `"uniform"`, `"last"`, `"search"`, or pairs of layers, `[[student, teacher], ...]`, counted from 0: whose
    /// states and attention are compared. Default `"original"`.
    pub layer_map: LayerMapChoice,
    /// Fraction of the steps, the last ones, in which the student computes as the file that it will become
    /// (quantization-aware training): `[quantize]` says to what weights are rounded, and activations are rounded as
    /// sessions do. A step then takes about as long as one in f32. Default 0.
    pub quantized: f64,
    /// The student's training.
    pub train: Train,
}

impl Default for Distill {
    fn default() -> Self {
        Distill {
            temperature: 2.0,
            alpha: 0.7,
            teacher: Teachers::One("baseline".into()),
            teacher_weights: Vec::new(),
            hidden: 0.0,
            cosine: 0.0,
            attention: 0.0,
            relations: 0.0,
            relation_heads: 12,
            relation_layers: None,
            layer_map: LayerMapChoice::Named(NamedLayerMap::Original),
            quantized: 0.0,
            train: Train::default(),
        }
    }
}

impl Distill {
    /// What each teacher counts; the sum is 1.
    pub fn weights(&self) -> Vec<f64> {
        let teachers = self.teacher.names().len();
        let weights =
            if self.teacher_weights.is_empty() { &vec![1.0; teachers] } else { &self.teacher_weights };
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    }
}
