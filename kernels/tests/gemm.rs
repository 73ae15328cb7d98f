//! Matrix products of every row against f64 sums (floats) and 64-bit sums (int8).

mod harness;

use harness::{Guarded, Random, rows};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{End, Matrix, PackedI8, PackedMatrix, Precision};
use limbeck_kernels::gemm::{pack_i8, packed_i8_len, packed_i8_sums};

/// m, n, k: edges of the tiles (3, 4, 6, 12 rows; 16, 32 columns), of the blocks of k (192 words: 192 elements in
/// f32, 384 in bf16, 768 in int8) and of m, primes, the models' own shapes and pruned ones (7 heads, 1907 units).
const SHAPES: &[[usize; 3]] = &[
    [0, 5, 7],
    [5, 0, 7],
    [5, 7, 0],
    [1, 1, 1],
    [1, 2, 3],
    [2, 17, 127],
    [3, 15, 128],
    [4, 16, 129],
    [5, 31, 2],
    [6, 32, 4],
    [7, 33, 255],
    [11, 47, 256],
    [12, 48, 257],
    [13, 49, 5],
    [23, 64, 64],
    [24, 65, 31],
    [25, 97, 101],
    [97, 40, 67],
    [193, 3, 33],
    [50, 384, 384],
    [13, 448, 768],
    [13, 768, 448],
    [5, 1907, 768],
    [3, 768, 1907],
    [2, 3072, 768],
    [2, 768, 3072],
    [7, 18, 191],
    [4, 33, 192],
    [13, 34, 193],
    [5, 17, 383],
    [12, 32, 385],
    [3, 19, 386],
    [14, 20, 577],
    [6, 35, 767],
    [13, 16, 769],
    [9, 37, 1537],
    [521, 35, 513],
    [60, 20, 1601],
];

/// The product in f64, and the magnitudes Σ|a·b| that its rounding errors are proportional to.
fn oracle(a: &[f32], b: &[f32], [m, n, k]: [usize; 3], start: &[f64]) -> Vec<(f64, f64)> {
    let mut c: Vec<_> = start.iter().map(|&x| (x, x.abs())).collect();
    for i in 0..m {
        for p in 0..k {
            let a = f64::from(a[i * k + p]);
            for j in 0..n {
                let product = a * f64::from(b[p * n + j]);
                c[i * n + j].0 += product;
                c[i * n + j].1 += product.abs();
            }
        }
    }
    c
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|index| x[index % rows * cols + index / rows]).collect()
}

/// A product with every orientation that training uses, into rows of `c` that are `stride` apart.
struct Case {
    shape: [usize; 3],
    a: Vec<f32>,
    b: Vec<f32>,
    bias: Vec<f32>,
    before: Vec<f32>,
    stride: usize,
}

impl Case {
    fn new(shape: [usize; 3]) -> Self {
        let [m, n, k] = shape;
        let mut random = Random::new(1 + (m * 31 + n * 17 + k) as u64);
        let stride = n + 3;
        Case {
            shape,
            a: random.floats(m * k),
            b: random.floats(k * n),
            bias: random.floats(n),
            before: random.floats((m * stride).saturating_sub(3)),
            stride,
        }
    }

    fn start(&self, bias: bool, accumulate: bool) -> Vec<f64> {
        let [m, n, _] = self.shape;
        let from = |use_it: bool, x: f32| if use_it { f64::from(x) } else { 0.0 };
        (0..m * n)
            .map(|at| {
                from(bias, self.bias[at % n]) + from(accumulate, self.before[at / n * self.stride + at % n])
            })
            .collect()
    }

