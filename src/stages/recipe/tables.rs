//! Every key of a recipe: its meaning, its unit, its default. The defaults stand once, in the
//! `Default` of each table; a key that a recipe leaves out has that value.

use serde::{Deserialize, Serialize};

/// Where the text comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The files of `data.dir`.
    #[default]
    Files,
    /// A corpus that limbeck makes up from the seed; needs no file.
    Demo,
}

/// How a table of texts is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// By the file's extension.
    #[default]
    Auto,
    /// Fields between commas, quoted where needed.
    Csv,
    /// Fields between tabs, quotes mean nothing.
    Tsv,
    /// One JSON object a line.
    Jsonl,
}

/// A column of a table: its place, or its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a column's number (from 0) or its name")]
pub enum Column {
    /// Counted from 0.
    Number(usize),
    /// A name in the header, or a field of the JSON object.
    Name(String),
}

/// Names of the classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a file name, or a list of names")]
pub enum Labels {
    /// A file in `data.dir`, one name a line. Empty: the classes are found in the training file, in order.
    File(String),
    /// The names themselves, in the order of the logits.
    Names(Vec<String>),
}

/// `[data]`: texts and their labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// `"files"` or `"demo"`. Default `"files"`.
    pub source: Source,
    /// Directory of the files, relative to where limbeck is started; `--data` overrides it. Default: empty.
    pub dir: String,
    /// Training file in `dir`. Default `"train.csv"`.
    pub train: String,
    /// Test file in `dir`. Default `"test.csv"`.
    pub test: String,
    /// `"auto"`, `"csv"`, `"tsv"` or `"jsonl"`. Default `"auto"`: by the extension.
    pub format: Format,
    /// Whether the first line names the columns. Default false.
    pub header: bool,
    /// Column of the label: number from 0, or name. Default 0.
    pub label_column: Column,
    /// Columns of the text, in order, joined by spaces. Default `[1, 2]`.
    pub text_columns: Vec<Column>,
    /// Names of the classes: a file in `dir`, or a list. Default `""`: numbered from the data.
    pub labels: Labels,
    /// Use only the first rows of the training file; 0 = all. Default 0.
    pub limit: usize,
    /// Use only the first rows of the test file; 0 = all. Default 0.
    pub test_limit: usize,
    /// Hold out the last rows of the training file to choose the best checkpoint by; 0 = none held out,
    /// and the last checkpoint is kept. The test file never chooses anything. Default 0.
    pub validation: usize,
    /// Longest text, in tokens with `[CLS]` and `[SEP]`; the rest is cut. Default 256.
    pub max_tokens: usize,
}

impl Default for Data {
    fn default() -> Self {
        Data {
            source: Source::Files,
            dir: String::new(),
            train: "train.csv".into(),
            test: "test.csv".into(),
            format: Format::Auto,
            header: false,
            label_column: Column::Number(0),
            text_columns: vec![Column::Number(1), Column::Number(2)],
            labels: Labels::File(String::new()),
            limit: 0,
            test_limit: 0,
            validation: 0,
            max_tokens: 256,
        }
    }
}

/// How a text's vector is taken from its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolingChoice {
    /// As the architecture does it: the first token for DistilBERT, the pooler for BERT.
    #[default]
    Auto,
    /// The first token.
    First,
    /// The first token through a dense layer and tanh.
    Pooler,
    /// The mean of all tokens.
    Mean,
}

/// `[model]`: where training starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// A Hugging Face directory; `--model` overrides it. Empty: a new encoder of the sizes below, which only
    /// the demo has a vocabulary for; with `"files"` a path is needed. Default: empty.
    pub path: String,
    /// `"auto"`, `"first"`, `"pooler"` or `"mean"`. Default `"auto"`.
    pub pooling: PoolingChoice,
    /// Dropout after embeddings, attention and feed-forward, a probability. Left out: as in the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Dropout of attention probabilities. Left out: as in the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_dropout: Option<f64>,
    /// Dropout before the classifier. Left out: as in the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
    /// New encoder: layers. Default 2.
    pub layers: usize,
    /// New encoder: width of a token's vector; a multiple of `heads`. Default 64.
    pub hidden: usize,
    /// New encoder: attention heads a layer. Default 4.
    pub heads: usize,
    /// New encoder: feed-forward units a layer. Default 256.
    pub intermediate: usize,
    /// New encoder: at most so many of the demo's word pieces. Default 2000.
    pub vocab: usize,
    /// New encoder: longest text it can read, in tokens. Default 256.
    pub positions: usize,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            path: String::new(),
            pooling: PoolingChoice::Auto,
            dropout: None,
            attention_dropout: None,
            classifier_dropout: None,
            layers: 2,
            hidden: 64,
            heads: 4,
            intermediate: 256,
            vocab: 2000,
            positions: 256,
        }
    }
}

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

