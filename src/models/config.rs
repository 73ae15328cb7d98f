//! What a network is made of: sizes are data, and every layer has its own.

mod structure;

pub use structure::MatrixRanks;

/// The largest sizes that are taken from a file or a recipe. They lie beyond any BERT, so that what exceeds one is a
/// slip or an attack, and is refused before memory is asked for.
pub mod limits {
    /// Word pieces.
    pub const VOCAB: usize = 1 << 24;
    /// Tokens of a text.
    pub const POSITIONS: usize = 1 << 20;
    /// Token types.
    pub const TOKEN_TYPES: usize = 1 << 16;
    /// Width of a token's vector, or of one head.
    pub const HIDDEN: usize = 1 << 16;
    /// Heads of a layer.
    pub const HEADS: usize = 1 << 12;
    /// Feed-forward units of a layer.
    pub const INTERMEDIATE: usize = 1 << 18;
    /// Layers.
    pub const LAYERS: usize = 1 << 10;
    /// Classes: what is counted of each pair of them takes 128 MiB at most.
    pub const LABELS: usize = 1 << 12;
    /// Parameters of the whole network before anything was deleted: 4 GiB of f32, three times BERT-large.
    pub const PARAMETERS: u64 = 1 << 30;
}

/// Layer norm's epsilon in both families, and the only one that DistilBERT knows.
pub const LAYER_NORM_EPS: f32 = 1e-12;

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
    /// Width of a row of the word table where that is less than `hidden`, which a projection then makes of it.
    pub embedding_size: Option<usize>,
    /// Width of one head: `hidden / original_heads`, or another where hidden features were deleted.
    pub head_size: usize,
    /// Heads of each layer before anything was deleted.
    pub original_heads: usize,
    /// Feed-forward units of each layer before anything was deleted.
    pub original_intermediate: usize,
    /// One entry a layer; at least one.
    pub layers: Vec<LayerConfig>,
    /// Layers that were deleted, by their index in the original network, ascending; those of `layers` are the others,
    /// in their order.
    pub deleted_layers: Vec<usize>,
    /// Ranks of the factored matrices, by layer; empty if none is factored.
    pub ranks: Vec<MatrixRanks>,
    /// The layer whose parameters each layer uses: itself, or an earlier one that uses its own; empty if all do.
    pub shared: Vec<usize>,
    /// The first layers in which each sentence of a pair attends to itself alone; fewer than there are layers. What such
    /// layers make of a first sentence does not depend on the second, and can be kept
    /// ([`Session::prepare`](crate::infer::Session::prepare)).
    pub decoupled: usize,
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

impl Architecture {
    /// The families that can be read, by their name in `config.json`.
    pub const ALL: [Architecture; 2] = [Architecture::DistilBert, Architecture::Bert];

    /// `model_type` in `config.json`, and the first part of every encoder tensor's name.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::DistilBert => "distilbert",
            Architecture::Bert => "bert",
        }
    }
}

impl LayerConfig {
    /// A layer of which nothing has been deleted.
    pub fn dense(heads: usize, intermediate: usize) -> LayerConfig {
        LayerConfig { heads: (0..heads).collect(), intermediate }
    }
}

/// What decides the shapes of a network of which nothing has been deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pieces of the vocabulary.
    pub vocab: usize,
    /// Tokens of the longest text.
    pub positions: usize,
    /// Width of a token.
    pub hidden: usize,
    /// Heads of a layer, each of `hidden / heads`.
    pub heads: usize,
    /// Feed-forward units of a layer.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
}

