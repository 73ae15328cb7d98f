//! The operations of a network over one arena.
//!
//! A linear layer with a nonlinearity is not run when it is asked for, but by the layer that reads it, in blocks
//! of rows: its output, four times as wide as the rest, then never leaves the second-level cache.

use super::arena::{Arena, Place, Slot, grow};
use super::weights::{Matrix as Weight, Weights};
use crate::models::config::Activation;
use crate::nn::{Attend, Embeddings, Exec, LayerNorm, Linear};
use crate::{Batch, Result};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{End, LayerI8, Matrix, RowsI8};
use limbeck_kernels::rows::{AttentionArgs, quantized_stride};
use std::ops::Range;

/// Rows of a wide layer's output that exist at one time.
const BLOCK: usize = 96;

/// Memory for what lives within one operation.
#[derive(Default)]
pub(super) struct Scratch {
    /// Rows before they are normalized, or a wide layer's outputs.
    wide: Vec<f32>,
    /// The same after the nonlinearity.
    active: Vec<f32>,
    bytes: Vec<u8>,
    scales: Vec<f32>,
}

/// One pass of some of a batch's texts.
pub(super) struct Run<'r> {
    pub weights: &'r Weights,
    /// Whether products read bytes.
    pub quantize: bool,
    pub kernels: Kernels,
    pub arena: &'r mut Arena,
    pub scratch: &'r mut Scratch,
    pub batch: &'r Batch,
    /// Where these texts begin in the batch, and where the last one ends.
    pub offsets: &'r [usize],
}

/// A result: its slot, its size, and a layer that has still to be applied to it.
#[derive(Clone)]
pub(super) struct Var {
    place: Place,
    rows: usize,
    cols: usize,
    then: Option<Linear>,
}

/// Rows that a product reads.
#[derive(Clone, Copy)]
struct Rows<'a> {
    count: usize,
    cols: usize,
    values: &'a [f32],
    bytes: &'a [u8],
    scales: &'a [f32],
}

impl<'a> Rows<'a> {
    fn of(slot: &'a Slot, count: usize, cols: usize) -> Rows<'a> {
        Rows { count, cols, values: &slot.values, bytes: &slot.bytes, scales: &slot.scales }
    }

    fn quantized(self) -> RowsI8<'a> {
        RowsI8 { bytes: self.bytes, stride: quantized_stride(self.cols), scale: &self.scales[..self.count] }
    }

    fn range(self, range: Range<usize>) -> Rows<'a> {
        Rows {
            count: range.len(),
            values: &self.values[range.start * self.cols..],
            bytes: &self.bytes[range.start * quantized_stride(self.cols)..],
            scales: &self.scales[range.start..],
            ..self
        }
    }
}

