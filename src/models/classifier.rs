//! BERT and DistilBERT text classifiers: embeddings, layers, a pooled vector, a head.
//!
//! The two differ in names, in token types and in the head, not in topology, so one file holds both.

use super::config::{Activation, Architecture, ModelConfig, Pooling};
use crate::Result;
use crate::nn::{
    Attend, Attention, Embeddings, Exec, Layer, LayerNorm, LayerTaps, Linear, ParamBuilder, ParamSpec,
};

/// From a pooled vector to logits.
#[derive(Clone, Debug)]
pub struct Head {
    /// DistilBERT's `pre_classifier` (ReLU) or BERT's `pooler.dense` (tanh).
    pub dense: Option<Linear>,
    /// To the logits.
    pub classifier: Linear,
    /// Rate of dropout before the classifier.
    pub dropout: f32,
}

/// A text classifier; the values of its parameters live elsewhere.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// Sizes and names.
    pub config: ModelConfig,
    /// Ids to vectors.
    pub embeddings: Embeddings,
    /// Of any number.
    pub layers: Vec<Layer>,
    /// Vector to logits.
    pub head: Head,
}

/// Which rows of the last layer are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Those that the logits need: one a text, unless the pooling is a mean.
    Needed,
    /// Every token's, for whoever looks at hidden states.
    All,
}

/// Results inside the network.
pub struct Taps<V> {
    /// The embeddings' output: `[tokens, hidden]`.
    pub embedded: V,
    /// One entry a layer.
    pub layers: Vec<LayerTaps<V>>,
}

/// The names of one family's tensors.
struct Names {
    embeddings: &'static str,
    layer: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    output: &'static str,
    attention_norm: &'static str,
    expand: &'static str,
    contract: &'static str,
    output_norm: &'static str,
}

const DISTILBERT: Names = Names {
    embeddings: "distilbert.embeddings",
    layer: "distilbert.transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    expand: "ffn.lin1",
    contract: "ffn.lin2",
    output_norm: "output_layer_norm",
};

const BERT: Names = Names {
    embeddings: "bert.embeddings",
    layer: "bert.encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    expand: "intermediate.dense",
    contract: "output.dense",
    output_norm: "output.LayerNorm",
};

impl Classifier {
    /// Builds the network of `config` and declares its parameters, under Hugging Face's names. Layers that share parameters
    /// hold the same ids.
    pub fn new(config: &ModelConfig) -> (Classifier, Vec<ParamSpec>) {
        let names = match config.architecture {
            Architecture::DistilBert => &DISTILBERT,
            Architecture::Bert => &BERT,
        };
        let mut declare = ParamBuilder::default();
        let embeddings = Embeddings::new(
            &mut declare,
            names.embeddings,
            [config.vocab, config.positions, config.token_types, config.hidden],
            config.embedding_size,
            config.layer_norm_eps,
            config.dropout.hidden,
        );
        let mut layers: Vec<Layer> = Vec::with_capacity(config.layers.len());
        for i in 0..config.layers.len() {
            let owner = config.owner(i);
            let mut next =
                if owner < i { layers[owner].clone() } else { layer(&mut declare, config, names, i) };
            // Of each layer by itself, whoever's parameters it uses.
            next.attention.attend.decoupled = i < config.decoupled;
            layers.push(next);
        }
        let head = head(&mut declare, config);
        (Classifier { config: config.clone(), embeddings, layers, head }, declare.specs)
    }

    /// Logits: `[texts, labels]`.
    ///
    /// # Errors
    /// The executor's.
    pub fn forward<E: Exec>(&self, e: &mut E) -> Result<E::Var> {
        let embedded = self.embeddings.forward(e)?;
        self.encode(e, embedded, Rows::Needed, |_| {})
    }

    /// Logits, and the results inside. A tap that nobody keeps costs nothing.
    ///
    /// # Errors
    /// The executor's.
    pub fn forward_with_taps<E: Exec>(&self, e: &mut E, rows: Rows) -> Result<(E::Var, Taps<E::Var>)> {
        let (mut embedded, mut layers) = (None, Vec::with_capacity(self.layers.len()));
        let logits =
            self.forward_each(e, rows, |x| embedded = Some(x.clone()), |layer| layers.push(layer))?;
        Ok((logits, Taps { embedded: embedded.expect("what it begins with"), layers }))
    }

    /// Logits; the embeddings' output and each layer's results are handed over as they come, so that nothing of them
    /// need be kept.
    ///
    /// # Errors
    /// The executor's.
    pub fn forward_each<E: Exec>(
        &self,
        e: &mut E,
        rows: Rows,
        embedded: impl FnOnce(&E::Var),
        layer: impl FnMut(LayerTaps<E::Var>),
    ) -> Result<E::Var> {
        let x = self.embeddings.forward(e)?;
        embedded(&x);
        self.encode(e, x, rows, layer)
    }

