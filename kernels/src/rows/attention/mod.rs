//! Attention of one text: softmax(scale·Q·Kᵀ)·V for every head, forward and backward.
//!
//! Texts are never padded together, so there is no mask: every query sees every key. With
//! S = scale·Q·Kᵀ, P = softmax(S) by rows and Z the dropout factors (0 or 1/(1 − rate)):
//!
//!   context = (P∘Z)·V
//!   dV = (P∘Z)ᵀ·dcontext
//!   dS = P∘(Z∘(dcontext·Vᵀ) − δ)·scale,   δᵢ = Σ dcontextᵢ·contextᵢ
//!   dQ = dS·K,   dK = dSᵀ·Q
//!
//! Nothing of size queries × keys outlives a call: forward keeps lse = log Σ e^S of each row, and backward
//! computes P = e^(S − lse) again (as FlashAttention does, arXiv 2205.14135), and Z from its key.
//!
//! All products in floats go through one register tile (`tile`): six rows of the left operand against up to four
//! vectors of the right one, packed per head so that sixteen keys, or sixteen features, lie side by side.

mod absorbed;
mod backward;
mod forward;
mod int8;
mod tile;

pub(super) use absorbed::attention_absorbed;
#[cfg(feature = "train")]
pub(super) use backward::attention_backward;
pub(super) use forward::attention_forward;
#[cfg(feature = "train")]
pub(super) use forward::attention_probabilities;
pub(super) use int8::attention_int8;

use crate::Kernels;
use crate::gemm::LayerI8;

/// The most keys of int8 attention: sums of 254·127 for each of them stay within 32 bits.
pub const INT8_KEYS: usize = 1 << 16;

/// Queries, keys and values of one text. Row `i` of `q` starts at `q[i·q_stride]` and holds
/// heads·head_size values, head by head; so do rows of `k` and `v`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// `[queries, heads·head_size]`, strided.
    pub q: &'a [f32],
    /// From one row of `q` to the next.
    pub q_stride: usize,
    /// `[len, heads·head_size]`, strided.
    pub k: &'a [f32],
    /// From one row of `k` to the next.
    pub k_stride: usize,
    /// `[len, heads·head_size]`, strided.
    pub v: &'a [f32],
    /// From one row of `v` to the next.
    pub v_stride: usize,
    /// Keys: the tokens of the text.
    pub len: usize,
    /// Queries, some of the text's tokens: all, those of one thread, or the first where only that is read.
    pub queries: usize,
    /// Heads; 0 if all were pruned.
    pub heads: usize,
    /// Features of a head.
    pub head_size: usize,
    /// 1/√head_size, as a rule; above 0.
    pub scale: f32,
    /// Dropout of the probabilities, in training.
    pub dropout: Option<AttentionDropout>,
}

/// One query of each head, and the rows whose projections would be its keys and values.
#[derive(Clone, Copy, Debug)]
pub struct AbsorbedArgs<'a> {
    /// `[len, hidden]`
    pub x: &'a [f32],
    /// Tokens of the text.
    pub len: usize,
    /// Columns of `x`.
    pub hidden: usize,
    /// `[heads·head_size]`
    pub query: &'a [f32],
    /// `[heads·head_size, hidden]`. Its bias adds the same to all scores of a query, so it is not read.
    pub key: LayerI8<'a>,
    /// `[heads·head_size, hidden]`
    pub value: LayerI8<'a>,
    /// Heads; 0 if all were pruned.
    pub heads: usize,
    /// Features of a head.
    pub head_size: usize,
    /// 1/√head_size, as a rule; above 0.
    pub scale: f32,
}

/// Dropout of attention probabilities: that of query i and key j in a head has the index
/// ((head·len) + i)·len + j in the stream of [`Dropout`](super::Dropout).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionDropout {
    /// Names the stream.
    pub key: u64,
    /// The fraction that is dropped, in [0, 1).
    pub rate: f32,
}

/// What the backward gives; all overwritten, all shaped as in [`AttentionArgs`].
#[derive(Debug)]
pub struct AttentionGradients<'a> {
    /// `[queries, heads·head_size]`, strided.
    pub dq: &'a mut [f32],
    /// From one row of `dq` to the next.
    pub dq_stride: usize,
    /// `[len, heads·head_size]`, strided.
    pub dk: &'a mut [f32],
    /// From one row of `dk` to the next.
    pub dk_stride: usize,
    /// `[len, heads·head_size]`, strided.
    pub dv: &'a mut [f32],
    /// From one row of `dv` to the next.
    pub dv_stride: usize,
}