impl Run<'_> {
    /// The values of a result.
    pub fn values(&self, x: &Var) -> &[f32] {
        assert!(x.then.is_none(), "no network ends with a nonlinearity");
        &self.arena.get(&x.place).values[..x.rows * x.cols]
    }

    fn texts(&self) -> usize {
        self.offsets.len() - 1
    }

    fn tokens(&self) -> usize {
        self.offsets[self.texts()] - self.offsets[0]
    }

    /// The rows of one text in an activation of `rows` rows.
    fn rows_of(&self, text: usize, rows: usize) -> Range<usize> {
        if rows == self.tokens() {
            self.offsets[text] - self.offsets[0]..self.offsets[text + 1] - self.offsets[0]
        } else {
            text..text + 1
        }
    }

    /// Fills a fresh slot.
    fn produce(&mut self, rows: usize, cols: usize, fill: impl FnOnce(&mut Self, &mut Slot)) -> Var {
        let (place, mut slot) = self.arena.take();
        fill(self, &mut slot);
        self.arena.put(&place, slot);
        Var { place, rows, cols, then: None }
    }

    /// Makes the bytes of some rows from their floats, if products will read them.
    fn quantize_rows(&self, slot: &mut Slot, rows: Range<usize>, cols: usize) {
        if self.quantize {
            quantize(self.kernels, slot, rows, cols);
        }
    }

    /// `out = x·Wᵀ + b`, without the nonlinearity. `out`: `[rows, outputs]`.
    fn product(&self, layer: &Linear, x: Rows<'_>, out: &mut [f32]) {
        let bias = self.weights.vector(layer.bias);
        match self.weights.matrix(layer.weight) {
            Weight::F32(weights) => {
                let x = Matrix::new(x.values, x.count, layer.inputs);
                let end = End { bias: Some(bias), accumulate: false };
                self.kernels.gemm(x, weights, end, out, layer.outputs);
            }
            Weight::I8 { weights, scale } => {
                let layer_i8 = LayerI8 { weights, scale, bias };
                self.kernels.gemm_i8_f32(x.quantized(), layer_i8, out, layer.outputs);
            }
        }
    }

    /// Computes a layer with a nonlinearity in blocks of rows, and gives each block to `each`.
    fn in_blocks(&mut self, layer: &Linear, x: &Var, mut each: impl FnMut(&Self, Range<usize>, Rows<'_>)) {
        let mut scratch = std::mem::take(self.scratch);
        let width = layer.outputs;
        let blocks = x.rows.div_ceil(BLOCK);
        for block in 0..blocks {
            let rows = block * x.rows / blocks..(block + 1) * x.rows / blocks;
            let source = Rows::of(self.arena.get(&x.place), x.rows, x.cols).range(rows.clone());
            let done = match self.weights.matrix(layer.weight) {
                Weight::I8 { weights, scale } if layer.activation == Activation::Gelu => {
                    let bias = self.weights.vector(layer.bias);
                    self.gelu(source, LayerI8 { weights, scale, bias }, &mut scratch)
                }
                _ => {
                    let len = rows.len() * width;
                    grow(&mut scratch.wide, len);
                    self.product(layer, source, &mut scratch.wide[..len]);
                    self.activate(layer.activation, rows.len(), width, &mut scratch)
                }
            };
            each(self, rows, done);
        }
        *self.scratch = scratch;
    }

    /// A whole int8 layer with GELU, from bytes to bytes.
    fn gelu<'s>(&self, x: Rows<'_>, layer: LayerI8<'_>, scratch: &'s mut Scratch) -> Rows<'s> {
        let Scratch { wide, bytes, scales, .. } = scratch;
        let (count, cols) = (x.count, layer.bias.len());
        let len = count * quantized_stride(cols);
        grow(bytes, len);
        grow(scales, count);
        self.kernels.gemm_i8_gelu(x.quantized(), layer, wide, &mut bytes[..len], &mut scales[..count]);
        Rows { count, cols, values: &[], bytes, scales }
    }

    /// Applies the nonlinearity to `rows` rows of `scratch.wide`; an int8 model keeps the bytes alone.
    fn activate<'s>(&self, how: Activation, rows: usize, width: usize, scratch: &'s mut Scratch) -> Rows<'s> {
        let Scratch { wide, active, bytes, scales } = scratch;
        let stride = quantized_stride(width);
        // One row at a time, so that its floats are read from the first-level cache.
        grow(active, if self.quantize { width } else { rows * width });
        grow(bytes, rows * stride);
        grow(scales, rows);
        for row in 0..rows {
            let x = &wide[row * width..(row + 1) * width];
            let first = if self.quantize { 0 } else { row * width };
            let y = &mut active[first..first + width];
            match how {
                Activation::Identity => y.copy_from_slice(x),
                Activation::Gelu => self.kernels.gelu_forward(x, y),
                Activation::Relu => self.kernels.relu_forward(x, y),
                Activation::Tanh => self.kernels.tanh_forward(x, y),
            }
            if self.quantize {
                let bytes = &mut bytes[row * stride..(row + 1) * stride];
                self.kernels.quantize_rows(y, width, bytes, &mut scales[row..row + 1]);
            }
        }
        Rows { count: rows, cols: width, values: active, bytes, scales }
    }

    /// `y = gamma·(x − mean)/σ + beta` of one row, from the scratch row.
    fn normalize(&self, norm: &LayerNorm, x: &[f32], y: &mut [f32]) {
        let (gamma, beta) = (self.weights.vector(norm.gamma), self.weights.vector(norm.beta));
        self.kernels.layer_norm_forward(x, gamma, beta, norm.eps, y, None);
    }
}

/// Makes the bytes of some rows from their floats.
fn quantize(kernels: Kernels, slot: &mut Slot, rows: Range<usize>, cols: usize) {
    let stride = quantized_stride(cols);
    let values = &slot.values[rows.start * cols..rows.end * cols];
    let bytes = &mut slot.bytes[rows.start * stride..rows.end * stride];
    kernels.quantize_rows(values, cols, bytes, &mut slot.scales[rows]);
    slot.quantized = true;
}

