//! int8 operations on the CPU: blocks of rows, each on one thread, by the kernels of sessions.

use super::{Rounded, RoundedLayer, RoundedOps};
use crate::backend::Cpu;
use crate::backend::cpu::threads::{rows_per_block, split_rows};
use crate::formats::{Form, Int8Rows, RowRounding};
use crate::models::config::Activation;
use crate::nn::Attend;
use crate::ops::activation::activate;
use crate::ops::attention::texts::Texts;
use crate::ops::embedding::Lookup;
use crate::tensor::{Shape, Tensor};
use crate::{Batch, Result};
use limbeck_kernels::gemm::{LayerI8, PackedI8, QuantizedRows, packed_i8_with_sums};
use limbeck_kernels::rows::{AbsorbedArgs, INT8_KEYS};
use rayon::prelude::*;

/// Rows of an activation that one task computes.
const ROWS: usize = 96;

/// A weight in int8, packed.
pub struct RoundedWeight {
    panels: Vec<i8>,
    sums: Vec<i32>,
    scale: Vec<f32>,
    /// `[outputs, inputs]`.
    shape: [usize; 2],
}

/// Rows in int8: [`ROWS`] of them in each block.
pub struct RoundedRows {
    blocks: Vec<QuantizedRows>,
    shape: Shape,
}

impl RoundedWeight {
    fn layer<'a>(&'a self, bias: &'a Tensor<Cpu>) -> LayerI8<'a> {
        let [n, k] = self.shape;
        let weights = PackedI8::new(&self.panels, n, k, &self.sums).into();
        LayerI8 { weights, scale: &self.scale, bias: bias.buffer() }
    }
}

impl RoundedRows {
    /// Rows of a block.
    fn count(&self, block: usize) -> usize {
        ROWS.min(self.shape.rows - block * ROWS)
    }
}

impl RoundedOps for Cpu {
    type Weight = RoundedWeight;
    type Rows = RoundedRows;

    fn round_weight(&self, weight: &Tensor<Self>, form: Form) -> Result<Rounded<Self>> {
        let (n, k) = (weight.rows(), weight.cols());
        let rows = rounded(weight, form);
        let (panels, sums) = packed_i8_with_sums(&rows.bytes, n, k);
        let mut values = self.buffer(n * k);
        let parts = values.par_chunks_mut(k.max(1)).zip(rows.bytes.par_chunks(k.max(1)));
        parts.zip(&rows.scale).for_each(|((values, bytes), &scale)| {
            self.kernels().dequantize_row(bytes, scale, values, false);
        });
        let weight = RoundedWeight { panels, sums, scale: rows.scale, shape: [n, k] };
        Ok(Rounded { weight, values: Tensor::from_buffer(values, Shape::new(n, k)) })
    }

    fn round_rows(&self, x: &Tensor<Self>) -> Result<RoundedRows> {
        let cols = x.cols();
        let blocks = (0..x.rows().div_ceil(ROWS)).into_par_iter().map(|block| {
            let rows = block * ROWS..((block + 1) * ROWS).min(x.rows());
            let mut quantized = QuantizedRows::default();
            quantized.reset(rows.len(), cols);
            self.kernels().quantize_rows(&x.buffer()[rows.start * cols..rows.end * cols], &mut quantized, 0);
            quantized
        });
        Ok(RoundedRows { blocks: blocks.collect(), shape: x.shape() })
    }

    fn values_of(&self, rows: &RoundedRows) -> Result<Tensor<Self>> {
        let cols = rows.shape.cols;
        let mut values = self.buffer(rows.shape.len());
        let blocks = values.par_chunks_mut((ROWS * cols).max(1)).zip(&rows.blocks);
        blocks.for_each(|(values, block)| {
            for (row, values) in values.chunks_mut(cols.max(1)).enumerate() {
                block.values(row, values);
            }
        });
        Ok(Tensor::from_buffer(values, rows.shape))
    }

    fn rounded_linear(
        &self,
        x: &RoundedRows,
        layer: RoundedLayer<'_, Self>,
        activation: Activation,
    ) -> Result<Tensor<Self>> {
        let shape = Shape::new(x.shape.rows, layer.bias.cols());
        let layer = layer.weight.layer(layer.bias);
        let mut y = self.buffer(shape.len());
        let blocks = y.par_chunks_mut((ROWS * shape.cols).max(1)).zip(&x.blocks).enumerate();
        blocks.for_each(|(block, (y, rows))| {
            self.kernels().gemm_i8_f32(rows.rows(0..x.count(block)), layer, y, shape.cols);
            if activation != Activation::Gelu {
                activate(self.kernels(), activation, y);
            }
        });
        Ok(Tensor::from_buffer(y, shape))
    }

