//! Matrix products of floats, of every row, against f64 sums.

mod harness;

use harness::{GEMM_SHAPES as SHAPES, Guarded, Random, rows};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{Epilogue, Matrix, PackedMatrix, Precision};

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
        let epilogue = Epilogue { bias: bias.then_some(&self.bias[..]), accumulate };
        kernels.gemm(a, &packed, epilogue, c.inside(), self.stride);
        let c = c.checked();
        let untouched = |at: &usize| at % self.stride >= n;
        for at in (0..c.len()).filter(untouched) {
            assert_eq!(c[at].to_bits(), self.before[at].to_bits(), "wrote between the rows of c");
        }
        (0..m * n).map(|at| c[at / n * self.stride + at % n]).collect()
    }
}

fn rows_and_precisions() -> impl Iterator<Item = (Kernels, Precision)> {
    rows()
        .into_iter()
        .flat_map(|kernels| [Precision::F32, Precision::Bf16].map(|precision| (kernels, precision)))
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
    for &shape in SHAPES {
        let case = Case::new(shape);
        for (turned, bias, accumulate) in WAYS {
            let expected = oracle(&case.a, &case.b, shape, &case.start(bias, accumulate));
            for (kernels, precision) in rows_and_precisions() {
                let c = case.run(kernels, precision, turned, bias, accumulate);
                // k products and two more sums round once each; bf16 rounds both operands before.
                let steps = (shape[2] + 3) as f64 * f64::from(f32::EPSILON);
                let operands = if precision == Precision::Bf16 { 2.01 * 2f64.powi(-8) } else { 0.0 };
                for (at, (&c, (value, magnitude))) in c.iter().zip(&expected).enumerate() {
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
                Epilogue::default(),
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
    for &shape in SHAPES {
        let mut case = Case::new(shape);
        for x in case.a.iter_mut().chain(&mut case.b).chain(&mut case.bias).chain(&mut case.before) {
            *x = (*x * 15.0).round();
        }
        for (turned, bias, accumulate) in WAYS {
            let expected = oracle(&case.a, &case.b, shape, &case.start(bias, accumulate));
            for kernels in rows() {
                let c = case.run(kernels, Precision::Bf16, turned, bias, accumulate);
                let exact = c.iter().zip(&expected).all(|(&c, (value, _))| f64::from(c) == *value);
                assert!(exact, "{} {shape:?}", kernels.isa());
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
                kernels.gemm(Matrix::new(&[a], 1, 1), &packed, Epilogue::default(), &mut c, 1);
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
            kernels.gemm(Matrix::new(&identity, 3, 3), &packed, Epilogue::default(), &mut c, n);
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

#[test]
#[should_panic(expected = "the columns of a and the rows of b differ")]
fn shapes_that_do_not_meet_are_refused() {
    let kernels = Kernels::select().unwrap();
    let packed = PackedMatrix::new(Precision::F32, 3, 1);
    kernels.gemm(Matrix::new(&[0.0; 4], 2, 2), &packed, Epilogue::default(), &mut [0.0; 2], 1);
}
