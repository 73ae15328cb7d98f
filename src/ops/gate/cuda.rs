//! Gate derivatives on a GPU: a block a group and text.

use super::GateOps;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid, RowLayout};
use crate::tensor::Tensor;
use crate::{Batch, Result};

impl GateOps for Cuda {
    fn gate_gradients(
        &self,
        batch: &Batch,
        x: &Tensor<Self>,
        dx: &Tensor<Self>,
        width: usize,
    ) -> Result<Vec<f64>> {
        let (cols, texts) = (x.cols(), batch.texts());
        assert!(cols.is_multiple_of(width), "groups of {width} of {cols} columns");
        let groups = cols / width;
        let (on_device, x, dx) = (self.batch(batch)?, self.activation(x)?, self.activation(dx)?);
        let slopes = self.memory(texts * groups * size_of::<f64>())?;
        let offsets = (RowLayout::of(batch, x.rows()) == RowLayout::Tokens).then_some(&on_device.offsets);
        let arguments: [&dyn Argument; 6] =
            [x.buffer(), dx.buffer(), &offsets, &(cols as i32), &(width as i32), &slopes];
        self.launch("terms", self.storage(), "gate_gradients", Grid::plane(groups, texts, 256), &arguments)?;
        self.download_all(&slopes, texts * groups)
    }
}
