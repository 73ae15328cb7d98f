//! Multi-head attention within each text of a ragged batch.
//!
//! For one text and one head, with `q: [queries, head_size]` and `k, v: [tokens, head_size]`:
//!
//! ```text
//! s = q·kᵀ / sqrt(head_size)    p = softmax(s) by rows    p' = dropout(p)    context = p'·v
//! dv = p'ᵀ·dc    dp' = dc·vᵀ    ds = p ∘ (dp - Σ dp∘p)    dq = ds·k/√    dk = dsᵀ·q/√
//! ```
//!
//! (Vaswani et al., arXiv:1706.03762.) Saved: q, k, v, the context and the log-sum-exp of each row of `s`;
//! the probabilities are recomputed, as in FlashAttention (Dao et al., arXiv:2205.14135), so that memory grows
//! with the tokens and not with their square. `queries` is the text's length, or 1 when only the first
//! token is wanted. Where sentences are apart, "text" means sentence (`Attend::texts`).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub(in crate::ops) mod texts;

use crate::Batch;
use crate::Result;
use crate::autograd::{Context, Grads, Node, Recorded, Var, VarId};
use crate::backend::Device;
use crate::nn::Attend;
use crate::ops::Backend;
use crate::ops::dropout::DropoutSite;
use crate::tensor::Tensor;

/// Attention on a device.
pub trait AttentionOps: Device {
    /// The context, `[query rows, heads · head_size]`, and the log-sum-exps, `[query rows, heads]`.
    ///
    /// # Errors
    /// The device's.
    fn attention_forward(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
        dropout: Option<&DropoutSite>,
    ) -> Result<[Tensor<Self>; 2]>;

    /// Adds to `means`, one for each head, each text's mean absolute attention probability.
    ///
    /// # Errors
    /// The device's.
    fn mean_attention(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
        means: &mut [f64],
    ) -> Result<()>;

    /// `dq`, `dk`, `dv`.
    ///
    /// # Errors
    /// The device's.
    fn attention_backward(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
        dropout: Option<&DropoutSite>,
        context_and_sums: [&Tensor<Self>; 2],
        dcontext: &Tensor<Self>,
    ) -> Result<[Tensor<Self>; 3]>;
}

struct Saved<B: Backend> {
    attend: Attend,
    inputs: [VarId; 3],
    qkv: [Tensor<B>; 3],
    results: [Tensor<B>; 2],
    dropout: Option<DropoutSite>,
}

/// Attends; `dropout` is the place of the dropout on the probabilities. A `context` that is given is the result, and the
/// gradient is that of the one that is computed.
///
/// # Errors
/// The device's.
pub fn forward<B: Backend>(
    at: &Context<'_, B>,
    attend: &Attend,
    qkv: [&Var<B>; 3],
    dropout: Option<DropoutSite>,
    context: Option<Tensor<B>>,
    record: bool,
) -> Result<Recorded<B>> {
    let tensors = qkv.map(Var::tensor);
    if let (Some(context), false) = (&context, record) {
        return Ok((context.clone(), None));
    }
    let results = at.backend.attention_forward(&attend.texts(at.batch), attend, tensors, dropout.as_ref())?;
    let context = context.unwrap_or_else(|| results[0].clone());
    let node = record.then(|| {
        let (attend, inputs, qkv) = (*attend, qkv.map(Var::id), tensors.map(Tensor::clone));
        Box::new(Saved { attend, inputs, qkv, results, dropout }) as Box<dyn Node<B>>
    });
    Ok((context, node))
}

impl<B: Backend> Node<B> for Saved<B> {
    fn backward(self: Box<Self>, at: &Context<'_, B>, dy: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        let gradients = at.backend.attention_backward(
            &self.attend.texts(at.batch),
            &self.attend,
            self.qkv.each_ref(),
            self.dropout.as_ref(),
            self.results.each_ref(),
            dy,
        )?;
        for (input, gradient) in self.inputs.into_iter().zip(gradients) {
            grads.put_var(at.backend, input, gradient)?;
        }
        Ok(())
    }
}
