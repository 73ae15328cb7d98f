//! Layers are data: the ids of their parameters and their sizes. Sharing a layer is copying ids;
//! deleting a head replaces four tensors and a number.
//!
//! A network declares its parameters to a [`ParamBuilder`], in the order in which they are stored and stepped;
//! where the values live is another room's business ([`crate::params`] for training, [`crate::infer`] for
//! prediction).

mod exec;

pub use exec::{Attend, Exec, attend_projected};

use crate::models::config::Activation;

/// A parameter, by its place in the order of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub u32);

impl ParamId {
    /// The place, as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a parameter is for; optimizer, pruning and quantization treat the kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A table that ids index: `[entries, hidden]`.
    Embedding,
    /// A matrix: `[outputs, inputs]`.
    Weight,
    /// Added to a layer's outputs.
    Bias,
    /// Gamma of a layer norm.
    Gamma,
    /// Beta of a layer norm.
    Beta,
}

/// A parameter as a network declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// The name in a Hugging Face checkpoint.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

impl ParamSpec {
    /// The dimensions in a checkpoint: vectors have one.
    pub fn dims(&self) -> Vec<usize> {
        match self.role {
            Role::Embedding | Role::Weight => vec![self.rows, self.cols],
            Role::Bias | Role::Gamma | Role::Beta => vec![self.cols],
        }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether there are no elements, as in a layer whose heads are all deleted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Collects a network's parameters while it is built.
#[derive(Debug, Default)]
pub struct ParamBuilder {
    /// The parameters so far.
    pub specs: Vec<ParamSpec>,
}

impl ParamBuilder {
    fn param(&mut self, name: String, role: Role, rows: usize, cols: usize) -> ParamId {
        let id = ParamId(self.specs.len() as u32);
        self.specs.push(ParamSpec { name, role, rows, cols });
        id
    }
}

/// `y = activation(x·Wᵀ + b)`; or, factored, `y = activation((x·Vᵀ)·Uᵀ + b)`, where `U·V` stands for `W`.
///
/// Executors see one matrix at a time: a factored layer is two linear layers in a row, the first of which has neither bias nor
/// nonlinearity ([`Linear::forward`]).
#[derive(Clone, Debug)]
pub struct Linear {
    /// W or U: `[outputs, inputs]`.
    pub weight: ParamId,
    /// `[outputs]`; `None` for zeros, as V has.
    pub bias: Option<ParamId>,
    /// Columns of what `weight` reads: those of `x`, or the rank.
    pub inputs: usize,
    /// Columns of `y`.
    pub outputs: usize,
    /// Applied to each output.
    pub activation: Activation,
    /// Of a factored layer: V.
    pub down: Option<Down>,
}

/// The matrix that takes a factored layer's input down to its rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    /// `[rank, inputs]`.
    pub weight: ParamId,
    /// Columns of the layer's input.
    pub inputs: usize,
}

impl Linear {
    /// Declares `{name}.weight` and `{name}.bias`.
    pub fn new(
        declare: &mut ParamBuilder,
        name: &str,
        inputs: usize,
        outputs: usize,
        activation: Activation,
    ) -> Linear {
        Linear {
            weight: declare.param(format!("{name}.weight"), Role::Weight, outputs, inputs),
            bias: Some(declare.param(format!("{name}.bias"), Role::Bias, 1, outputs)),
            inputs,
            outputs,
            activation,
            down: None,
        }
    }

    /// Declares `{name}.down.weight` and, of `rank` inputs, what [`Linear::new`] declares; with a rank of 0 that alone.
    pub fn factored(
        declare: &mut ParamBuilder,
        name: &str,
        [inputs, outputs]: [usize; 2],
        activation: Activation,
        rank: usize,
    ) -> Linear {
        if rank == 0 {
            return Linear::new(declare, name, inputs, outputs, activation);
        }
        let weight = declare.param(format!("{name}.down.weight"), Role::Weight, rank, inputs);
        let up = Linear::new(declare, name, rank, outputs, activation);
        Linear { down: Some(Down { weight, inputs }), ..up }
    }

