//! Relations: against the CPU, and gradients against finite differences of the value in f64.

use crate::device::*;
use limbeck::backend::cuda::Storage;
use limbeck::ops::relation::{Map, RelationOps, even};
use std::ops::Range;

const WEIGHT: f64 = 1.5;

/// From the first and the end of each range of columns.
fn map(student: &[[usize; 2]], teacher: &[[usize; 2]]) -> Map {
    let ranges = |ends: &[[usize; 2]]| ends.iter().map(|&[first, end]| first..end).collect();
    Map { student: ranges(student), teacher: ranges(teacher) }
}

/// The distribution of a row over the text's tokens.
fn distribution(
    a: &[f64],
    b: &[f64],
    width: usize,
    [row, first, len]: [usize; 3],
    columns: &Range<usize>,
) -> Vec<f64> {
    let scale = 1.0 / (columns.len().max(1) as f64).sqrt();
    let score =
        |key: usize| columns.clone().map(|c| a[row * width + c] * b[(first + key) * width + c]).sum::<f64>();
    let powers: Vec<f64> = (0..len).map(|key| (scale * score(key)).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

/// `L`, where a row of a is a token.
fn value(
    lengths: &[usize],
    student: [&[f64]; 2],
    teacher: [&[f64]; 2],
    widths: [usize; 2],
    maps: &[Map],
) -> f64 {
    let (mut sum, mut first) = (0.0, 0);
    for &len in lengths {
        for map in maps {
            for row in first..first + len {
                let mean = |[a, b]: [&[f64]; 2], width: usize, ranges: &[Range<usize>]| -> Vec<f64> {
                    let of = |columns| distribution(a, b, width, [row, first, len], columns);
                    let all: Vec<Vec<f64>> = ranges.iter().map(of).collect();
                    let share = |key: usize| all.iter().map(|p| p[key]).sum::<f64>() / all.len() as f64;
                    (0..len).map(share).collect()
                };
                let of_student = mean(student, widths[0], &map.student);
                let of_teacher = mean(teacher, widths[1], &map.teacher);
                sum += of_teacher.iter().zip(&of_student).map(|(q, p)| q * (q / p).ln()).sum::<f64>();
            }
        }
        first += len;
    }
    sum / (first * maps.len()) as f64
}

#[test]
fn as_on_the_cpu() {
    on_devices(&Storage::ALL, |cuda, what| {
        let (cpu, batch) = (cpu(), batch(&[1, 5, 40, 2, 70]));
        let (tokens, texts, widths) = (batch.tokens(), batch.texts(), [24, 16]);
        let each = even(24, 3).into_iter().zip(even(16, 3));
        let each = each.map(|(x, y)| Map { student: vec![x], teacher: vec![y] }).collect();
        let means = vec![
            Map { student: even(24, 3), teacher: even(16, 2) },
            map(&[[8, 16]], &[[0, 16]]),
            map(&[[0, 0], [0, 5]], &[[3, 3]]),
        ];
        // What has a row a token or a row a text: the student's a, the teacher's.
        let rows = [[tokens, tokens], [texts, texts], [texts, tokens]];
        for (maps, rows) in
            [&each, &means, &Vec::new()].into_iter().flat_map(|maps| rows.map(|rows| (maps, rows)))
        {
            let tensor = |seed, rows: usize, width: usize| {
                both(cuda, &cpu, &random(seed, rows * width, cuda.storage()), rows)
            };
            let (a, b) = (tensor(1, rows[0], widths[0]), tensor(2, tokens, widths[0]));
            let (c, d) = (tensor(3, rows[1], widths[1]), tensor(4, tokens, widths[1]));
            let (found, [da, db]) = cuda.relation(&batch, [&a.0, &b.0], [&c.0, &d.0], maps, WEIGHT).unwrap();
            let (expected, [da_on_cpu, db_on_cpu]) =
                cpu.relation(&batch, [&a.1, &b.1], [&c.1, &d.1], maps, WEIGHT).unwrap();
            let what = format!("{what}, {} maps, {rows:?} rows", maps.len());
            // Probabilities of up to 24 columns and 70 keys in f32, whose differences from each other are what counts.
            assert!((found - expected).abs() <= 1e-6, "{what}: {found}, not {expected}");
            assert!(maps.is_empty() || expected > 1e-3, "{what}: nothing to compare");
            let bound = 1e-5 + rounding(cuda.storage());
            same(cuda, &cpu, &da, &da_on_cpu, bound, &what);
            same(cuda, &cpu, &db, &db_on_cpu, bound, &what);
        }
    });
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let (lengths, widths) = ([3, 1, 4], [7, 5]);
    let batch = batch(&lengths);
    let tokens = batch.tokens();
    let maps = [
        map(&[[0, 3], [3, 7]], &[[0, 5]]),
        map(&[[2, 7]], &[[0, 2], [2, 5]]),
        map(&[[0, 0], [1, 3]], &[[4, 5]]),
    ];
    let given =
        [(1, 7), (2, 7), (3, 5), (4, 5)].map(|(seed, width)| random(seed, tokens * width, Storage::F32));
    let wide = given.each_ref().map(|x| x.iter().map(|x| 2.0 * f64::from(*x)).collect::<Vec<f64>>());
    let value = |x: &[Vec<f64>; 4]| value(&lengths, [&x[0], &x[1]], [&x[2], &x[3]], widths, &maps);
    let step = 1e-5;
    let slopes = [0, 1].map(|which| -> Vec<f32> {
        let slope = |i: usize| {
            let shifted = |by: f64| {
                let mut x = wide.clone();
                x[which][i] += by;
                value(&x)
            };
            (WEIGHT * (shifted(step) - shifted(-step)) / (2.0 * step)) as f32
        };
        (0..wide[which].len()).map(slope).collect()
    });
    on_devices(&[Storage::F32], |cuda, what| {
        let [a, b, c, d] = wide.each_ref().map(|x| {
            let x: Vec<f32> = x.iter().map(|x| *x as f32).collect();
            both(cuda, &cpu(), &x, tokens).0
        });
        let (found, gradients) = cuda.relation(&batch, [&a, &b], [&c, &d], &maps, WEIGHT).unwrap();
        let expected = value(&wide);
        assert!((found - expected).abs() <= 1e-6 * expected, "{what}: {found}, not {expected}");
        for (found, slopes) in gradients.iter().zip(&slopes) {
            assert_close(&found.download(cuda).unwrap(), slopes, 5e-6, what);
        }
    });
}
