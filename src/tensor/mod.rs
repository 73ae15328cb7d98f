//! Tensors: a buffer on a device, and two sizes.
//!
//! Everything in this engine is a matrix: activations are `[tokens, hidden]`, weights `[outputs, inputs]`,
//! a vector is one row. Attention, which other engines write with four dimensions, walks the texts of a
//! [`Batch`](crate::Batch) instead.

use crate::backend::Device;
use std::fmt;
use std::sync::Arc;

/// Rows and columns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows: tokens, texts or outputs.
    pub rows: usize,
    /// Columns: the width of one row.
    pub cols: usize,
}

impl Shape {
    /// `rows × cols`.
    pub const fn new(rows: usize, cols: usize) -> Shape {
        Shape { rows, cols }
    }

    /// One row of `cols`.
    pub const fn vector(cols: usize) -> Shape {
        Shape { rows: 1, cols }
    }

    /// Elements.
    pub const fn len(self) -> usize {
        self.rows * self.cols
    }

    /// Whether there are no elements.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.rows, self.cols)
    }
}

/// A matrix on device `D`. Cloning shares the buffer; only a sole owner may write to it.
pub struct Tensor<D: Device> {
    buffer: Arc<D::Buffer>,
    shape: Shape,
}

impl<D: Device> Clone for Tensor<D> {
    fn clone(&self) -> Self {
        Tensor { buffer: Arc::clone(&self.buffer), shape: self.shape }
    }
}

impl<D: Device> Tensor<D> {
    /// Wraps a buffer that holds `shape.len()` elements.
    pub fn from_buffer(buffer: D::Buffer, shape: Shape) -> Tensor<D> {
        Tensor { buffer: Arc::new(buffer), shape }
    }

    /// Copies `data`, of `shape.len()` elements in row-major order, to the device.
    ///
    /// # Errors
    /// The device's: no memory.
    pub fn upload(device: &D, data: &[f32], shape: Shape) -> crate::Result<Tensor<D>> {
        assert_eq!(data.len(), shape.len(), "data does not fill {shape:?}");
        Ok(Tensor::from_buffer(device.upload(data)?, shape))
    }

    /// Copies the elements back, row-major.
    ///
    /// # Errors
    /// The device's.
    pub fn download(&self, device: &D) -> crate::Result<Vec<f32>> {
        device.download(&self.buffer)
    }

    /// Rows and columns.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.shape.cols
    }

    /// The storage, to read.
    pub fn buffer(&self) -> &D::Buffer {
        &self.buffer
    }

    /// The storage by itself, if nobody else holds it.
    pub fn into_buffer(self) -> Option<D::Buffer> {
        Arc::into_inner(self.buffer)
    }

    /// The storage, to write, if nobody else holds it.
    pub fn unique(&mut self) -> Option<&mut D::Buffer> {
        Arc::get_mut(&mut self.buffer)
    }

    /// The storage, to write.
    ///
    /// # Panics
    /// If the buffer is shared: gradients and parameters have one owner whenever they are written.
    pub fn buffer_mut(&mut self) -> &mut D::Buffer {
        Arc::get_mut(&mut self.buffer).expect("a tensor that is written has one owner")
    }
}

impl<D: Device> fmt::Debug for Tensor<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor {:?}", self.shape)
    }
}
