//! int8 attention on every row of the table, against integers and exponentials of our own in f64.

mod harness;

use harness::{Guarded, Random, rows};
use limbeck_kernels::Kernels;
use limbeck_kernels::rows::AttentionArgs;

struct Case {
    len: usize,
    queries: usize,
    heads: usize,
    head_size: usize,
    /// Rows of q, k and v, one behind the other.
    qkv: Vec<f32>,
}

impl Case {
    fn new(len: usize, queries: usize, heads: usize, head_size: usize) -> Case {
        let mut random = Random::new((len * 1000 + queries * 100 + heads * 10 + head_size) as u64);
        let mut qkv = random.normals(len * 3 * heads * head_size);
        qkv.iter_mut().for_each(|x| *x *= 1.5);
        Case { len, queries, heads, head_size, qkv }
    }

    fn width(&self) -> usize {
        self.heads * self.head_size
    }

    fn args(&self) -> AttentionArgs<'_> {
        let (width, stride) = (self.width(), 3 * self.width());
        AttentionArgs {
            q: &self.qkv,
            q_stride: stride,
            k: &self.qkv[width.min(self.qkv.len())..],
            k_stride: stride,
            v: &self.qkv[(2 * width).min(self.qkv.len())..],
            v_stride: stride,
            len: self.len,
            queries: self.queries,
            heads: self.heads,
            head_size: self.head_size,
            scale: 1.0 / (self.head_size as f32).sqrt(),
            dropout: None,
        }
    }

    fn context(&self, kernels: Kernels) -> Vec<f32> {
        let mut context = Guarded::new(self.queries * self.width());
        kernels.attention_int8(&self.args(), context.inside(), self.width());
        context.checked()
    }

    /// Row `i` of q (0), k (1) or v (2) in one head.
    fn row(&self, which: usize, i: usize, head: usize) -> &[f32] {
        &self.qkv[(3 * i + which) * self.width() + head * self.head_size..][..self.head_size]
    }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(1, 1, 1, 64),
        Case::new(900, 3, 1, 36),
        Case::new(130, 130, 2, 64),
        Case::new(64, 1, 12, 32),
    ];
    for len in [2, 3, 15, 16, 17, 31, 33, 47, 73] {
        cases.push(Case::new(len, len, 2, 32));
        cases.push(Case::new(len, len.div_ceil(2), 1, 7));
    }
    cases
}

/// The integers of some values, and the scale.
fn quantize(values: impl Iterator<Item = f32> + Clone) -> (Vec<i64>, f64) {
    let max = values.clone().fold(0.0f32, |max, x| max.max(x.abs()));
    let integers = values.map(|x| (x * (127.0 / max)).round_ties_even() as i64);
    (integers.collect(), f64::from(max / 127.0))
}

