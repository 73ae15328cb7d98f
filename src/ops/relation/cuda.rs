//! Relations on a GPU, map by map: `relation.cu`.

use super::{Map, RelationOps};
use crate::backend::Cuda;
use crate::backend::Device;
use crate::backend::cuda::{Argument, Buffer, DeviceBatch, Grid, Memory, RowLayout, Storage};
use crate::tensor::Tensor;
use crate::{Batch, Result};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Warps of a block, each of which has a row.
const ROWS: usize = 4;

impl RelationOps for Cuda {
    fn relation(
        &self,
        batch: &Batch,
        student: [&Tensor<Self>; 2],
        teacher: [&Tensor<Self>; 2],
        maps: &[Map],
        weight: f64,
    ) -> Result<(f64, [Tensor<Self>; 2])> {
        let call = Call::new(self, batch, student, teacher)?;
        let terms = (call.rows * maps.len()).max(1) as f64;
        let zeros = |like: &Tensor<Self>| -> Result<Tensor<Self>> {
            Ok(Tensor::from_buffer(self.zeros(like.shape().len())?, like.shape()))
        };
        let (mut da, mut db) = (zeros(student[0])?, zeros(student[1])?);
        let costs = self.memory(batch.texts() * size_of::<f64>())?;
        for (place, map) in maps.iter().enumerate() {
            call.map(map, weight / terms, place > 0, &costs, [da.buffer_mut(), db.buffer_mut()])?;
        }
        let costs: Vec<f64> =
            if maps.is_empty() { Vec::new() } else { self.download_all(&costs, batch.texts())? };
        let gradients = [self.activation(&da)?.into_owned(), self.activation(&db)?.into_owned()];
        Ok((costs.into_iter().sum::<f64>() / terms, gradients))
    }
}

/// The operands of one of the two networks.
struct Operands<'a> {
    a: Cow<'a, Tensor<Cuda>>,
    b: Cow<'a, Tensor<Cuda>>,
    queries: RowLayout,
}

impl<'a> Operands<'a> {
    fn new(cuda: &'a Cuda, batch: &Batch, [a, b]: [&'a Tensor<Cuda>; 2]) -> Result<Operands<'a>> {
        let queries = RowLayout::of(batch, a.rows());
        Ok(Operands { a: cuda.activation(a)?, b: cuda.activation(b)?, queries })
    }

    fn width(&self) -> i32 {
        self.a.cols() as i32
    }

    /// Whether a has a row for each token, for kernels.
    fn tokens(&self) -> i32 {
        i32::from(self.queries == RowLayout::Tokens)
    }
}

/// Sums of distributions, and what makes them means.
struct Mean {
    sums: Buffer,
    share: f32,
}

struct Call<'a> {
    cuda: &'a Cuda,
    on_device: Arc<DeviceBatch>,
    texts: usize,
    student: Operands<'a>,
    teacher: Operands<'a>,
    /// Rows of the student's a.
    rows: usize,
    /// Elements from one row of probabilities to the next: the tokens of the longest text.
    stride: usize,
}

