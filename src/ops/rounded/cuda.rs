//! int8 on a GPU: computed by the host.
//!
//! What a session computes is a promise down to the bit, made of the CPU's kernels; a network that learns for few bits
//! therefore asks them, whatever device it learns on. Everything else of the step, the backward pass among it, is the GPU's.

use super::{Form, Rounded, RoundedLayer, RoundedOps};
use crate::backend::{Cpu, Cuda};
use crate::models::config::Activation;
use crate::nn::Attend;
use crate::ops::embedding::Lookup;
use crate::tensor::Tensor;
use crate::{Batch, Result};

/// A weight that the host has rounded.
pub struct Weight(<Cpu as RoundedOps>::Weight);

impl Cuda {
    fn downloaded(&self, x: &Tensor<Cuda>) -> Result<Tensor<Cpu>> {
        Tensor::upload(self.host(), &x.download(self)?, x.shape())
    }

    fn uploaded(&self, x: &Tensor<Cpu>) -> Result<Tensor<Cuda>> {
        let uploaded = Tensor::upload(self, &x.download(self.host())?, x.shape())?;
        Ok(self.activation(&uploaded)?.into_owned())
    }

    /// Runs `with` on a layer in host memory.
    fn on_host<T>(
        &self,
        layer: &RoundedLayer<'_, Cuda>,
        with: impl FnOnce(RoundedLayer<'_, Cpu>) -> Result<T>,
    ) -> Result<T> {
        let bias = self.downloaded(layer.bias)?;
        with(RoundedLayer { weight: &layer.weight.0, bias: &bias })
    }
}

impl RoundedOps for Cuda {
    type Weight = Weight;
    type Rows = <Cpu as RoundedOps>::Rows;

    fn round_weight(&self, weight: &Tensor<Self>, form: Form) -> Result<Rounded<Self>> {
        let rounded = self.host().round_weight(&self.downloaded(weight)?, form)?;
        let values = Tensor::upload(self, &rounded.values.download(self.host())?, weight.shape())?;
        Ok(Rounded { weight: Weight(rounded.weight), values })
    }

    fn round_rows(&self, x: &Tensor<Self>) -> Result<Self::Rows> {
        self.host().round_rows(&self.downloaded(x)?)
    }

    fn values_of(&self, rows: &Self::Rows) -> Result<Tensor<Self>> {
        self.uploaded(&self.host().values_of(rows)?)
    }

    fn rounded_linear(
        &self,
        x: &Self::Rows,
        layer: RoundedLayer<'_, Self>,
        activation: Activation,
    ) -> Result<Tensor<Self>> {
        self.uploaded(&self.on_host(&layer, |layer| self.host().rounded_linear(x, layer, activation))?)
    }

    fn rounded_gelu(&self, x: &Self::Rows, layer: RoundedLayer<'_, Self>) -> Result<Self::Rows> {
        self.on_host(&layer, |layer| self.host().rounded_gelu(x, layer))
    }

    fn rounded_attention(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
    ) -> Result<Tensor<Self>> {
        let [q, k, v] = qkv.map(|x| self.downloaded(x));
        let (q, k, v) = (q?, k?, v?);
        self.uploaded(&self.host().rounded_attention(batch, attend, [&q, &k, &v])?)
    }

    fn absorbed_attention(
        &self,
        batch: &Batch,
        attend: &Attend,
        x: &Tensor<Self>,
        query: &Tensor<Self>,
        [key, value]: [RoundedLayer<'_, Self>; 2],
    ) -> Result<Tensor<Self>> {
        let (x, query) = (self.downloaded(x)?, self.downloaded(query)?);
        let context = self.on_host(&key, |key| {
            self.on_host(&value, |value| {
                self.host().absorbed_attention(batch, attend, &x, &query, [key, value])
            })
        })?;
        self.uploaded(&context)
    }

    fn rounded_gather(&self, lookups: &[Lookup<'_, Self>], forms: &[Option<Form>]) -> Result<Tensor<Self>> {
        let tables =
            lookups.iter().map(|lookup| self.downloaded(lookup.table)).collect::<Result<Vec<_>>>()?;
        let on_host: Vec<Lookup<'_, Cpu>> =
            tables.iter().zip(lookups).map(|(table, lookup)| Lookup { table, rows: lookup.rows }).collect();
        self.uploaded(&self.host().rounded_gather(&on_host, forms)?)
    }
}
