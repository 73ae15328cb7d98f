//! `[data]` and `[model]`: what a run starts from.

use crate::models::ModelConfig;
use crate::models::config::Sizes;
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
    /// Columns of a second sentence, for tasks on pairs of sentences, as GLUE's MRPC and RTE; `text_columns` are then those of
    /// the first, and a text is `[CLS] first [SEP] second [SEP]`. Default `[]`: a text is one sentence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub second_columns: Vec<Column>,
    /// Names of the classes: a file in `dir`, or a list. Default `""`: the values themselves,
    /// numbers by size and others alphabetically.
    pub labels: Labels,
    /// The number of the first class, where the label column has numbers for classes that have names. Left out: found
    /// out, which fails where neither 0 nor the number of classes is among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_label: Option<usize>,
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
            second_columns: Vec::new(),
            labels: Labels::File(String::new()),
            first_label: None,
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

impl Model {
    /// The new encoder, `vocab` of its word pieces being there; heads are 1 or more.
    pub fn encoder(&self, vocab: usize) -> ModelConfig {
        let Model { positions, hidden, heads, intermediate, layers, .. } = *self;
        let sizes = Sizes { vocab, positions, hidden, heads, intermediate, layers };
        ModelConfig::distilbert(sizes, Vec::<String>::new())
    }
}
