//! Relations on the CPU: one task a text, summed in the order of the texts. The distributions come from attention's
//! own kernel; a text's are few enough to be written out.

use super::{Map, RelationOps};
use crate::backend::Cpu;
use crate::backend::cpu::threads::split_rows;
use crate::tensor::Tensor;
use crate::{Batch, Result};
use limbeck_kernels::Kernels;
use limbeck_kernels::rows::AttentionArgs;
use rayon::prelude::*;
use std::ops::Range;

impl RelationOps for Cpu {
    fn relation(
        &self,
        batch: &Batch,
        student: [&Tensor<Self>; 2],
        teacher: [&Tensor<Self>; 2],
        maps: &[Map],
        weight: f64,
    ) -> Result<(f64, [Tensor<Self>; 2])> {
        let [rows, keys] = student.map(Tensor::rows);
        let terms = (rows * maps.len()).max(1) as f64;
        let mut gradients = student.map(|x| self.zeroed(x.shape().len()));
        let [da, db] = &mut gradients;
        let width = student[0].cols();
        let rows_of = |rows: usize| (0..batch.texts()).map(move |text| batch.rows_of(text, rows));
        let das = split_rows(da, width, rows_of(rows));
        let dbs = split_rows(db, width, rows_of(keys));
        let texts = das.into_par_iter().zip(dbs).enumerate();
        let of_text = |(text, (da, db)): (usize, (&mut [f32], &mut [f32]))| -> f64 {
            let queries = batch.rows_of(text, rows).len();
            let student = Operands::of(batch, text, student, queries);
            let teacher = Operands::of(batch, text, teacher, queries);
            let of_map = |map: &Map| {
                let mut pair = Gradients { da, db, slope: weight / terms };
                divergence(self.kernels(), [&student, &teacher], map, &mut pair)
            };
            maps.iter().map(of_map).sum()
        };
        let sums: Vec<f64> = texts.map(of_text).collect();
        let [a, b] = student.map(Tensor::shape);
        let [da, db] = gradients;
        Ok((sums.into_iter().sum::<f64>() / terms, [Tensor::from_buffer(da, a), Tensor::from_buffer(db, b)]))
    }
}

/// One text's rows of both operands.
struct Operands<'a> {
    a: &'a [f32],
    b: &'a [f32],
    width: usize,
    queries: usize,
    len: usize,
}

impl<'a> Operands<'a> {
    /// The text's rows, of `a` the first `queries`.
    fn of(batch: &Batch, text: usize, [a, b]: [&'a Tensor<Cpu>; 2], queries: usize) -> Operands<'a> {
        let (width, keys) = (a.cols(), batch.text(text));
        let first = batch.rows_of(text, a.rows()).start;
        Operands {
            a: &a.buffer()[first * width..(first + queries) * width],
            b: &b.buffer()[keys.start * width..keys.end * width],
            width,
            queries,
            len: keys.len(),
        }
    }

    /// The distribution of each row over the text's tokens, from these columns: `[queries, len]`.
    fn probabilities(&self, kernels: Kernels, columns: &Range<usize>) -> Vec<f32> {
        let mut out = vec![1.0 / self.len as f32; self.queries * self.len];
        if !columns.is_empty() {
            let (a, b) = (&self.a[columns.start..], &self.b[columns.start..]);
            let args = AttentionArgs {
                q: a,
                q_stride: self.width,
                k: b,
                k_stride: self.width,
                v: b,
                v_stride: self.width,
                len: self.len,
                queries: self.queries,
                heads: 1,
                head_size: columns.len(),
                scale: scale(columns),
                dropout: None,
            };
            kernels.attention_probabilities(&args, 0, &mut out);
        }
        out
    }
}

fn scale(columns: &Range<usize>) -> f32 {
    1.0 / (columns.len() as f32).sqrt()
}

/// Where one text's gradients are added, and by how much they are multiplied.
struct Gradients<'a> {
    da: &'a mut [f32],
    db: &'a mut [f32],
    slope: f64,
}

/// Σ over rows of KL(teacher ‖ student) for one map.
fn divergence(
    kernels: Kernels,
    [student, teacher]: [&Operands<'_>; 2],
    map: &Map,
    into: &mut Gradients<'_>,
) -> f64 {
    let all = |operands: &Operands<'_>, ranges: &[Range<usize>]| -> Vec<Vec<f32>> {
        ranges.iter().map(|columns| operands.probabilities(kernels, columns)).collect()
    };
    let (of_student, of_teacher) = (all(student, &map.student), all(teacher, &map.teacher));
    let (mine, target) = (mean(&of_student), mean(&of_teacher));
    // A probability that underflows is the smallest number there is: what it costs stays finite.
    let log = |p: f32| f64::from(p.max(f32::MIN_POSITIVE)).ln();
    let costs = target.iter().zip(&mine).map(|(&q, &p)| f64::from(q) * (log(q) - log(p)));
    let cost = costs.sum();
    for (columns, probabilities) in map.student.iter().zip(&of_student) {
        let slope = into.slope * f64::from(scale(columns)) / of_student.len() as f64;
        add_gradient(student, columns, [probabilities, &mine, &target], slope as f32, into);
    }
    cost
}

/// Adds what one distribution of the student's (`[queries, len]`) has to do with the cost: `[p, P, Q]` are it, the mean
/// that it is a part of, and the teacher's.
fn add_gradient(
    student: &Operands<'_>,
    columns: &Range<usize>,
    [p, mean, target]: [&[f32]; 3],
    slope: f32,
    into: &mut Gradients<'_>,
) {
    if columns.is_empty() {
        return;
    }
    let (len, width) = (student.len, student.width);
    let of = |row: usize| row * width + columns.start..row * width + columns.end;
    let mut ds = vec![0.0; len];
    for query in 0..student.queries {
        let row = query * len..(query + 1) * len;
        let (p, mean, target) = (&p[row.clone()], &mean[row.clone()], &target[row]);
        // p / P first: it is a small number, whatever has underflowed.
        for (ds, ((p, mean), target)) in ds.iter_mut().zip(p.iter().zip(mean).zip(target)) {
            *ds = -target * if *mean > 0.0 { p / mean } else { 1.0 };
        }
        let sum: f32 = ds.iter().sum();
        ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = slope * (*ds - p * sum));
        let a = &student.a[of(query)];
        let da = &mut into.da[of(query)];
        for (key, ds) in ds.iter().enumerate() {
            let (b, db) = (&student.b[of(key)], &mut into.db[of(key)]);
            da.iter_mut().zip(b).for_each(|(da, b)| *da += ds * b);
            db.iter_mut().zip(a).for_each(|(db, a)| *db += ds * a);
        }
    }
}

/// The mean of equally long rows.
fn mean(all: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = all.first().cloned().unwrap_or_default();
    for one in all.iter().skip(1) {
        mean.iter_mut().zip(one).for_each(|(mean, one)| *mean += one);
    }
    if all.len() > 1 {
        let share = 1.0 / all.len() as f32;
        mean.iter_mut().for_each(|mean| *mean *= share);
    }
    mean
}
