//! The operands of attention on the CPU, text by text.

use crate::Batch;
use crate::backend::Cpu;
use crate::nn::Attend;
use crate::ops::dropout::DropoutSite;
use crate::tensor::Tensor;
use limbeck_kernels::rows::{AttentionArgs, AttentionDropout};
use std::ops::Range;

/// The operands, cut into texts.
pub(in crate::ops) struct Texts<'a> {
    pub batch: &'a Batch,
    pub attend: &'a Attend,
    pub qkv: [&'a Tensor<Cpu>; 3],
    pub dropout: Option<&'a DropoutSite>,
}

impl Texts<'_> {
    /// The rows of the query that belong to a text.
    pub fn query(&self, text: usize) -> Range<usize> {
        self.batch.rows_of(text, self.qkv[0].rows())
    }

    /// [`query`](Self::query) of each text.
    pub fn queries(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.batch.texts()).map(|text| self.query(text))
    }

    /// What a kernel needs for a text.
    pub fn args(&self, text: usize) -> AttentionArgs<'_> {
        let Attend { heads, head_size, .. } = *self.attend;
        let width = heads * head_size;
        let (queries, keys) = (self.query(text), self.batch.text(text));
        let [q, k, v] = self.qkv.map(|x| &x.buffer()[..]);
        AttentionArgs {
            q: &q[queries.start * width..queries.end * width],
            q_stride: width,
            k: &k[keys.start * width..keys.end * width],
            k_stride: width,
            v: &v[keys.start * width..keys.end * width],
            v_stride: width,
            len: keys.len(),
            queries: queries.len(),
            heads,
            head_size,
            scale: self.attend.scale(),
            dropout: self
                .dropout
                .map(|site| AttentionDropout { key: site.key(self.batch.samples[text]), rate: site.rate }),
        }
    }
}