    fn run(
        &self,
        kernels: Kernels,
        precision: Precision,
        turned: [bool; 2],
        bias: bool,
        accumulate: bool,
    ) -> Vec<f32> {
        let [m, n, k] = self.shape;
        let (a_turned, b_turned) = (transposed(&self.a, m, k), transposed(&self.b, k, n));
        let a = if turned[0] { Matrix::new(&a_turned, k, m).transpose() } else { Matrix::new(&self.a, m, k) };
        let b = if turned[1] { Matrix::new(&b_turned, n, k).transpose() } else { Matrix::new(&self.b, k, n) };
        let mut packed = PackedMatrix::new(precision, 3, 50);
        packed.resize(k, n);
        // Two groups, as two threads would pack them.
        for mut panels in packed.split_mut(packed.panels().div_ceil(2).max(1)) {
            kernels.pack(b, &mut panels);
        }
        let mut c = Guarded::of(&self.before);
        let end = End { bias: bias.then_some(&self.bias[..]), accumulate };
        kernels.gemm(a, &packed, end, c.inside(), self.stride);
        let c = c.checked();
        let untouched = |at: &usize| at % self.stride >= n;
        for at in (0..c.len()).filter(untouched) {
            assert_eq!(c[at].to_bits(), self.before[at].to_bits(), "wrote between the rows of c");
        }
        (0..m * n).map(|at| c[at / n * self.stride + at % n]).collect()
    }
}

const WAYS: [([bool; 2], bool, bool); 5] = [
    ([false, true], true, false),
    ([false, false], false, false),
    ([true, false], false, true),
    ([true, true], true, true),
    ([false, true], false, true),
];

