//! Attention on a GPU: of texts by length, a launch a class; by rows in f32 and where each text has one query. See the sources
//! for how: `attention_forward.cu`, `attention_backward.cu`, `attention_tiles.cu`, `attention_rows.cu`.

use super::AttentionOps;
use crate::backend::Cuda;
use crate::backend::cuda::lengths::{CLASSES, Part, TILE};
use crate::backend::cuda::{Argument, Buffer, DeviceBatch, Grid, Memory, RowLayout, Storage};
use crate::nn::Attend;
use crate::ops::dropout::DropoutSite;
use crate::tensor::{Shape, Tensor};
use crate::{Batch, Error, Result};
use std::borrow::Cow;
use std::sync::Arc;

/// The largest heads that there are kernels for.
const MOST_HEAD_SIZE: usize = 128;

/// Warps of a block, of kernels whose warps have a row and a head each.
const ROWS: usize = 4;

/// Rows of the tiles that pass in the backward pass, `STEP` in attention_tiles.cu.
const STEP: usize = 32;

/// Launches for texts of up to 32, 64 and 128 tokens.
type Classes = [&'static str; 3];
/// Launches in tiles, of heads of up to 64 and of larger ones.
type Tiles = [&'static str; 2];

impl AttentionOps for Cuda {
    fn attention_forward(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
        dropout: Option<&DropoutSite>,
    ) -> Result<[Tensor<Self>; 2]> {
        let call = Call::new(self, batch, attend, qkv, dropout)?;
        let context = self.activations(qkv[0].shape())?;
        let sums = self.tensor(Shape::new(call.rows, attend.heads), Storage::F32)?;
        call.forward([context.buffer(), sums.buffer()])?;
        Ok([context, sums])
    }

    fn mean_attention(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
        means: &mut [f64],
    ) -> Result<()> {
        let call = Call::new(self, batch, attend, qkv, None)?;
        let count = batch.texts() * attend.heads;
        let of_texts = self.memory(count * size_of::<f64>())?;
        let arguments: [&dyn Argument; 8] = [
            call.qkv[0].buffer(),
            call.qkv[1].buffer(),
            &call.on_device.offsets,
            &call.heads,
            &call.head_size,
            &call.scale,
            &i32::from(call.queries == RowLayout::Texts),
            &of_texts,
        ];
        self.launch(
            "attention_rows",
            self.storage(),
            "attention_mean",
            Grid::blocks(count, 128),
            &arguments,
        )?;
        let of_texts: Vec<f64> = self.download_all(&of_texts, count)?;
        for of_text in of_texts.chunks(attend.heads.max(1)) {
            means.iter_mut().zip(of_text).for_each(|(mean, of_text)| *mean += of_text);
        }
        Ok(())
    }

    fn attention_backward(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
        dropout: Option<&DropoutSite>,
        [context, sums]: [&Tensor<Self>; 2],
        dcontext: &Tensor<Self>,
    ) -> Result<[Tensor<Self>; 3]> {
        let call = Call::new(self, batch, attend, qkv, dropout)?;
        let [dq, dk, dv] = qkv.map(|x| self.activations(x.shape()));
        let gradients = [dq?, dk?, dv?];
        let (context, dcontext) = (self.activation(context)?, self.activation(dcontext)?);
        call.backward(
            [context.buffer(), sums.buffer(), dcontext.buffer()],
            gradients.each_ref().map(Tensor::buffer),
        )?;
        Ok(gradients)
    }
}

/// What all launches of a call have in common.
struct Call<'a> {
    cuda: &'a Cuda,
    on_device: Arc<DeviceBatch>,
    qkv: [Cow<'a, Tensor<Cuda>>; 3],
    /// Rows of the query.
    rows: usize,
    queries: RowLayout,
    heads: i32,
    head_size: i32,
    scale: f32,
    keys: Option<Memory>,
    threshold: u32,
    factor: f32,
    /// Whether indices of dropout fit in 32 bits.
    narrow: bool,
}

impl<'a> Call<'a> {
    fn new(
        cuda: &'a Cuda,
        batch: &Batch,
        attend: &Attend,
        qkv: [&'a Tensor<Cuda>; 3],
        dropout: Option<&DropoutSite>,
    ) -> Result<Call<'a>> {
        if attend.head_size > MOST_HEAD_SIZE {
            let problem = format!(
                "a head has {} columns, and the GPU's kernels take {MOST_HEAD_SIZE}",
                attend.head_size
            );
            return Err(Error::device(problem, "use --device cpu"));
        }
        let (rows, [q, k, v]) = (qkv[0].rows(), qkv.map(|x| cuda.activation(x)));
        let keys = dropout.map(|site| cuda.dropout_keys(batch, site)).transpose()?;
        let (threshold, factor) = dropout.map_or((0, 1.0), DropoutSite::threshold_and_factor);
        let longest = (0..batch.texts()).map(|text| batch.text(text).len()).max().unwrap_or(0);
        Ok(Call {
            cuda,
            on_device: cuda.batch(batch)?,
            qkv: [q?, k?, v?],
            rows,
            queries: RowLayout::of(batch, rows),
            heads: attend.heads as i32,
            head_size: attend.head_size as i32,
            scale: attend.scale(),
            narrow: keys.is_none() || u32::try_from(attend.heads * longest * longest).is_ok(),
            keys,
            threshold,
            factor,
        })
    }

    fn forward(&self, results: [&Buffer; 2]) -> Result<()> {
        let [context, sums] = results;
        let rest: [&dyn Argument; 2] = [context, sums];
        if self.by_rows() {
            return self.launch_rows("attention_rows_forward", self.queries, self.rows, &rest);
        }
        let classes = ["attention_forward_32", "attention_forward_64", "attention_forward_128"];
        let tiles = ["attention_forward_tiles_64", "attention_forward_tiles_128"];
        let stride = self.stride();
        // Queries, keys and values of a text; queries of a tile, and two stages of keys and values.
        let bytes = |rows: usize| 3 * rows * stride * 2;
        for part in self.parts(bytes) {
            match part {
                Part::Texts(class, texts) => {
                    self.launch_texts("attention_forward", classes, class, texts, bytes(class), &rest)?;
                }
                Part::Tiles { first, count } => {
                    let bytes = 5 * TILE * stride * 2;
                    self.launch_tiles("attention_forward", tiles, [first, count], bytes, &rest)?;
                }
            }
        }
        Ok(())
    }

    fn backward(&self, given: [&Buffer; 3], gradients: [&Buffer; 3]) -> Result<()> {
        if self.by_rows() {
            return self.backward_rows(given, gradients);
        }
        let ([context, sums, dcontext], [dq, dk, dv]) = (given, gradients);
        let rest: [&dyn Argument; 6] = [context, sums, dcontext, dq, dk, dv];
        let classes = ["attention_backward_32", "attention_backward_64", "attention_backward_128"];
        let stride = self.stride();
        // Queries, keys and gradients of contexts of a text, and values in rows that a row of probabilities fits in as well.
        let bytes = |rows: usize| (3 * stride + stride.max(rows + 8)) * rows * 2;
        for part in self.parts(bytes) {
            match part {
                Part::Texts(class, texts) => {
                    self.launch_texts("attention_backward", classes, class, texts, bytes(class), &rest)?;
                }
                Part::Tiles { first, count } => self.backward_tiles([first, count], given, gradients)?,
            }
        }
        Ok(())
    }

    /// Queries, which leave their deltas, then keys.
    fn backward_tiles(&self, tiles: [usize; 2], given: [&Buffer; 3], gradients: [&Buffer; 3]) -> Result<()> {
        let ([context, sums, dcontext], [dq, dk, dv]) = (given, gradients);
        let deltas = &self.cuda.buffer(sums.len(), Storage::F32)?;
        // Two matrices' rows of a tile, and two stages of the two others', with two numbers for each of their rows.
        let bytes = (2 * TILE + 4 * STEP) * self.stride() * 2 + 4 * STEP * size_of::<f32>();
        let (queries, keys) =
            (["attention_queries_64", "attention_queries_128"], ["attention_keys_64", "attention_keys_128"]);
        let rest: [&dyn Argument; 5] = [context, sums, dcontext, deltas, dq];
        self.launch_tiles("attention_tiles", queries, tiles, bytes, &rest)?;
        let rest: [&dyn Argument; 5] = [sums, deltas, dcontext, dk, dv];
        self.launch_tiles("attention_tiles", keys, tiles, bytes, &rest)
    }

    /// The backward pass row by row rather than by tiles. A text's only query leaves all of dk and dv.
    fn backward_rows(&self, given: [&Buffer; 3], gradients: [&Buffer; 3]) -> Result<()> {
        let ([context, sums, dcontext], [dq, dk, dv]) = (given, gradients);
        let deltas = &self.cuda.buffer(sums.len(), Storage::F32)?;
        let rest: [&dyn Argument; 7] = [context, sums, dcontext, deltas, dq, dk, dv];
        self.launch_rows("attention_rows_queries", self.queries, self.rows, &rest)?;
        match self.queries {
            RowLayout::Texts => Ok(()),
            RowLayout::Tokens => {
                let rest: [&dyn Argument; 5] = [sums, deltas, dcontext, dk, dv];
                self.launch_rows("attention_rows_keys", RowLayout::Tokens, self.rows, &rest)
            }
        }
    }

    /// Whether a warp takes a row: in f32, where there is one query a text, and where dropout has indices that tiles cannot hold.
    fn by_rows(&self) -> bool {
        self.cuda.storage() == Storage::F32 || self.queries == RowLayout::Texts || !self.narrow
    }

    /// Launches over texts of classes that fit in shared memory, and over tiles of longer ones.
    fn parts(&self, bytes: impl Fn(usize) -> usize) -> Vec<Part> {
        let fits = CLASSES.into_iter().filter(|&class| bytes(class) <= self.cuda.shared_memory()).max();
        // Enough blocks for several on each multiprocessor.
        let least = (4 * self.cuda.multiprocessors()).div_ceil((self.heads as usize).max(1));
        self.on_device.lengths.parts(fits.expect("64 tokens fit everywhere"), least)
    }

    /// Elements from one row to the next in shared memory.
    fn stride(&self) -> usize {
        (self.head_size as usize).next_multiple_of(16) + 8
    }

    fn launch_texts(
        &self,
        source: &'static str,
        kernels: Classes,
        class: usize,
        texts: std::ops::Range<usize>,
        bytes: usize,
        rest: &[&dyn Argument],
    ) -> Result<()> {
        let place = CLASSES.iter().position(|&of| of == class).expect("one of the classes");
        let grid = Grid::blocks(texts.len() * self.heads as usize, 2 * class).with_shared(bytes);
        self.launch(source, kernels[place], grid, [&self.on_device.lengths.list, &(texts.start as i32)], rest)
    }

    fn launch_tiles(
        &self,
        source: &'static str,
        kernels: Tiles,
        [first, count]: [usize; 2],
        bytes: usize,
        rest: &[&dyn Argument],
    ) -> Result<()> {
        let kernel = kernels[usize::from(self.head_size > 64)];
        let grid = Grid::blocks(count * self.heads as usize, 2 * TILE).with_shared(bytes);
        self.launch(source, kernel, grid, [&self.on_device.lengths.list, &(first as i32)], rest)
    }

    fn launch_rows(
        &self,
        kernel: &'static str,
        texts: RowLayout,
        rows: usize,
        rest: &[&dyn Argument],
    ) -> Result<()> {
        let texts = (texts == RowLayout::Tokens).then_some(&self.on_device.text_of_token);
        let grid = Grid::blocks((rows * self.heads as usize).div_ceil(ROWS), 32 * ROWS);
        self.launch("attention_rows", kernel, grid, [&texts, &(rows as i32)], rest)
    }

    /// Launches a kernel: operands, which of them it is for, shape and dropout, then the rest.
    fn launch(
        &self,
        source: &'static str,
        kernel: &'static str,
        grid: Grid,
        [list, first]: [&dyn Argument; 2],
        rest: &[&dyn Argument],
    ) -> Result<()> {
        let keys = self.keys.as_ref();
        let [q, k, v] = self.qkv.each_ref().map(|x| x.buffer());
        let common: [&dyn Argument; 12] = [
            q,
            k,
            v,
            &self.on_device.offsets,
            list,
            first,
            &self.heads,
            &self.head_size,
            &self.scale,
            &keys,
            &self.threshold,
            &self.factor,
        ];
        let arguments: Vec<&dyn Argument> = common.into_iter().chain(rest.iter().copied()).collect();
        self.cuda.launch(source, self.cuda.storage(), kernel, grid, &arguments)
    }
}