    /// The states of all tokens behind the last layer: `[tokens, hidden]`.
    ///
    /// # Errors
    /// The executor's.
    pub fn states<E: Exec>(&self, e: &mut E) -> Result<E::Var> {
        let embedded = self.embeddings.forward(e)?;
        self.layers.iter().try_fold(embedded, |x, layer| Ok(layer.forward(e, &x, false)?.hidden))
    }

    /// The states of all tokens behind the decoupled layers, in which each sentence stands alone: `[tokens, hidden]`.
    ///
    /// # Errors
    /// The executor's.
    pub fn lower<E: Exec>(&self, e: &mut E) -> Result<E::Var> {
        let mut x = self.embeddings.forward(e)?;
        for layer in &self.layers[..self.config.decoupled] {
            x = layer.forward(e, &x, false)?.hidden;
        }
        Ok(x)
    }

    /// From the states that [`Classifier::lower`] leaves to logits.
    ///
    /// # Errors
    /// The executor's.
    pub fn upper<E: Exec>(&self, e: &mut E, states: E::Var) -> Result<E::Var> {
        self.encode_from(e, states, self.config.decoupled, Rows::Needed, |_| {})
    }

    /// From the embeddings' output to logits; each layer's results go to `tap`.
    fn encode<E: Exec>(
        &self,
        e: &mut E,
        embedded: E::Var,
        rows: Rows,
        tap: impl FnMut(LayerTaps<E::Var>),
    ) -> Result<E::Var> {
        self.encode_from(e, embedded, 0, rows, tap)
    }

    /// From the input of layer `from` to logits.
    fn encode_from<E: Exec>(
        &self,
        e: &mut E,
        states: E::Var,
        from: usize,
        rows: Rows,
        mut tap: impl FnMut(LayerTaps<E::Var>),
    ) -> Result<E::Var> {
        let first_only = rows == Rows::Needed && self.config.pooling != Pooling::Mean;
        let mut x = states;
        for (i, layer) in self.layers.iter().enumerate().skip(from) {
            let last = i + 1 == self.layers.len();
            let result = layer.forward(e, &x, first_only && last)?;
            x = result.hidden.clone();
            tap(result);
        }
        let pooled = match self.config.pooling {
            Pooling::Mean => e.mean_tokens(&x)?,
            _ if first_only && !self.layers.is_empty() => x,
            _ => e.first_tokens(&x)?,
        };
        let dense = match &self.head.dense {
            Some(dense) => e.linear(dense, &pooled)?,
            None => pooled,
        };
        let dense = e.dropout(&dense, self.head.dropout)?;
        e.linear(&self.head.classifier, &dense)
    }
}

fn layer(declare: &mut ParamBuilder, config: &ModelConfig, names: &Names, index: usize) -> Layer {
    let hidden = config.hidden;
    let name = |part: &str| format!("{}.{index}.{part}", names.layer);
    let (ranks, sides) = (config.ranks_of(index), config.sides(index));
    let linear = |declare: &mut ParamBuilder, matrix: usize, part: &str, activation| {
        let [outputs, inputs] = sides[matrix];
        Linear::factored(declare, &name(part), [inputs, outputs], activation, ranks[matrix])
    };
    let plain = Activation::Identity;
    Layer {
        attention: Attention {
            query: linear(declare, 0, names.query, plain),
            key: linear(declare, 1, names.key, plain),
            value: linear(declare, 2, names.value, plain),
            output: linear(declare, 3, names.output, plain),
            attend: Attend {
                heads: config.layers[index].heads.len(),
                head_size: config.head_size,
                dropout: config.dropout.attention,
                decoupled: false,
            },
        },
        attention_norm: LayerNorm::new(declare, &name(names.attention_norm), hidden, config.layer_norm_eps),
        expand: linear(declare, 4, names.expand, config.activation),
        contract: linear(declare, 5, names.contract, plain),
        output_norm: LayerNorm::new(declare, &name(names.output_norm), hidden, config.layer_norm_eps),
        attention_output_dropout: match config.architecture {
            Architecture::DistilBert => 0.0,
            Architecture::Bert => config.dropout.hidden,
        },
        output_dropout: config.dropout.hidden,
    }
}

fn head(declare: &mut ParamBuilder, config: &ModelConfig) -> Head {
    let hidden = config.hidden;
    let dense = config.has_dense().then(|| match config.architecture {
        Architecture::DistilBert => Linear::new(declare, "pre_classifier", hidden, hidden, Activation::Relu),
        Architecture::Bert => Linear::new(declare, "bert.pooler.dense", hidden, hidden, Activation::Tanh),
    });
    let labels = config.labels.len();
    let classifier = Linear::new(declare, "classifier", hidden, labels, Activation::Identity);
    Head { dense, classifier, dropout: config.dropout.classifier }
}
