//! What a network is made of: sizes are data, and every layer has its own.

/// The family a checkpoint belongs to; it decides tensor names and what the embeddings hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// No token types, no pooler; the head is a ReLU layer (`pre_classifier`) and a classifier.
    DistilBert,
    /// Token types, and a tanh pooler before the classifier.
    Bert,
}

/// How one vector is taken from a text's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The first token (`[CLS]`), as it leaves the last layer. DistilBERT's default.
    FirstToken,
    /// The first token through BERT's `pooler.dense` and tanh. BERT's default.
    Pooler,
    /// The mean over the text's tokens.
    Mean,
}

/// The nonlinearity of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// No nonlinearity.
    Identity,
    /// `x · Φ(x)`, the exact form with erf.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
}

/// Sizes of one encoder layer. Either may be 0: a layer without heads, or without a feed-forward part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// The heads that remain, by their index in the original network, ascending.
    pub heads: Vec<usize>,
    /// Feed-forward units that remain.
    pub intermediate: usize,
}

/// Probabilities with which training sets values to zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutConfig {
    /// After the embeddings, the attention output and the feed-forward output.
    pub hidden: f32,
    /// On attention probabilities.
    pub attention: f32,
    /// Before the classifier.
    pub classifier: f32,
}

/// A text classifier: an encoder and its head.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub architecture: Architecture,
    /// Word pieces.
    pub vocab: usize,
    /// Longest text, in tokens.
    pub positions: usize,
    /// Token types; 0 where the architecture has none.
    pub token_types: usize,
    /// Width of a token's vector.
    pub hidden: usize,
    /// Width of one head; `hidden / original_heads`.
    pub head_size: usize,
    /// Heads of each layer before anything was deleted.
    pub original_heads: usize,
    /// Feed-forward units of each layer before anything was deleted.
    pub original_intermediate: usize,
    /// One entry a layer.
    pub layers: Vec<LayerConfig>,
    /// Nonlinearity of the feed-forward part.
    pub activation: Activation,
    /// Added to the variance in layer norm.
    pub layer_norm_eps: f32,
    /// Dropout of training.
    pub dropout: DropoutConfig,
    /// How a text becomes one vector.
    pub pooling: Pooling,
    /// Names of the classes, in the order of the logits.
    pub labels: Vec<String>,
    /// Parameters whose zeros are a pruning mask and must stay zero when training continues.
    pub masked: Vec<String>,
}