impl Exec for Run<'_> {
    type Var = Var;

    fn embed(&mut self, tables: &Embeddings) -> Result<Var> {
        let hidden = tables.hidden;
        let [words, positions] = [tables.words, tables.positions].map(|id| self.weights.table(id));
        let types = tables.token_types.map(|id| self.weights.table(id));
        Ok(self.produce(self.tokens(), hidden, |run, slot| {
            let mut sum = std::mem::take(&mut run.scratch.wide);
            grow(&mut sum, hidden);
            let row = &mut sum[..hidden];
            for text in 0..run.texts() {
                for token in run.offsets[text]..run.offsets[text + 1] {
                    words.read(run.kernels, run.batch.ids[token] as usize, row, false);
                    positions.read(run.kernels, token - run.offsets[text], row, true);
                    if let Some(types) = types {
                        let kind = run.batch.token_types.get(token).copied().unwrap_or(0);
                        types.read(run.kernels, kind as usize, row, true);
                    }
                    let place = token - run.offsets[0];
                    run.normalize(&tables.norm, row, &mut slot.values[place * hidden..(place + 1) * hidden]);
                    run.quantize_rows(slot, place..place + 1, hidden);
                }
            }
            run.scratch.wide = sum;
        }))
    }

    fn linear(&mut self, layer: &Linear, x: &Var) -> Result<Var> {
        if layer.activation != Activation::Identity {
            assert!(x.then.is_none(), "no network applies two nonlinear layers in a row");
            self.bytes_of(x);
            return Ok(Var { then: Some(layer.clone()), ..x.clone() });
        }
        let outputs = layer.outputs;
        if let Some(first) = &x.then {
            return Ok(self.produce(x.rows, outputs, |run, slot| {
                run.in_blocks(first, x, |run, rows, block| {
                    run.product(layer, block, &mut slot.values[rows.start * outputs..]);
                });
            }));
        }
        self.bytes_of(x);
        Ok(self.produce(x.rows, outputs, |run, slot| {
            run.product(layer, Rows::of(run.arena.get(&x.place), x.rows, x.cols), &mut slot.values);
        }))
    }

    fn attend(&mut self, attend: &Attend, query: &Var, key: &Var, value: &Var) -> Result<Var> {
        let width = attend.heads * attend.head_size;
        Ok(self.produce(query.rows, width, |run, slot| {
            for text in 0..run.texts() {
                let (queries, keys) = (run.rows_of(text, query.rows), run.rows_of(text, key.rows));
                let part = |var: &Var, rows: &Range<usize>| rows.start * var.cols..rows.end * var.cols;
                let [q, k, v] = [query, key, value].map(|var| &run.arena.get(&var.place).values);
                let args = AttentionArgs {
                    q: &q[part(query, &queries)],
                    q_stride: width,
                    k: &k[part(key, &keys)],
                    k_stride: width,
                    v: &v[part(value, &keys)],
                    v_stride: width,
                    len: keys.len(),
                    queries: queries.len(),
                    heads: attend.heads,
                    head_size: attend.head_size,
                    scale: 1.0 / (attend.head_size as f32).sqrt(),
                    dropout: None,
                };
                let context = &mut slot.values[queries.start * width..queries.end * width];
                if run.quantize {
                    run.kernels.attention_int8(&args, context, width);
                } else {
                    run.kernels.attention_forward(&args, context, width, &mut []);
                }
                run.quantize_rows(slot, queries, width);
            }
        }))
    }

    fn add_norm(&mut self, norm: &LayerNorm, x: &Var, residual: &Var, _dropout: f32) -> Result<Var> {
        let cols = x.cols;
        Ok(self.produce(x.rows, cols, |run, slot| {
            let mut sum = std::mem::take(&mut run.scratch.wide);
            grow(&mut sum, cols);
            let [x_values, residual] = [x, residual].map(|var| run.values(var));
            for row in 0..x.rows {
                let range = row * cols..(row + 1) * cols;
                let sum = &mut sum[..cols];
                sum.copy_from_slice(&residual[range.clone()]);
                run.kernels.add(&x_values[range.clone()], sum);
                run.normalize(norm, sum, &mut slot.values[range]);
                run.quantize_rows(slot, row..row + 1, cols);
            }
            run.scratch.wide = sum;
        }))
    }

    fn first_tokens(&mut self, x: &Var) -> Result<Var> {
        let (cols, stride) = (x.cols, quantized_stride(x.cols));
        Ok(self.produce(self.texts(), cols, |run, slot| {
            let from = run.arena.get(&x.place);
            for text in 0..run.texts() {
                let row = run.rows_of(text, x.rows).start;
                slot.values[text * cols..(text + 1) * cols]
                    .copy_from_slice(&run.values(x)[row * cols..][..cols]);
                slot.bytes[text * stride..(text + 1) * stride]
                    .copy_from_slice(&from.bytes[row * stride..][..stride]);
                slot.scales[text] = from.scales[row];
            }
            slot.quantized = from.quantized;
        }))
    }

    fn mean_tokens(&mut self, x: &Var) -> Result<Var> {
        let cols = x.cols;
        Ok(self.produce(self.texts(), cols, |run, slot| {
            for text in 0..run.texts() {
                let rows = run.rows_of(text, x.rows);
                let mean = &mut slot.values[text * cols..(text + 1) * cols];
                mean.fill(0.0);
                run.kernels.column_sums(&run.values(x)[rows.start * cols..rows.end * cols], mean);
                run.kernels.scale(mean, 1.0 / rows.len() as f32);
            }
            run.quantize_rows(slot, 0..run.texts(), cols);
        }))
    }

    fn dropout(&mut self, x: &Var, _rate: f32) -> Result<Var> {
        Ok(x.clone())
    }
}

impl Run<'_> {
    /// Sees to it that a result which a product is about to read has bytes, if products read bytes.
    fn bytes_of(&mut self, x: &Var) {
        if self.quantize && !self.arena.get(&x.place).quantized {
            let kernels = self.kernels;
            quantize(kernels, self.arena.get_mut(&x.place), 0..x.rows, x.cols);
        }
    }
}
