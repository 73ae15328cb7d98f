//! `[quantize]`: the precision of what is deployed.

use crate::quantize::layout::Layout;
use crate::quantize::{Exceptions, Form, Quantization};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a weight matrix is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightKind {
    /// int8, one scale for each output; `"int8"` is another word for it.
    #[default]
    #[serde(alias = "int8")]
    Channel,
    /// int8, one scale for the whole matrix.
    Tensor,
    /// Four bits, with a multiplier for each 32 weights of an output. Half the bytes in the file; a session unpacks them to
    /// int8, so it is as fast as that, and starts a little later.
    Int4,
    /// 16-bit floats, IEEE 754, widened when the file is opened: as fast as f32.
    F16,
    /// 16-bit floats, the upper halves of 32-bit ones.
    Bf16,
    /// 32-bit floats.
    F32,
    /// Each in `"channel"` or in `"int4"`: as many in int4 as `quantize.budget` allows.
    Auto,
}

impl From<WeightKind> for Form {
    /// What is left to be chosen is int8.
    fn from(kind: WeightKind) -> Form {
        match kind {
            WeightKind::Channel | WeightKind::Auto => Form::Int8,
            WeightKind::Tensor => Form::Int8Tensor,
            WeightKind::Int4 => Form::Int4,
            WeightKind::F16 => Form::F16,
            WeightKind::Bf16 => Form::Bf16,
            WeightKind::F32 => Form::F32,
        }
    }
}

/// How embeddings are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingKind {
    /// Eight bits, one scale a row.
    #[default]
    Int8,
    /// Four bits, with a multiplier for each 32 values of a row. Unpacked when a row is read.
    Int4,
    /// 16-bit floats, IEEE 754, widened when the file is opened.
    F16,
    /// 16-bit floats, the upper halves of 32-bit ones.
    Bf16,
    /// 32-bit floats.
    F32,
    /// Each table in int8 or in int4: as many in int4 as `quantize.budget` allows.
    Auto,
}

impl From<EmbeddingKind> for Form {
    /// What is left to be chosen is int8.
    fn from(kind: EmbeddingKind) -> Form {
        match kind {
            EmbeddingKind::Int8 | EmbeddingKind::Auto => Form::Int8,
            EmbeddingKind::Int4 => Form::Int4,
            EmbeddingKind::F16 => Form::F16,
            EmbeddingKind::Bf16 => Form::Bf16,
            EmbeddingKind::F32 => Form::F32,
        }
    }
}

/// `[quantize]`: the `.limbeck` file. Activations are always quantized while running, per token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quantize {
    /// `"channel"`, `"tensor"`, `"int4"`, `"f16"`, `"bf16"`, `"f32"` or `"auto"`. Default `"channel"`.
    pub weights: WeightKind,
    /// `"int8"`, `"int4"`, `"f16"`, `"bf16"`, `"f32"` or `"auto"`. Default `"int8"`.
    pub embeddings: EmbeddingKind,
    /// `"faster"`, `"blocks"` or `"dense"`. Default `"faster"`.
    pub layout: Layout,
    /// Matrices and tables that are stored otherwise, by name, as `"*.ffn.lin2.weight" = "int8"`; `*` stands for any
    /// characters, and where several names match, the longest decides. Kinds: `"int8"`, `"tensor"`, `"int4"`, `"f16"`,
    /// `"bf16"`, `"f32"`; matrices are all of whole numbers (the first three) or all floats. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exceptions: BTreeMap<String, Form>,
    /// Of `"auto"`: points of accuracy on the held-out rows (`data.validation`) that the file may lie below the network in
    /// f32. The matrices and tables that do least damage for each byte saved become int4; damage is measured on training
    /// texts. With `distill.quantized` the choice is made on the pruned network, before it is trained for it. Default 0.2.
    #[serde(skip_serializing_if = "is_budget")]
    pub budget: f64,
    /// Of `"auto"`: training texts that damage is measured on. Default 500.
    #[serde(skip_serializing_if = "is_samples")]
    pub samples: usize,
}

/// Default of `quantize.budget`.
const BUDGET: f64 = 0.2;
/// Default of `quantize.samples`.
const SAMPLES: usize = 500;

fn is_budget(value: &f64) -> bool {
    *value == BUDGET
}

fn is_samples(value: &usize) -> bool {
    *value == SAMPLES
}

impl Default for Quantize {
    fn default() -> Self {
        Quantize {
            weights: WeightKind::Channel,
            embeddings: EmbeddingKind::Int8,
            layout: Layout::Faster,
            exceptions: BTreeMap::new(),
            budget: BUDGET,
            samples: SAMPLES,
        }
    }
}

impl Quantize {
    /// Whether the precision of matrices or of tables is chosen one by one.
    pub fn chooses(&self) -> bool {
        self.weights == WeightKind::Auto || self.embeddings == EmbeddingKind::Auto
    }
    /// What becomes of a network's weights; what is left to be chosen is int8.
    pub fn quantization(&self) -> Quantization {
        let exceptions = self.exceptions.iter().map(|(name, form)| (name.clone(), *form)).collect();
        Quantization {
            weights: self.weights.into(),
            embeddings: self.embeddings.into(),
            layout: self.layout,
            exceptions: Exceptions::new(exceptions),
        }
    }
}