#[test]
fn floats_are_near_the_f64_product() {
    for kernels in rows() {
        for precision in [Precision::F32, Precision::Bf16] {
            for &shape in SHAPES {
                let case = Case::new(shape);
                for (turned, bias, accumulate) in WAYS {
                    let expected = oracle(&case.a, &case.b, shape, &case.start(bias, accumulate));
                    let c = case.run(kernels, precision, turned, bias, accumulate);
                    // k products and two more sums round once each; bf16 rounds both operands before.
                    let steps = (shape[2] + 3) as f64 * f64::from(f32::EPSILON);
                    let operands = if precision == Precision::Bf16 { 2.01 * 2f64.powi(-8) } else { 0.0 };
                    for (at, (&c, (value, magnitude))) in c.iter().zip(expected).enumerate() {
                        let error = (f64::from(c) - value).abs();
                        let bound = (steps + operands) * magnitude;
                        let isa = kernels.isa();
                        assert!(
                            error <= bound,
                            "{isa} {precision:?} {shape:?} {turned:?} [{at}]: {c} for {value}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn f32_is_the_same_on_every_row_and_for_every_split() {
    let rows = rows();
    for &shape in SHAPES {
        let case = Case::new(shape);
        let bits = |c: Vec<f32>| c.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        for (turned, bias, accumulate) in WAYS {
            let all: Vec<_> = rows
                .iter()
                .map(|&kernels| bits(case.run(kernels, Precision::F32, turned, bias, accumulate)))
                .collect();
            assert!(all.iter().all(|c| *c == all[0]), "{shape:?}: the rows of the table differ");
        }
        let [m, n, k] = shape;
        let kernels = rows[0];
        let mut packed = PackedMatrix::new(Precision::F32, k, n);
        kernels.pack(Matrix::new(&case.b, k, n), &mut packed.panels_mut());
        let mut c = vec![0.0; m * n];
        for first in (0..m).step_by(5) {
            let rows = first..m.min(first + 5);
            kernels.gemm(
                Matrix::new(&case.a, m, k).rows(rows),
                &packed,
                End::default(),
                &mut c[first * n..],
                n,
            );
        }
        assert_eq!(bits(c), bits(case.run(kernels, Precision::F32, [false; 2], false, false)), "{shape:?}");
    }
}

/// bf16 products of numbers that bf16 holds are exact as long as f32 can hold the sums.
#[test]
fn bf16_is_exact_on_small_integers() {
    for kernels in rows() {
        for &shape in SHAPES {
            let mut case = Case::new(shape);
            for x in case.a.iter_mut().chain(&mut case.b).chain(&mut case.bias).chain(&mut case.before) {
                *x = (*x * 15.0).round();
            }
            for (turned, bias, accumulate) in WAYS {
                let expected = oracle(&case.a, &case.b, shape, &case.start(bias, accumulate));
                let c = case.run(kernels, Precision::Bf16, turned, bias, accumulate);
                assert!(c.iter().zip(expected).all(|(&c, (value, _))| f64::from(c) == value), "{shape:?}");
            }
        }
    }
}

/// Rounding to bf16 is to nearest even, and neither loses a NaN nor makes an infinity finite.
#[test]
fn bf16_rounds_to_nearest_even() {
    let x = |bits: u32| f32::from_bits(bits);
    let cases = [
        (x(0x3f80_8000), x(0x3f80_0000)),
        (x(0x3f81_8000), x(0x3f82_0000)),
        (x(0x3f80_8001), x(0x3f81_0000)),
        (x(0xbf80_7fff), x(0xbf80_0000)),
        (f32::INFINITY, f32::INFINITY),
        (f32::MAX, f32::INFINITY),
        (x(0x7f80_0001), f32::NAN),
        (x(0xffff_ffff), f32::NAN),
    ];
    for kernels in rows() {
        for (from, to) in cases {
            for swapped in [false, true] {
                let (a, b) = if swapped { (from, 1.0) } else { (1.0, from) };
                let mut packed = PackedMatrix::new(Precision::Bf16, 1, 1);
                kernels.pack(Matrix::new(&[b], 1, 1), &mut packed.panels_mut());
                let mut c = [0.0];
                kernels.gemm(Matrix::new(&[a], 1, 1), &packed, End::default(), &mut c, 1);
                assert!(
                    c[0] == to || (c[0].is_nan() && to.is_nan()),
                    "{}: {from:e} → {:e}",
                    kernels.isa(),
                    c[0]
                );
            }
        }
    }
}

#[test]
fn matrices_are_cut_by_rows_and_columns() {
    let data: Vec<f32> = (0..35).map(|x| x as f32).collect();
    let whole = Matrix::with_stride(&data, 5, 6, 7);
    for kernels in rows() {
        let part = whole.rows(1..4).cols(2..6);
        assert_eq!(part.shape(), [3, 4]);
        let identity: Vec<f32> = (0..9).map(|at| f32::from(u8::from(at % 4 == 0))).collect();
        for (part, expected) in [
            (part, vec![9., 10., 11., 12., 16., 17., 18., 19., 23., 24., 25., 26.]),
            (part.transpose().rows(1..4).transpose(), vec![10., 11., 12., 17., 18., 19., 24., 25., 26.]),
        ] {
            let n = part.shape()[1];
            let mut packed = PackedMatrix::new(Precision::F32, 3, n);
            kernels.pack(part, &mut packed.panels_mut());
            let mut c = vec![0.0; 3 * n];
            kernels.gemm(Matrix::new(&identity, 3, 3), &packed, End::default(), &mut c, n);
            assert_eq!(c, expected);
        }
    }
}

/// A block is zero in a packed matrix where all its elements are, those that padding adds counted.
#[test]
fn zero_blocks_of_packed_matrices_are_counted() {
    for &[_, n, k] in SHAPES {
        let mut random = Random::new((n * 31 + k) as u64);
        let mut b: Vec<f32> = (0..k * n).map(|_| 1.0 - random.int(0, 1) as f32).collect();
        // Two thirds of the blocks go whole, to either zero; of the rest some are zero by chance.
        let block = |at: usize| (at / n / 4, at % n / 16);
        let gone = |(down, across): (usize, usize)| !(down + 2 * across).is_multiple_of(3);
        for (at, value) in b.iter_mut().enumerate().filter(|(at, _)| gone(block(*at))) {
            *value = if at % 2 == 0 { 0.0 } else { -0.0 };
        }
        let kept = (0..b.len()).filter(|&at| b[at] != 0.0).map(block);
        let kept = kept.collect::<std::collections::BTreeSet<_>>().len();
        let expected = k.div_ceil(4) * n.div_ceil(16) - kept;
        for kernels in rows() {
            for precision in [Precision::F32, Precision::Bf16] {
                let mut packed = PackedMatrix::new(precision, k, n);
                kernels.pack(Matrix::new(&b, k, n), &mut packed.panels_mut());
                assert_eq!(packed.zero_blocks(), expected, "{n}×{k} {precision:?}");
            }
        }
    }
}

/// int8 operands of one shape: random, or every value at one of its extremes.
fn int8_case([m, n, k]: [usize; 3], extreme_case: bool) -> (Vec<u8>, usize, Vec<i8>) {
    let mut random = Random::new(7 + (m * 31 + n * 17 + k) as u64);
    let mut draw = |_| match (extreme_case, random.int(0, 1)) {
        (false, _) => random.int(-127, 127),
        (true, 0) => -127,
        (true, _) => 127,
    };
    let weights: Vec<i8> = (0..n * k).map(&mut draw).map(|w| w as i8).collect();
    // The last row ends where its last word does: nothing follows it in memory.
    let stride = k.next_multiple_of(4) + 8;
    let mut a = vec![128; (m * stride).saturating_sub(8)];
    for row in 0..m {
        // A quantized activation is never 0 (-128), but the product is right for it too.
        let extreme = |s: i32| if s < 0 { 0 } else { 255 };
        (0..k).for_each(|p| {
            let s = draw(p);
            a[row * stride + p] = if extreme_case { extreme(s) } else { (s + 128) as u8 };
        });
    }
    (a, stride, weights)
}

#[test]
fn int8_is_exact_on_every_row() {
    for &[m, n, k] in SHAPES {
        for extreme in [false, true] {
            let (a, stride, weights) = int8_case([m, n, k], extreme);
            let mut packed = vec![1; packed_i8_len(n, k)];
            pack_i8(&weights, n, k, &mut packed);
            let mut sums = vec![1; n.next_multiple_of(16)];
            packed_i8_sums(&packed, n, k, &mut sums);
            let b = PackedI8::new(&packed, n, k, &sums);
            let dot = |i: usize, j: usize| -> i64 {
                (0..k).map(|p| (i64::from(a[i * stride + p]) - 128) * i64::from(weights[j * k + p])).sum()
            };
            let expected: Vec<i64> = (0..m * n).map(|at| dot(at / n, at % n)).collect();
            let mut random = Random::new(3);
            let (a_scale, b_scale, bias) = (random.floats(m), random.floats(n), random.floats(n));
            for kernels in rows() {
                let c_stride = n + 5;
                let len = (m * c_stride).saturating_sub(5);
                let mut c = Guarded::of(&vec![i32::MAX; len]);
                kernels.gemm_i8(&a, stride, m, b, c.inside(), c_stride);
                let c = c.checked();
                let mut floats = Guarded::of(&vec![-1.5_f32; len]);
                kernels.gemm_i8_f32(&a, stride, m, &a_scale, b, &b_scale, &bias, floats.inside(), c_stride);
                let floats = floats.checked();
                for at in 0..len {
                    let (i, j) = (at / c_stride, at % c_stride);
                    if j >= n {
                        assert!(c[at] == i32::MAX && floats[at] == -1.5, "wrote between the rows of c");
                        continue;
                    }
                    let sum = expected[i * n + j];
                    assert_eq!(i64::from(c[at]), sum, "{} {m}×{n}×{k} at {i}, {j}", kernels.isa());
                    let float = (sum as f32).mul_add(a_scale[i] * b_scale[j], bias[j]);
                    assert_eq!(floats[at].to_bits(), float.to_bits(), "{} at {i}, {j}", kernels.isa());
                }
            }
        }
    }
}

/// The largest k that the layout documents: all inputs at their extremes, in either direction.
#[test]
fn int8_sums_hold_the_largest_depth() {
    let k = 1 << 17;
    let weights: Vec<i8> = [vec![127; k], vec![-127; k]].concat();
    let mut packed = vec![0; packed_i8_len(2, k)];
    pack_i8(&weights, 2, k, &mut packed);
    let mut sums = [0; 16];
    packed_i8_sums(&packed, 2, k, &mut sums);
    let a = [vec![0; k], vec![255; k]].concat();
    let (low, high) = (128 * 127 * k as i32, 127 * 127 * k as i32);
    for kernels in rows() {
        let mut c = [0; 4];
        kernels.gemm_i8(&a, k, 2, PackedI8::new(&packed, 2, k, &sums), &mut c, 2);
        assert_eq!(c, [-low, low, high, -high], "{}", kernels.isa());
    }
}

#[test]
#[should_panic(expected = "the columns of a and the rows of b differ")]
fn shapes_that_do_not_meet_are_refused() {
    let kernels = Kernels::select().unwrap();
    let packed = PackedMatrix::new(Precision::F32, 3, 1);
    kernels.gemm(Matrix::new(&[0.0; 4], 2, 2), &packed, End::default(), &mut [0.0; 2], 1);
}