/// The largest distance between a context and one computed in f64, as a share of what may be: the weight of a
/// key whose 254·e^x lies within 1e-3 of a half may be rounded either way.
fn distance(case: &Case, context: &[f32], head: usize) -> f64 {
    let d = case.head_size;
    let keys: Vec<_> = (0..case.len).map(|j| quantize(case.row(1, j, head).iter().copied())).collect();
    let values: Vec<_> =
        (0..d).map(|f| quantize((0..case.len).map(move |j| case.row(2, j, head)[f]))).collect();
    let mut worst = 0.0f64;
    for i in 0..case.queries {
        let (query, query_scale) = quantize(case.row(0, i, head).iter().copied());
        let scores: Vec<f64> = keys
            .iter()
            .map(|(key, scale)| {
                let sum: i64 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                sum as f64 * scale * query_scale * f64::from(case.args().scale)
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exact: Vec<f64> = scores.iter().map(|score| 254.0 * (score - max).exp()).collect();
        let weights: Vec<f64> = exact.iter().map(|x| x.round_ties_even()).collect();
        let total: f64 = weights.iter().sum();
        for (f, (integers, scale)) in values.iter().enumerate() {
            let sum: f64 = weights.iter().zip(integers).map(|(p, v)| p * *v as f64).sum();
            let truth = sum / total;
            let either_way = |(x, v): (&f64, &i64)| {
                let doubtful = (x - x.floor() - 0.5).abs() <= 1e-3;
                if doubtful { (*v as f64 - truth).abs() / (total - 1.0) } else { 0.0 }
            };
            let doubt: f64 = exact.iter().zip(integers).map(either_way).sum();
            let found = f64::from(context[i * case.width() + head * d + f]) / scale;
            worst = worst.max((found - truth).abs() / (doubt + 1e-4));
            assert!(!found.is_nan());
        }
    }
    worst
}

#[test]
fn contexts_are_those_of_the_integers() {
    for case in cases() {
        for kernels in rows() {
            let context = case.context(kernels);
            for head in 0..case.heads {
                let worst = distance(&case, &context, head);
                let what = format!("{} len {} d {}", kernels.isa(), case.len, case.head_size);
                assert!(worst <= 1.0, "{what}: {worst} of what may be");
            }
        }
    }
}

#[test]
fn it_is_near_attention_in_floats() {
    for case in cases() {
        let kernels = rows()[0];
        let context = case.context(kernels);
        let mut exact = vec![0.0; context.len()];
        kernels.attention_forward(&case.args(), &mut exact, case.width(), &mut []);
        let square = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let difference: Vec<f32> = context.iter().zip(&exact).map(|(a, b)| a - b).collect();
        let relative = (square(&difference) / square(&exact)).sqrt();
        // Rounding of all operands to 1/127 of their largest, at scores of deviation 2; contexts of hundreds of random
        // values are small against each of them.
        assert!(relative <= 0.08, "len {} d {}: {relative}", case.len, case.head_size);
    }
}

#[test]
fn every_row_gives_the_same_bits() {
    for case in cases() {
        let bits =
            |kernels: Kernels| -> Vec<u32> { case.context(kernels).iter().map(|x| x.to_bits()).collect() };
        let rows = rows();
        let first = bits(rows[0]);
        assert!(rows[1..].iter().all(|&row| bits(row) == first), "len {} d {}", case.len, case.head_size);
    }
}

/// Scores so large that their rounding is more than e^x can bear: the largest still weighs 1, and its value is the context.
#[test]
fn the_largest_of_huge_scores_takes_all() {
    for size in [1e2f32, 1e4, 1e8, 1e15] {
        let mut case = Case::new(70, 70, 2, 32);
        case.qkv.chunks_mut(3 * 64).for_each(|row| row[..128].iter_mut().for_each(|x| *x *= size));
        let mut bits = Vec::new();
        for kernels in rows() {
            let context = case.context(kernels);
            bits.push(context.iter().map(|x| x.to_bits()).collect::<Vec<u32>>());
            for head in 0..2 {
                assert!(distance(&case, &context, head) <= 1.0, "{} at {size}", kernels.isa());
            }
        }
        assert!(bits.iter().all(|row| *row == bits[0]), "{size}");
    }
}

#[test]
fn nothing_nan_and_equal_keys() {
    for kernels in rows() {
        for case in [Case::new(5, 5, 0, 64), Case::new(3, 0, 2, 8)] {
            assert!(case.context(kernels).is_empty());
        }
        // A NaN in a query is a NaN row; in a key, or a value, it reaches what reads it.
        let mut case = Case::new(20, 20, 1, 32);
        case.qkv[3 * 96 + 5] = f32::NAN;
        let rows: Vec<bool> =
            case.context(kernels).chunks(32).map(|row| row.iter().all(|x| x.is_nan())).collect();
        assert!(rows.iter().enumerate().all(|(i, nan)| *nan == (i == 3)), "{rows:?}");
        for place in [3 * 96 + 32 + 5, 3 * 96 + 64 + 5] {
            let mut case = Case::new(20, 20, 1, 32);
            case.qkv[place] = f32::INFINITY;
            let context = case.context(kernels);
            let lost = if place < 3 * 96 + 64 { 0..32 } else { 5..6 };
            assert!(context.chunks(32).all(|row| row[lost.clone()].iter().all(|x| x.is_nan())), "{place}");
        }
        // Queries of zeros weigh all keys alike: the context is the mean.
        let mut case = Case::new(37, 2, 1, 16);
        case.qkv.chunks_mut(48).for_each(|row| row[..16].fill(0.0));
        for (f, found) in case.context(kernels)[..16].iter().enumerate() {
            let (integers, scale) = quantize((0..37).map(|j| case.row(2, j, 0)[f]));
            let mean = integers.iter().sum::<i64>() as f64 / 37.0 * scale;
            assert!((f64::from(*found) - mean).abs() <= 1e-5, "{found} for {mean}");
        }
    }
}

#[test]
fn strided_contexts_leave_the_gaps_alone() {
    for kernels in rows() {
        let case = Case::new(21, 21, 2, 20);
        let (dense, stride) = (case.context(kernels), 53);
        let mut context = vec![7.0; 20 * stride + 40];
        kernels.attention_int8(&case.args(), &mut context, stride);
        for (i, row) in context.chunks(stride).enumerate() {
            assert_eq!(row[..40], dense[i * 40..][..40]);
            assert!(row[40..].iter().all(|x| *x == 7.0));
        }
    }
}
