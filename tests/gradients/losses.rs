//! Losses between two networks' tensors against central differences of f64 oracles.

use crate::harness::{LENGTHS, TEXTS, TOKENS, batch, close, random, slopes};
use limbeck::backend::Cpu;
use limbeck::ops::cosine::CosineOps;
use limbeck::ops::mean_square::MeanSquareOps;
use limbeck::ops::relation::{Map, RelationOps, even};
use limbeck::tensor::{Shape, Tensor};
use limbeck_kernels::Kernels;

const WEIGHT: f64 = 0.7;

fn tensor(cpu: &Cpu, values: &[f32], rows: usize) -> Tensor<Cpu> {
    Tensor::upload(cpu, values, Shape::new(rows, values.len() / rows)).unwrap()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// `WEIGHT` times the derivatives of `loss` by each element of `leaves[leaf]`.
fn weighted(leaves: &[Vec<f64>], leaf: usize, loss: &dyn Fn(&[Vec<f64>]) -> f64) -> Vec<f64> {
    slopes(leaves, leaf, loss).iter().map(|slope| WEIGHT * slope).collect()
}

/// Slopes are small where a loss is a mean of many terms: compared as shares of the largest.
fn same(what: &str, found: &[f32], expected: &[f64]) {
    let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    assert!(largest > 0.0, "{what}: a loss with a slope");
    let found: Vec<f32> = found.iter().map(|x| (f64::from(*x) / largest) as f32).collect();
    let expected: Vec<f64> = expected.iter().map(|x| x / largest).collect();
    close(what, &found, &expected);
}

type DeviceBatch<'a> = dyn Fn(&Cpu, &Tensor<Cpu>, &Tensor<Cpu>) -> (f64, Tensor<Cpu>) + 'a;

fn check_states(what: &str, device: &DeviceBatch<'_>, oracle: &dyn Fn(&[f64], &[f64]) -> f64) {
    let [x, y] = [1, 2].map(|key| random(key, TOKENS * 5));
    let leaves = [wide(&x), wide(&y)];
    let loss = |leaves: &[Vec<f64>]| oracle(&leaves[0], &leaves[1]);
    let expected = weighted(&leaves, 0, &loss);
    for kernels in Kernels::available() {
        let cpu = Cpu::new(kernels);
        let (value, gradient) = device(&cpu, &tensor(&cpu, &x, TOKENS), &tensor(&cpu, &y, TOKENS));
        assert!((value - loss(&leaves)).abs() <= 1e-6, "{what}: {value} for {}", loss(&leaves));
        same(&format!("{what} on {}", kernels.isa()), &gradient.download(&cpu).unwrap(), &expected);
        // At the teacher's own state there is nothing to learn.
        let (value, gradient) = device(&cpu, &tensor(&cpu, &y, TOKENS), &tensor(&cpu, &y, TOKENS));
        assert!(value.abs() <= 1e-9, "{what}: {value}");
        assert!(gradient.download(&cpu).unwrap().iter().all(|dx| dx.abs() <= 1e-7), "{what}");
    }
}

#[test]
fn mean_squares() {
    let oracle =
        |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum::<f64>() / x.len() as f64;
    check_states("mean square", &|cpu, x, y| cpu.mean_square(x, y, WEIGHT).unwrap(), &oracle);
}

#[test]
fn cosines() {
    let oracle = |x: &[f64], y: &[f64]| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let rows = x.chunks(5).zip(y.chunks(5));
        rows.map(|(x, y)| 1.0 - dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()).sum::<f64>() / TOKENS as f64
    };
    check_states("cosine", &|cpu, x, y| cpu.cosine(x, y, WEIGHT).unwrap(), &oracle);
    // A row that points nowhere.
    let cpu = Cpu::new(Kernels::select().unwrap());
    let (x, y) = (tensor(&cpu, &[0.0; 4], 2), tensor(&cpu, &[1.0; 4], 2));
    let (value, gradient) = cpu.cosine(&x, &y, 1.0).unwrap();
    assert_eq!((value, gradient.download(&cpu).unwrap()), (1.0, vec![0.0; 4]));
}