/// What makes an attention head important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadImportance {
    /// Mean of |∂loss/∂gate| for a gate on the head's output (Michel et al., 2019).
    #[default]
    Gradient,
    /// Mean absolute attention, as sometimes published. A row of attention sums to 1, so without padding
    /// this is 1/length for every head: it ranks heads by rounding. Here for comparison only, and only with
    /// `schedule = "once"`.
    Attention,
    /// L2 norm of the head's rows and columns of the four projections.
    Norm,
    /// Chance, from the seed: the control that any other choice must beat.
    Random,
}

/// What makes a feed-forward unit important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitImportance {
    /// Mean of |∂loss/∂gate| for a gate on the unit's output.
    #[default]
    Gradient,
    /// L2 norm of the unit's row in the first matrix and column in the second.
    Norm,
    /// Chance, from the seed: the control.
    Random,
}

/// Over what a budget is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerScope {
    /// The whole network: the least important go first, wherever they are.
    #[default]
    Global,
    /// The same fraction of each layer.
    Layer,
}

/// Over what the magnitude masks are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightScope {
    /// All masked matrices together.
    #[default]
    Global,
    /// The same fraction of each matrix.
    Matrix,
}

/// When pruning happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// All at once, nothing trained.
    #[default]
    Once,
    /// In `events` steps during `[prune.train]`, much at first and little at the end: after a fraction t of
    /// the way, `1 - (1 - t)³` of the final amount is gone (Zhu & Gupta, 2017).
    Cubic,
}

/// `[prune]`: what is removed, and by which measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prune {
    /// Fraction of attention heads deleted. Default 0.
    pub heads: f64,
    /// `"gradient"`, `"attention"`, `"norm"` or `"random"`. Default `"gradient"`.
    pub head_importance: HeadImportance,
    /// `"global"` or `"layer"`. Default `"global"`.
    pub head_scope: LayerScope,
    /// Fraction of feed-forward units deleted, each with its row and column of weights. Default 0.
    pub units: f64,
    /// `"gradient"`, `"norm"` or `"random"`. Default `"gradient"`.
    pub unit_importance: UnitImportance,
    /// `"global"` or `"layer"`. Default `"global"`.
    pub unit_scope: LayerScope,
    /// Fraction of the remaining feed-forward weights set to zero, smallest magnitude first. Makes the file
    /// smaller, not the model faster. Default 0.
    pub weights: f64,
    /// Fraction of the classification head's weights set to zero. Default 0.
    pub classifier: f64,
    /// `"global"` or `"matrix"`. Default `"global"`.
    pub weight_scope: WeightScope,
    /// Training texts that importance is measured on. Default 2000.
    pub samples: usize,
    /// `"once"` or `"cubic"`. Default `"once"`.
    pub schedule: Schedule,
    /// Pruning events of the cubic schedule, spread evenly over the first three quarters of
    /// `[prune.train]`; the last quarter recovers. Default 8.
    pub events: usize,
    /// Training while pruning, with `[distill]`'s teacher and loss. Used by the cubic schedule.
    pub train: Train,
}

impl Default for Prune {
    fn default() -> Self {
        Prune {
            heads: 0.0,
            head_importance: HeadImportance::Gradient,
            head_scope: LayerScope::Global,
            units: 0.0,
            unit_importance: UnitImportance::Gradient,
            unit_scope: LayerScope::Global,
            weights: 0.0,
            classifier: 0.0,
            weight_scope: WeightScope::Global,
            samples: 2000,
            schedule: Schedule::Once,
            events: 8,
            train: Train { epochs: PRUNE_EPOCHS, ..Train::default() },
        }
    }
}

/// Default of `prune.train.epochs`.
pub(super) const PRUNE_EPOCHS: f64 = 1.0;

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
    /// The student's training.
    pub train: Train,
}

impl Default for Distill {
    fn default() -> Self {
        Distill { temperature: 2.0, alpha: 0.7, teacher: "baseline".into(), train: Train::default() }
    }
}

/// How many int8 scales a weight matrix has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightScales {
    /// One for each output.
    #[default]
    Channel,
    /// One for the whole matrix.
    Tensor,
}

/// How embeddings are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingKind {
    /// Eight bits, one scale a row.
    #[default]
    Int8,
    /// 32-bit floats.
    F32,
}

/// `[quantize]`: the `.limbeck` file. Activations are always quantized while running, per token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quantize {
    /// `"channel"` or `"tensor"`. Default `"channel"`.
    pub weights: WeightScales,
    /// `"int8"` or `"f32"`. Default `"int8"`.
    pub embeddings: EmbeddingKind,
}

/// `[bench]`: the latency columns of the table; one thread, batch 1, real test texts, all variants interleaved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bench {
    /// Test texts timed. Default 200.
    pub texts: usize,
    /// Times each text is timed. Default 3.
    pub repeat: usize,
    /// Untimed calls of each variant before. Default 10.
    pub warmup: usize,
}

impl Default for Bench {
    fn default() -> Self {
        Bench { texts: 200, repeat: 3, warmup: 10 }
    }
}