    fn rounded_gelu(&self, x: &RoundedRows, layer: RoundedLayer<'_, Self>) -> Result<RoundedRows> {
        let shape = Shape::new(x.shape.rows, layer.bias.cols());
        let layer = layer.weight.layer(layer.bias);
        let blocks = x.blocks.par_iter().enumerate().map(|(block, rows)| {
            let (mut wide, mut quantized) = (Vec::new(), QuantizedRows::default());
            self.kernels().gemm_i8_gelu(rows.rows(0..x.count(block)), layer, &mut wide, &mut quantized);
            quantized
        });
        Ok(RoundedRows { blocks: blocks.collect(), shape })
    }

    fn rounded_attention(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
    ) -> Result<Tensor<Self>> {
        let texts = Texts { batch, attend, qkv, dropout: None };
        let (rows, width) = (qkv[0].rows(), attend.heads * attend.head_size);
        let mut context = self.buffer(rows * width);
        let contexts = split_rows(&mut context, width, texts.queries());
        contexts.into_par_iter().enumerate().for_each(|(text, context)| {
            let args = texts.args(text);
            match args.len <= INT8_KEYS {
                true => self.kernels().attention_int8(&args, context, width),
                false => self.kernels().attention_forward(&args, context, width, &mut []),
            }
        });
        Ok(Tensor::from_buffer(context, Shape::new(rows, width)))
    }

    fn absorbed_attention(
        &self,
        batch: &Batch,
        attend: &Attend,
        x: &Tensor<Self>,
        query: &Tensor<Self>,
        [key, value]: [RoundedLayer<'_, Self>; 2],
    ) -> Result<Tensor<Self>> {
        let (hidden, width) = (x.cols(), query.cols());
        let [key, value] = [key, value].map(|layer| layer.weight.layer(layer.bias));
        let mut context = self.buffer(query.shape().len());
        context.par_chunks_mut(width.max(1)).enumerate().for_each(|(text, context)| {
            let tokens = batch.text(text);
            let args = AbsorbedArgs {
                x: &x.buffer()[tokens.start * hidden..tokens.end * hidden],
                len: tokens.len(),
                hidden,
                query: &query.buffer()[text * width..(text + 1) * width],
                key,
                value,
                heads: attend.heads,
                head_size: attend.head_size,
                scale: attend.scale(),
            };
            self.kernels().attention_absorbed(&args, context);
        });
        Ok(Tensor::from_buffer(context, query.shape()))
    }

    fn rounded_gather(&self, lookups: &[Lookup<'_, Self>], forms: &[Option<Form>]) -> Result<Tensor<Self>> {
        let shape = Shape::new(lookups[0].rows.len(), lookups[0].table.cols());
        let cols = shape.cols.max(1);
        let rounding = |(lookup, form): (&Lookup<'_, Self>, &Option<Form>)| {
            let whole = form.filter(|form| form.is_integer());
            (whole.map(|form| RowRounding::new(form, lookup.table.buffer())), form.and_then(Form::half))
        };
        let roundings: Vec<_> = lookups.iter().zip(forms).map(rounding).collect();
        let block = rows_per_block(cols);
        let mut y = self.buffer(shape.len());
        y.par_chunks_mut(block * cols).enumerate().for_each(|(i, y)| {
            for (row, y) in y.chunks_mut(cols).enumerate() {
                for (place, (lookup, (whole, half))) in lookups.iter().zip(&roundings).enumerate() {
                    let entry = lookup.rows[i * block + row] as usize;
                    let values = &lookup.table.buffer()[entry * cols..(entry + 1) * cols];
                    if let Some(row) = whole.map(|rounding| rounding.row(values)) {
                        self.kernels().dequantize_row(&row.bytes, row.scale[0], y, place > 0);
                        continue;
                    }
                    let halves: Option<Vec<f32>> =
                        half.map(|half| values.iter().copied().map(half).collect());
                    let values = halves.as_deref().unwrap_or(values);
                    match place {
                        0 => y.copy_from_slice(values),
                        _ => self.kernels().add(values, y),
                    }
                }
            }
        });
        Ok(Tensor::from_buffer(y, shape))
    }
}

/// A weight's rows, rounded on all threads.
fn rounded(weight: &Tensor<Cpu>, form: Form) -> Int8Rows {
    let (rows, cols) = (weight.rows(), weight.cols());
    let rounding = RowRounding::new(form, weight.buffer());
    // Some rows a task: an output by itself is little work.
    let block = rows_per_block(cols);
    let parts: Vec<Int8Rows> = (0..rows.div_ceil(block))
        .into_par_iter()
        .map(|part| {
            let rows = part * block..((part + 1) * block).min(rows);
            rounding.rows(&weight.buffer()[rows.start * cols..rows.end * cols], rows.len(), cols)
        })
        .collect();
    let mut all = Int8Rows { bytes: Vec::with_capacity(rows * cols), scale: Vec::with_capacity(rows), cols };
    for part in parts {
        all.bytes.extend(part.bytes);
        all.scale.extend(part.scale);
    }
    all
}