impl<'a> Call<'a> {
    fn new(
        cuda: &'a Cuda,
        batch: &Batch,
        student: [&'a Tensor<Cuda>; 2],
        teacher: [&'a Tensor<Cuda>; 2],
    ) -> Result<Call<'a>> {
        Ok(Call {
            cuda,
            on_device: cuda.batch(batch)?,
            texts: batch.texts(),
            rows: student[0].rows(),
            stride: (0..batch.texts()).map(|text| batch.text(text).len()).max().unwrap_or(0),
            student: Operands::new(cuda, batch, student)?,
            teacher: Operands::new(cuda, batch, teacher)?,
        })
    }

    /// Adds what one map costs and its gradients.
    fn map(
        &self,
        map: &Map,
        slope: f64,
        accumulate: bool,
        costs: &Memory,
        [da, db]: [&mut Buffer; 2],
    ) -> Result<()> {
        let (of_student, mean) = self.distributions(&self.student, &map.student, true)?;
        let (_, target) = self.distributions(&self.teacher, &map.teacher, false)?;
        let arguments: [&dyn Argument; 9] = [
            &mean.sums,
            &mean.share,
            &target.sums,
            &target.share,
            &self.on_device.offsets,
            &self.student.tokens(),
            &(self.stride as i32),
            &i32::from(accumulate),
            costs,
        ];
        let grid = Grid::blocks(self.texts, 128);
        self.cuda.launch("relation", self.cuda.storage(), "relation_cost", grid, &arguments)?;
        for (columns, p) in map.student.iter().zip(&of_student).filter(|(columns, _)| !columns.is_empty()) {
            let slope = slope * f64::from(scale(columns)) / map.student.len() as f64;
            self.gradients(columns, p, [&mean, &target], slope as f32, [&mut *da, &mut *db])?;
        }
        Ok(())
    }

    /// The distribution from each of these ranges of columns, if all are to be kept, else the last one; and their sum.
    fn distributions(
        &self,
        of: &Operands<'_>,
        ranges: &[Range<usize>],
        all: bool,
    ) -> Result<(Vec<Buffer>, Mean)> {
        let buffer = || self.cuda.buffer(self.rows * self.stride, Storage::F32);
        let mean = Mean { sums: buffer()?, share: 1.0 / ranges.len() as f32 };
        let mut distributions = Vec::new();
        for (place, columns) in ranges.iter().enumerate() {
            if all || place == 0 {
                distributions.push(buffer()?);
            }
            let arguments: [&dyn Argument; 14] = [
                of.a.buffer(),
                of.b.buffer(),
                &self.on_device.offsets,
                &self.texts_of_rows(),
                &(self.rows as i32),
                &of.tokens(),
                &of.width(),
                &(columns.start as i32),
                &(columns.len() as i32),
                &scale(columns),
                &(self.stride as i32),
                &i32::from(place > 0),
                distributions.last().expect("one at least"),
                &mean.sums,
            ];
            self.launch("relation_probabilities", self.rows, &arguments)?;
        }
        Ok((distributions, mean))
    }

    /// Adds what one distribution of the student's has to do with the cost; it is overwritten.
    fn gradients(
        &self,
        columns: &Range<usize>,
        p: &Buffer,
        [mean, target]: [&Mean; 2],
        slope: f32,
        [da, db]: [&mut Buffer; 2],
    ) -> Result<()> {
        let (offsets, texts) = (&self.on_device.offsets, self.texts_of_rows());
        let (rows, stride) = (self.rows as i32, self.stride as i32);
        let (column, count) = (columns.start as i32, columns.len() as i32);
        let (width, tokens) = (self.student.width(), self.student.tokens());
        let (a, b) = (self.student.a.buffer(), self.student.b.buffer());
        let arguments: [&dyn Argument; 10] = [
            p,
            &mean.sums,
            &mean.share,
            &target.sums,
            &target.share,
            offsets,
            &texts,
            &rows,
            &stride,
            &slope,
        ];
        self.launch("relation_slopes", self.rows, &arguments)?;
        let arguments: [&dyn Argument; 10] =
            [p, b, offsets, &texts, &rows, &width, &column, &count, &stride, da];
        self.launch("relation_queries", self.rows, &arguments)?;
        let (keys, of_tokens) = (self.student.b.rows(), &self.on_device.text_of_token);
        let arguments: [&dyn Argument; 11] =
            [p, a, offsets, of_tokens, &(keys as i32), &tokens, &width, &column, &count, &stride, db];
        self.launch("relation_keys", keys, &arguments)
    }

    /// The texts of the student's rows; none where each text has one.
    fn texts_of_rows(&self) -> Option<&Memory> {
        (self.student.queries == RowLayout::Tokens).then_some(&self.on_device.text_of_token)
    }

    fn launch(&self, kernel: &'static str, rows: usize, arguments: &[&dyn Argument]) -> Result<()> {
        let grid = Grid::blocks(rows.div_ceil(ROWS), 32 * ROWS);
        self.cuda.launch("relation", self.cuda.storage(), kernel, grid, arguments)
    }
}

/// What scores are multiplied by; those of no columns are zero.
fn scale(columns: &Range<usize>) -> f32 {
    1.0 / (columns.len().max(1) as f32).sqrt()
}
