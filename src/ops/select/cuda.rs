//! Rows picked on a GPU: a warp a row.

use super::SelectOps;
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{Argument, Grid};
use crate::tensor::{Shape, Tensor};

/// Rows of a block.
const ROWS: usize = 8;

impl SelectOps for Cuda {
    fn select(&self, x: &Tensor<Self>, rows: &[u32]) -> Result<Tensor<Self>> {
        let (x, y) = (self.activation(x)?, self.activations(Shape::new(rows.len(), x.cols()))?);
        self.move_rows("select_rows", &x, rows, &y)?;
        Ok(y)
    }

    fn put(&self, y: &Tensor<Self>, rows: &[u32], x: &mut Tensor<Self>) -> Result<()> {
        assert_eq!(y.shape(), Shape::new(rows.len(), x.cols()), "a row for each place");
        assert_eq!(x.buffer().storage(), self.storage(), "rows of activations");
        self.move_rows("put_rows", &*self.activation(y)?, rows, x)
    }

    fn zero_activations(&self, shape: Shape) -> Result<Tensor<Self>> {
        self.zero_activations(shape)
    }
}

impl Cuda {
    fn move_rows(
        &self,
        kernel: &'static str,
        from: &Tensor<Cuda>,
        rows: &[u32],
        to: &Tensor<Cuda>,
    ) -> Result<()> {
        let list = self.upload_all(rows)?;
        let (count, cols) = (rows.len() as i32, to.cols() as i32);
        let arguments: [&dyn Argument; 5] = [from.buffer(), &list, &count, &cols, to.buffer()];
        let grid = Grid::blocks(rows.len().div_ceil(ROWS), 32 * ROWS);
        self.launch("pool", self.storage(), kernel, grid, &arguments)
    }
}