    /// A layer whose matrix is another's, as a table of words is the last one of a language model: declares its bias alone, by its
    /// whole name.
    pub fn tied(
        declare: &mut ParamBuilder,
        weight: ParamId,
        bias: &str,
        inputs: usize,
        outputs: usize,
    ) -> Linear {
        let bias = Some(declare.param(bias.to_owned(), Role::Bias, 1, outputs));
        Linear { weight, bias, inputs, outputs, activation: Activation::Identity, down: None }
    }

    /// The layer's result: `[rows, inputs]` to `[rows, outputs]`.
    ///
    /// # Errors
    /// The executor's.
    pub fn forward<E: Exec + ?Sized>(&self, e: &mut E, x: &E::Var) -> crate::Result<E::Var> {
        let Some(down) = self.first() else { return e.linear(self, x) };
        let x = e.linear(&down, x)?;
        e.linear(self, &x)
    }

    /// The first of a factored layer's two.
    pub fn first(&self) -> Option<Linear> {
        let Down { weight, inputs } = self.down?;
        let activation = Activation::Identity;
        Some(Linear { weight, bias: None, inputs, outputs: self.inputs, activation, down: None })
    }

    /// Its matrices, as text flows through them: one, or two.
    pub fn matrices(&self) -> impl Iterator<Item = ParamId> + use<> {
        self.down.map(|down| down.weight).into_iter().chain([self.weight])
    }

    /// The matrix whose columns are the layer's inputs.
    pub fn reader(&self) -> ParamId {
        self.down.map_or(self.weight, |down| down.weight)
    }

    /// All its parameters.
    pub fn params(&self) -> impl Iterator<Item = ParamId> + use<> {
        self.matrices().chain(self.bias)
    }
}

/// `y = (x - mean) / sqrt(variance + eps) · gamma + beta`, over each row.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[hidden]`.
    pub gamma: ParamId,
    /// `[hidden]`.
    pub beta: ParamId,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Declares `{name}.weight` and `{name}.bias`.
    pub fn new(declare: &mut ParamBuilder, name: &str, hidden: usize, eps: f32) -> LayerNorm {
        LayerNorm {
            gamma: declare.param(format!("{name}.weight"), Role::Gamma, 1, hidden),
            beta: declare.param(format!("{name}.bias"), Role::Beta, 1, hidden),
            eps,
        }
    }
}

/// Word, position and type tables, summed and normalized. The words may be narrower than the network, which a
/// projection then makes up for: two thin matrices in the place of one.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// `[vocab, hidden]`, or `[vocab, inputs of the projection]`.
    pub words: ParamId,
    /// `[positions, hidden]`.
    pub positions: ParamId,
    /// `[token_types, hidden]`, where the architecture has them.
    pub token_types: Option<ParamId>,
    /// Over the sum.
    pub norm: LayerNorm,
    /// From a word's row to the network's width, where words are narrower: `[hidden, embedding_size]`.
    pub projection: Option<Linear>,
    /// Width.
    pub hidden: usize,
    /// Rate of dropout after the norm.
    pub dropout: f32,
}

impl Embeddings {
    /// Declares `{name}.word_embeddings.weight` and its like; with an `embedding_size` also `{name}_project`, as ELECTRA
    /// calls it.
    pub fn new(
        declare: &mut ParamBuilder,
        name: &str,
        [vocab, positions, token_types, hidden]: [usize; 4],
        embedding_size: Option<usize>,
        eps: f32,
        dropout: f32,
    ) -> Embeddings {
        let mut table = |kind: &str, entries, width| {
            declare.param(format!("{name}.{kind}_embeddings.weight"), Role::Embedding, entries, width)
        };
        let project = |declare: &mut ParamBuilder, size: usize| {
            Linear::new(declare, &format!("{name}_project"), size, hidden, Activation::Identity)
        };
        Embeddings {
            words: table("word", vocab, embedding_size.unwrap_or(hidden)),
            positions: table("position", positions, hidden),
            token_types: (token_types > 0).then(|| table("token_type", token_types, hidden)),
            norm: LayerNorm::new(declare, &format!("{name}.LayerNorm"), hidden, eps),
            projection: embedding_size.map(|size| project(declare, size)),
            hidden,
            dropout,
        }
    }

