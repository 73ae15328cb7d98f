//! Linear layers over the activations of a [`Run`].
//!
//! A linear layer with a nonlinearity is not run when it is asked for, but by the layer that reads it, in blocks
//! of rows: its output, four times as wide as the rest, then never leaves the second-level cache.

use super::super::arena::grow;
use super::super::weights::Matrix as Weight;
use super::{Run, Var};
use crate::models::config::Activation;
use crate::nn::Linear;
use limbeck_kernels::gemm::{Epilogue, LayerI8, Matrix, QuantizedRows, RowsI8};
use std::ops::Range;

/// Rows of a wide layer's output that exist at one time.
const BLOCK: usize = 96;

/// Memory for what lives within one operation.
#[derive(Default)]
pub(in super::super) struct Scratch {
    /// Rows before they are normalized, or a wide layer's outputs.
    pub wide: Vec<f32>,
    /// A wide layer's outputs after the nonlinearity.
    active: Vec<f32>,
    int8: QuantizedRows,
}

/// Rows that a product reads: floats, and bytes if products read those.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub count: usize,
    pub values: &'a [f32],
    pub int8: RowsI8<'a>,
}

impl<'r> Run<'r> {
    /// `out = x·Wᵀ + b`, without the nonlinearity. `out`: `[rows, outputs]`.
    pub(super) fn product(&self, layer: &Linear, x: Rows<'_>, out: &mut [f32]) {
        let bias = self.bias(layer);
        match self.weights.matrix(layer.weight) {
            Weight::F32(weights) => {
                let x = Matrix::new(&x.values[..x.count * layer.inputs], x.count, layer.inputs);
                let epilogue = Epilogue { bias: Some(bias), accumulate: false };
                self.kernels.gemm(x, weights, epilogue, out, layer.outputs);
            }
            Weight::I8 { weights, scale } => {
                let layer_i8 = LayerI8 { weights, scale, bias };
                self.kernels.gemm_i8_f32(x.int8, layer_i8, out, layer.outputs);
            }
        }
    }

    /// What a layer adds to its outputs.
    fn bias(&self, layer: &Linear) -> &'r [f32] {
        match layer.bias {
            Some(id) => self.weights.vector(id),
            None => &self.weights.zeros[..layer.outputs],
        }
    }

    /// A layer's parameters, if they are int8.
    pub(super) fn layer_i8(&self, layer: &Linear) -> Option<LayerI8<'r>> {
        match self.weights.matrix(layer.weight) {
            Weight::I8 { weights, scale } => Some(LayerI8 { weights, scale, bias: self.bias(layer) }),
            Weight::F32(_) => None,
        }
    }

    /// Computes a layer with a nonlinearity in blocks of rows, and gives each block to `each`.
    pub(super) fn in_blocks(
        &mut self,
        layer: &Linear,
        x: &Var,
        mut each: impl FnMut(&Self, Range<usize>, Rows<'_>),
    ) {
        let mut scratch = std::mem::take(self.scratch);
        let width = layer.outputs;
        let blocks = x.rows.div_ceil(BLOCK);
        for block in 0..blocks {
            let rows = block * x.rows / blocks..(block + 1) * x.rows / blocks;
            let source = self.rows(x, rows.clone());
            let done = match self.layer_i8(layer) {
                Some(layer_i8) if layer.activation == Activation::Gelu => {
                    self.gelu(source, layer_i8, &mut scratch)
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
        self.kernels.gemm_i8_gelu(x.int8, layer, &mut scratch.wide, &mut scratch.int8);
        Rows { count: x.count, values: &[], int8: scratch.int8.rows(0..x.count) }
    }

    /// Applies the nonlinearity to `rows` rows of `scratch.wide`; an int8 model keeps the bytes alone.
    fn activate<'s>(&self, how: Activation, rows: usize, width: usize, scratch: &'s mut Scratch) -> Rows<'s> {
        let Scratch { wide, active, int8 } = scratch;
        // One row at a time, so that its floats are read from the first-level cache.
        grow(active, if self.quantize { width } else { rows * width });
        int8.reset(if self.quantize { rows } else { 0 }, width);
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
                self.kernels.quantize_rows(y, int8, row);
            }
        }
        Rows { count: rows, values: active, int8: int8.rows(0..int8.scale().len()) }
    }
}
