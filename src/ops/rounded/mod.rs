//! What a network computes once it is an int8 file, with gradients: quantization-aware training.
//!
//! The forward pass is the one of [`crate::infer`], by the same kernels: weights are rounded to few bits, activations to
//! int8 row by row, sums are whole numbers. Its logits are therefore those of the file that the weights would become. The
//! backward pass takes rounding for the identity, the *straight-through estimator* (Bengio et al., arXiv:1308.3432;
//! Jacob et al., arXiv:1712.05877): with `x̂`, `Ŵ` what x and W were rounded to, and `y = x̂·Ŵᵀ + b`,
//!
//! ```text
//! dx = dx̂ = dy·Ŵ        dW = dŴ = dyᵀ·x̂
//! ```
//!
//! GELU and attention are rounded inside; their gradients are those of the exact function at the same input. A layer
//! that reads one token a text absorbs its keys and values into the query, as sessions do: `x` is not rounded there.
//! Where dropout acts on attention's probabilities, they are not rounded: they are noise already.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use super::Backend;
use super::embedding::Lookup;
use crate::autograd::{Context, Var};
use crate::backend::Device;
use crate::formats::{Exceptions, Form};
use crate::models::config::Activation;
use crate::nn::{Attend, Linear, ParamSpec, Role};
use crate::tensor::Tensor;
use crate::{Batch, Result};

/// What the parameters of a network are rounded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rounding {
    /// The matrices of linear layers.
    pub weights: Form,
    /// Embedding tables.
    pub embeddings: Form,
    /// Matrices and tables that become something else.
    pub exceptions: Exceptions,
}

impl Rounding {
    /// What a parameter becomes; vectors stay floats.
    pub fn form(&self, spec: &ParamSpec) -> Form {
        let most = match spec.role {
            Role::Weight => self.weights,
            Role::Embedding => self.embeddings,
            Role::Bias | Role::Gamma | Role::Beta => return Form::F32,
        };
        self.exceptions.form(&spec.name).unwrap_or(most)
    }

    /// What training rounds a parameter to: a table as the file has it, a matrix to whole numbers. Products of floats add up in another
    /// order in training than in a session, so that a matrix in 16-bit floats would not make their bits equal.
    pub fn of(&self, spec: &ParamSpec) -> Option<Form> {
        let form = self.form(spec);
        let rounded = form.is_integer() || (spec.role == Role::Embedding && form.half().is_some());
        rounded.then_some(form)
    }
}

/// A weight that is rounded.
pub struct Rounded<D: RoundedOps> {
    /// As products in int8 read it.
    pub weight: D::Weight,
    /// What it stands for, `Ŵ`: `[outputs, inputs]`.
    pub values: Tensor<D>,
}

/// A linear layer with a rounded weight.
pub struct RoundedLayer<'a, D: RoundedOps> {
    /// `[outputs, inputs]`.
    pub weight: &'a D::Weight,
    /// `[outputs]`.
    pub bias: &'a Tensor<D>,
}

/// Operations in int8 on a device, equal to the bit to those of a session.
pub trait RoundedOps: Device {
    /// A weight in few bits, as products read it.
    type Weight;
    /// Rows of an activation in int8, as products read them.
    type Rows;

    /// Rounds a weight: `[outputs, inputs]`.
    ///
    /// # Errors
    /// The device's, as for all that follow.
    fn round_weight(&self, weight: &Tensor<Self>, form: Form) -> Result<Rounded<Self>>;

    /// Rounds an activation, row by row.
    ///
    /// # Errors
    /// The device's.
    fn round_rows(&self, x: &Tensor<Self>) -> Result<Self::Rows>;

    /// What rounded rows stand for, `x̂`: `[rows, cols]`.
    ///
    /// # Errors
    /// The device's.
    fn values_of(&self, rows: &Self::Rows) -> Result<Tensor<Self>>;

    /// `activation(x̂·Ŵᵀ + b)`; for GELU without it.
    ///
    /// # Errors
    /// The device's.
    fn rounded_linear(
        &self,
        x: &Self::Rows,
        layer: RoundedLayer<'_, Self>,
        activation: Activation,
    ) -> Result<Tensor<Self>>;

    /// `gelu(x̂·Ŵᵀ + b)`, rounded.
    ///
    /// # Errors
    /// The device's.
    fn rounded_gelu(&self, x: &Self::Rows, layer: RoundedLayer<'_, Self>) -> Result<Self::Rows>;

    /// Attention's context in int8: `[query rows, heads · head_size]`.
    ///
    /// # Errors
    /// The device's.
    fn rounded_attention(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
    ) -> Result<Tensor<Self>>;

    /// The context of one query a text over `x`, `[tokens, hidden]`, by the layers of keys and of values.
    ///
    /// # Errors
    /// The device's.
    fn absorbed_attention(
        &self,
        batch: &Batch,
        attend: &Attend,
        x: &Tensor<Self>,
        query: &Tensor<Self>,
        key_and_value: [RoundedLayer<'_, Self>; 2],
    ) -> Result<Tensor<Self>>;

    /// The sum of the rows that each token reads, each rounded to its table's form, if it has one.
    ///
    /// # Errors
    /// The device's.
    fn rounded_gather(&self, lookups: &[Lookup<'_, Self>], forms: &[Option<Form>]) -> Result<Tensor<Self>>;
}

/// The result of a linear layer in int8.
pub struct Forward<B: Backend> {
    /// `y`, or what its rounded rows stand for.
    pub y: Tensor<B>,
    /// `y`'s rows, if the layer rounds them itself.
    pub rows: Option<B::Rows>,
    /// What the product read: `x̂`.
    pub x: Tensor<B>,
    /// What the backward pass of the activation needs.
    pub kept: Option<Tensor<B>>,
}

/// Runs a linear layer in int8.
///
/// # Errors
/// The device's.
pub fn linear<B: Backend>(
    at: &Context<'_, B>,
    layer: &Linear,
    x: &Var<B>,
    weight: &Rounded<B>,
) -> Result<Forward<B>> {
    let bias = at.params.bias(at.backend, layer)?;
    let of = || RoundedLayer { weight: &weight.weight, bias: &bias };
    let rows = x.rows(at.backend)?;
    let x = at.backend.values_of(rows)?;
    let z = at.backend.rounded_linear(rows, of(), layer.activation)?;
    Ok(match layer.activation {
        Activation::Identity => Forward { y: z, rows: None, x, kept: None },
        Activation::Relu | Activation::Tanh => Forward { y: z.clone(), rows: None, x, kept: Some(z) },
        Activation::Gelu => {
            let rows = at.backend.rounded_gelu(rows, of())?;
            Forward { y: at.backend.values_of(&rows)?, rows: Some(rows), x, kept: Some(z) }
        }
    })
}