    /// Looks the batch's tokens up: `[tokens, hidden]`.
    ///
    /// # Errors
    /// The executor's.
    pub fn forward<E: Exec>(&self, e: &mut E) -> crate::Result<E::Var> {
        let Some(projection) = &self.projection else { return e.embed(self) };
        let words = e.words(self)?;
        let words = e.linear(projection, &words)?;
        e.embed_words(self, &words)
    }
}

/// Multi-head attention with however many heads are left.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[heads · head_size, hidden]`, as are `key` and `value`.
    pub query: Linear,
    /// See `query`.
    pub key: Linear,
    /// See `query`.
    pub value: Linear,
    /// `[hidden, heads · head_size]`.
    pub output: Linear,
    /// Heads left, and how they attend.
    pub attend: Attend,
}

impl Attention {
    /// Whether keys and values can be absorbed into one query ([`Exec::self_attention`]): each by a matrix of its own. A factored
    /// one would have to be multiplied out.
    pub fn absorbs(&self) -> bool {
        self.key.down.is_none() && self.value.down.is_none()
    }
}

/// One encoder layer: attention and a feed-forward part, each added to its input and normalized (post-norm).
#[derive(Clone, Debug)]
pub struct Layer {
    /// Attention over the text.
    pub attention: Attention,
    /// Over attention's output plus its input.
    pub attention_norm: LayerNorm,
    /// `[intermediate, hidden]`, with the nonlinearity.
    pub expand: Linear,
    /// `[hidden, intermediate]`.
    pub contract: Linear,
    /// Over the feed-forward output plus its input.
    pub output_norm: LayerNorm,
    /// Rate of dropout on attention's output; DistilBERT has none there.
    pub attention_output_dropout: f32,
    /// Rate of dropout on the feed-forward output.
    pub output_dropout: f32,
}

/// The results inside one layer that importance is scored by.
pub struct LayerTaps<V> {
    /// Attention's context, before the output projection: `[rows, heads · head_size]`.
    pub context: V,
    /// The feed-forward part after its nonlinearity: `[rows, intermediate]`.
    pub intermediate: V,
    /// The layer's output: `[rows, hidden]`.
    pub hidden: V,
}

impl Layer {
    /// Its linear layers, in the order of [`MatrixRanks`](crate::models::config::MatrixRanks).
    pub fn linears(&self) -> [&Linear; 6] {
        let Attention { query, key, value, output, .. } = &self.attention;
        [query, key, value, output, &self.expand, &self.contract]
    }

    /// Runs the layer over all tokens; with `first_only`, its output has one row a text, for the first
    /// token. It attends to all tokens either way, so the rows that are left are the same.
    ///
    /// # Errors
    /// The executor's.
    pub fn forward<E: Exec>(
        &self,
        e: &mut E,
        x: &E::Var,
        first_only: bool,
    ) -> crate::Result<LayerTaps<E::Var>> {
        let attention = &self.attention;
        let [context, x] = e.self_attention(attention, x, first_only)?;
        let attended = attention.output.forward(e, &context)?;
        let x = e.add_norm(&self.attention_norm, &attended, &x, self.attention_output_dropout)?;
        // Results go as soon as nobody reads them: an executor that keeps no records has their memory back.
        drop(attended);
        let intermediate = self.expand.forward(e, &x)?;
        let y = self.contract.forward(e, &intermediate)?;
        let hidden = e.add_norm(&self.output_norm, &y, &x, self.output_dropout)?;
        Ok(LayerTaps { context, intermediate, hidden })
    }
}