/// Rows of a text's distribution over its tokens, from some columns: `a` has `queries` rows of the text, from `first`.
fn distribution(
    a: (&[f64], usize),
    b: (&[f64], usize),
    [width, queries, len]: [usize; 3],
    columns: &std::ops::Range<usize>,
) -> Vec<f64> {
    let mut all = Vec::new();
    for query in 0..queries {
        let dot = |key: usize| -> f64 {
            let at = |x: (&[f64], usize), row: usize, c: usize| x.0[(x.1 + row) * width + c];
            columns.clone().map(|c| at(a, query, c) * at(b, key, c)).sum()
        };
        let scale = (columns.len().max(1) as f64).sqrt();
        let weights: Vec<f64> = (0..len).map(|key| (dot(key) / scale).exp()).collect();
        let sum: f64 = weights.iter().sum();
        all.extend(weights.iter().map(|weight| weight / sum));
    }
    all
}

/// The divergence by its definition; operands are `[a, b]` of the student, then of the teacher.
fn divergence(leaves: &[Vec<f64>], [mine, theirs]: [usize; 2], maps: &[Map], rows: [usize; 2]) -> f64 {
    let (mut sum, mut first) = (0.0, 0);
    for (text, len) in LENGTHS.into_iter().enumerate() {
        let of = |rows: usize| if rows == TOKENS { first } else { text };
        let queries = if rows[0] == TOKENS { len } else { 1 };
        for map in maps {
            let mean = |a: usize, width: usize, rows: usize, ranges: &[std::ops::Range<usize>]| {
                let mut mean = vec![0.0; queries * len];
                for columns in ranges {
                    let p = distribution(
                        (&leaves[a], of(rows)),
                        (&leaves[a + 1], first),
                        [width, queries, len],
                        columns,
                    );
                    mean.iter_mut().zip(p).for_each(|(mean, p)| *mean += p / ranges.len() as f64);
                }
                mean
            };
            let p = mean(0, mine, rows[0], &map.student);
            let q = mean(2, theirs, rows[1], &map.teacher);
            sum += q.iter().zip(&p).map(|(q, p)| q * (q / p).ln()).sum::<f64>();
        }
        first += len;
    }
    sum / (rows[0] * maps.len()) as f64
}

#[test]
fn relations_of_heads_of_their_mean_and_of_other_widths() {
    let one = |student, teacher| Map { student: vec![student], teacher: vec![teacher] };
    let heads = vec![one(0..3, 4..8), one(3..6, 0..4)];
    let averaged = vec![Map { student: even(6, 2), teacher: even(8, 4) }];
    let uneven: Vec<Map> = even(6, 4).into_iter().zip(even(8, 4)).map(|(s, t)| one(s, t)).collect();
    // The first range of two columns in three parts has none.
    let narrow: Vec<Map> = even(2, 3).into_iter().zip(even(8, 3)).map(|(s, t)| one(s, t)).collect();
    for (name, width, maps) in [
        ("heads", 6, heads),
        ("a mean of heads", 6, averaged),
        ("parts", 6, uneven),
        ("few columns", 2, narrow),
    ] {
        for rows in [[TOKENS, TOKENS], [TEXTS, TOKENS], [TEXTS, TEXTS]] {
            let shapes = [(rows[0], width), (TOKENS, width), (rows[1], 8), (TOKENS, 8)];
            let values: Vec<Vec<f32>> = shapes
                .iter()
                .zip(11..)
                .map(|((rows, cols), key)| random(key, rows * cols).iter().map(|x| 2.0 * x).collect())
                .collect();
            let leaves: Vec<Vec<f64>> = values.iter().map(|leaf| wide(leaf)).collect();
            let loss = |leaves: &[Vec<f64>]| divergence(leaves, [width, 8], &maps, rows);
            let expected = [0, 1].map(|leaf| weighted(&leaves, leaf, &loss));
            for kernels in Kernels::available() {
                let (cpu, what) = (Cpu::new(kernels), format!("{name}, {rows:?} on {}", kernels.isa()));
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| tensor(&cpu, &values[i], shapes[i].0));
                let (value, gradients) = cpu.relation(&batch(), [&a, &b], [&c, &d], &maps, WEIGHT).unwrap();
                assert!((value - loss(&leaves)).abs() <= 1e-6, "{what}: {value} for {}", loss(&leaves));
                for (gradient, expected) in gradients.iter().zip(&expected) {
                    same(&what, &gradient.download(&cpu).unwrap(), expected);
                }
            }
        }
    }
}