impl Kernels {
    /// `context`: `[queries, heads·head_size]` with rows `stride` apart, and `lse`: `[queries, heads]`, which the
    /// backward needs; an empty `lse` is left alone. NaN in a row of `q` makes that row of the context NaN.
    ///
    /// # Panics
    /// If the lengths do not fit together, `queries > len`, or `scale` or the dropout rate is out of range.
    pub fn attention_forward(
        self,
        args: &AttentionArgs<'_>,
        context: &mut [f32],
        stride: usize,
        lse: &mut [f32],
    ) {
        args.check();
        check_rows(context.len(), args.queries, stride, args.width(), "context");
        assert!(lse.is_empty() || lse.len() == args.queries * args.heads, "lse");
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.attention_forward)(args, context, stride, lse) }
    }

    /// As [`Kernels::attention_forward`] without dropout, with both products in int8: queries and keys get a scale for
    /// each row of a head, values one for each feature, probabilities are multiples of 1/254 of their row's largest.
    /// The same bits on every row of the table.
    ///
    /// # Panics
    /// As the forward, or if there is dropout or are more keys than [`INT8_KEYS`].
    pub fn attention_int8(self, args: &AttentionArgs<'_>, context: &mut [f32], stride: usize) {
        args.check();
        assert!(args.len <= INT8_KEYS, "{} keys", args.len);
        assert!(args.dropout.is_none(), "dropout is for training");
        check_rows(context.len(), args.queries, stride, args.width(), "context");
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.attention_int8)(args, &self.0.gemm.i8, context, stride) }
    }

    /// As [`Kernels::attention_forward`] for the first token alone, whose row is `context`, from rows that are not projected
    /// to keys and values: they never exist, and neither does their rounding. NaN in `x` or in the query makes the
    /// context NaN. The same bits on every row of the table.
    ///
    /// # Panics
    /// If the lengths do not fit together, `len` or `hidden` is 0, or `scale` is out of range.
    pub fn attention_absorbed(self, args: &AbsorbedArgs<'_>, context: &mut [f32]) {
        args.check();
        assert_eq!(context.len(), args.query.len(), "context");
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.attention_absorbed)(args, context) }
    }

    /// The gradients of [`Kernels::attention_forward`], from its arguments, its results and `dcontext`, which is
    /// strided as `context` is.
    ///
    /// # Panics
    /// As the forward.
    #[cfg(feature = "train")]
    pub fn attention_backward(
        self,
        args: &AttentionArgs<'_>,
        context: &[f32],
        dcontext: &[f32],
        stride: usize,
        lse: &[f32],
        into: &mut AttentionGradients<'_>,
    ) {
        args.check();
        check_rows(context.len(), args.queries, stride, args.width(), "context");
        check_rows(dcontext.len(), args.queries, stride, args.width(), "dcontext");
        assert_eq!(lse.len(), args.queries * args.heads, "lse");
        check_rows(into.dq.len(), args.queries, into.dq_stride, args.width(), "dq");
        check_rows(into.dk.len(), args.len, into.dk_stride, args.width(), "dk");
        check_rows(into.dv.len(), args.len, into.dv_stride, args.width(), "dv");
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.attention_backward)(args, context, dcontext, stride, lse, into) }
    }

    /// The probabilities of one head, `out`: `[queries, len]`, without dropout: what heads are scored by and
    /// people look at.
    ///
    /// # Panics
    /// As the forward, or if there is no such head.
    #[cfg(feature = "train")]
    pub fn attention_probabilities(self, args: &AttentionArgs<'_>, head: usize, out: &mut [f32]) {
        args.check();
        assert!(head < args.heads && out.len() == args.queries * args.len);
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.attention_probabilities)(args, head, out) }
    }
}

impl AttentionArgs<'_> {
    /// Values in a row.
    fn width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Nothing to compute.
    fn is_empty(&self) -> bool {
        self.width() == 0 || self.queries == 0
    }

    fn check(&self) {
        assert!(self.queries <= self.len, "more queries than tokens");
        assert!(self.scale > 0.0 && self.scale.is_finite(), "scale {}", self.scale);
        assert!(self.dropout.is_none_or(|dropout| (0.0..1.0).contains(&dropout.rate)), "dropout rate");
        check_rows(self.q.len(), self.queries, self.q_stride, self.width(), "q");
        check_rows(self.k.len(), self.len, self.k_stride, self.width(), "k");
        check_rows(self.v.len(), self.len, self.v_stride, self.width(), "v");
    }
}

impl AbsorbedArgs<'_> {
    fn check(&self) {
        assert!(self.scale > 0.0 && self.scale.is_finite(), "scale {}", self.scale);
        assert!(self.len > 0 && self.hidden > 0 && self.x.len() == self.len * self.hidden, "x");
        assert_eq!(self.query.len(), self.heads * self.head_size, "query");
        for (layer, name) in [(&self.key, "key"), (&self.value, "value")] {
            layer.check();
            assert_eq!(layer.weights.shape(), [self.query.len(), self.hidden], "{name}");
        }
    }
}

/// That `rows` rows of `width`, `stride` apart, fit in `len` and do not overlap.
fn check_rows(len: usize, rows: usize, stride: usize, width: usize, name: &str) {
    assert!(rows <= 1 || stride >= width, "{name}: stride {stride} below width {width}");
    assert!(
        rows == 0 || (rows - 1) * stride + width <= len,
        "{name}: {len} values for {rows} rows of {width}, {stride} apart"
    );
}