impl ModelConfig {
    /// A dense DistilBERT with everything else as in distilbert-base.
    pub fn distilbert(sizes: Sizes, labels: impl IntoIterator<Item = impl Into<String>>) -> ModelConfig {
        let Sizes { vocab, positions, hidden, heads, intermediate, layers } = sizes;
        ModelConfig {
            architecture: Architecture::DistilBert,
            vocab,
            positions,
            token_types: 0,
            hidden,
            embedding_size: None,
            head_size: hidden / heads,
            original_heads: heads,
            original_intermediate: intermediate,
            layers: vec![LayerConfig::dense(heads, intermediate); layers],
            deleted_layers: Vec::new(),
            ranks: Vec::new(),
            shared: Vec::new(),
            decoupled: 0,
            activation: Activation::Gelu,
            layer_norm_eps: LAYER_NORM_EPS,
            dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.2 },
            pooling: Pooling::FirstToken,
            labels: labels.into_iter().map(Into::into).collect(),
            masked: Vec::new(),
        }
    }

    /// Outputs of the query, key and value projections of a layer: remaining heads × head size.
    pub fn attention_width(&self, layer: usize) -> usize {
        self.layers[layer].heads.len() * self.head_size
    }

    /// Layers before any was deleted.
    pub fn original_layers(&self) -> usize {
        self.layers.len() + self.deleted_layers.len()
    }

    /// The index that each layer had in the original network, ascending.
    pub fn kept_layers(&self) -> Vec<usize> {
        (0..self.original_layers()).filter(|layer| !self.deleted_layers.contains(layer)).collect()
    }

    /// Heads that were deleted from a layer, by their index in the original network, ascending.
    pub fn pruned_heads(&self, layer: usize) -> Vec<usize> {
        (0..self.original_heads).filter(|head| !self.layers[layer].heads.contains(head)).collect()
    }

    /// Whether every layer still has all of its heads and feed-forward units.
    pub fn is_dense(&self) -> bool {
        self.layers.iter().all(|layer| {
            layer.heads.len() == self.original_heads && layer.intermediate == self.original_intermediate
        })
    }

    /// The same network before anything was deleted from its layers, or factored. Deleted layers do not come back.
    pub fn dense(&self) -> ModelConfig {
        let layer = LayerConfig::dense(self.original_heads, self.original_intermediate);
        ModelConfig { layers: vec![layer; self.layers.len()], ranks: Vec::new(), ..self.clone() }
    }

    /// Whether the head has a dense layer before its classifier: DistilBERT's always, and BERT's pooler.
    pub fn has_dense(&self) -> bool {
        self.architecture == Architecture::DistilBert || self.pooling == Pooling::Pooler
    }

    /// Parameters of the network before anything was deleted, factored or shared, head included. Sizes must be within their [`limits`],
    /// or the number may not hold their products.
    pub fn original_parameters(&self) -> u64 {
        let [hidden, width, units] =
            [self.hidden, self.original_heads * self.head_size, self.original_intermediate]
                .map(|size| size as u64);
        let norm = 2 * hidden;
        let words = match self.embedding_size {
            None => self.vocab as u64 * hidden,
            Some(size) => (self.vocab as u64 + hidden) * size as u64 + hidden,
        };
        let embeddings = words + (self.positions + self.token_types) as u64 * hidden + norm;
        let attention = 3 * (hidden + 1) * width + (width + 1) * hidden + norm;
        let feed_forward = (hidden + 1) * units + (units + 1) * hidden + norm;
        let dense = if self.has_dense() { (hidden + 1) * hidden } else { 0 };
        let classifier = (hidden + 1) * self.labels.len() as u64;
        embeddings + self.layers.len() as u64 * (attention + feed_forward) + dense + classifier
    }

    /// Whether the sizes are within their [`limits`] and fit each other.
    ///
    /// # Errors
    /// A sentence that says which do not.
    pub fn validate(&self) -> std::result::Result<(), String> {
        self.validate_sizes()?;
        self.validate_layers()?;
        self.validate_structure()?;
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return Err(format!("layer_norm_eps is {}", self.layer_norm_eps));
        }
        for rate in [self.dropout.hidden, self.dropout.attention, self.dropout.classifier] {
            if !(0.0..1.0).contains(&rate) {
                return Err(format!("dropout is {rate}; it must be at least 0 and below 1"));
            }
        }
        if self.architecture == Architecture::DistilBert && self.pooling == Pooling::Pooler {
            return Err("DistilBERT has no pooler".to_owned());
        }
        Ok(())
    }

    fn validate_sizes(&self) -> std::result::Result<(), String> {
        let sizes = [
            ("vocabulary", self.vocab, 1, limits::VOCAB),
            ("positions", self.positions, 1, limits::POSITIONS),
            ("hidden size", self.hidden, 1, limits::HIDDEN),
            ("head size", self.head_size, 1, limits::HIDDEN),
            ("number of heads", self.original_heads, 1, limits::HEADS),
            ("intermediate size", self.original_intermediate, 0, limits::INTERMEDIATE),
            ("token types", self.token_types, 0, limits::TOKEN_TYPES),
            ("number of layers", self.layers.len(), 1, limits::LAYERS),
            ("number of deleted layers", self.deleted_layers.len(), 0, limits::LAYERS),
            ("number of classes", self.labels.len(), 0, limits::LABELS),
        ];
        for (what, size, least, most) in sizes {
            if !(least..=most).contains(&size) {
                return Err(format!("{what} is {size}; it must be between {least} and {most}"));
            }
        }
        if let Some(size) = self.embedding_size.filter(|size| !(1..self.hidden).contains(size)) {
            let most = self.hidden.saturating_sub(1);
            return Err(format!("embedding size is {size}; it must be between 1 and {most}"));
        }
        let (parameters, most) = (self.original_parameters(), limits::PARAMETERS);
        if parameters > most {
            return Err(format!("its sizes make {parameters} parameters; there may be {most} at most"));
        }
        if self.positions < 2 {
            return Err("1 position has no room for [CLS] and [SEP]".to_owned());
        }
        Ok(())
    }

    /// Which layers there are, and what is left of each.
    fn validate_layers(&self) -> std::result::Result<(), String> {
        if !self.deleted_layers.is_sorted_by(|a, b| a < b) {
            return Err(format!("deleted layers {:?} are not ascending", self.deleted_layers));
        }
        if let Some(layer) = self.deleted_layers.last().filter(|&&layer| layer >= self.original_layers()) {
            return Err(format!("deleted layer {layer} of {} does not exist", self.original_layers()));
        }
        if self.decoupled >= self.layers.len() {
            let (decoupled, layers) = (self.decoupled, self.layers.len());
            return Err(format!(
                "{decoupled} of {layers} layers are decoupled; the last one must read both sentences"
            ));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            if !layer.heads.is_sorted_by(|a, b| a < b) {
                return Err(format!("layer {index}: heads {:?} are not ascending", layer.heads));
            }
            if let Some(head) = layer.heads.iter().find(|&&head| head >= self.original_heads) {
                return Err(format!("layer {index}: head {head} of {} does not exist", self.original_heads));
            }
            if layer.intermediate > self.original_intermediate {
                let (now, original) = (layer.intermediate, self.original_intermediate);
                return Err(format!("layer {index}: {now} feed-forward units of {original}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
