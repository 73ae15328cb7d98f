//! Matrix products: every row of the table × the shapes of the models, as a share of this CPU's peak.
//!
//! The peak is measured here, in the same run, by loops that touch registers alone. Every answer is checked
//! against f64 (floats) or 64-bit sums (int8) before it is timed. Shapes are m×k×n; the time of the float
//! products includes the packing of `a`. A table of the best times closes the run, on standard error.

mod peak;

use criterion::{Criterion, Throughput};
use limbeck_kernels::gemm::{Epilogue, LayerI8, Matrix, PackedI8, PackedMatrix, Precision, QuantizedRows};
use limbeck_kernels::gemm::{pack_i8, packed_i8_len, packed_i8_sums};
use limbeck_kernels::random::SplitMix64;
use limbeck_kernels::{Isa, Kernels};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Name, m, k, n of products as they occur in training: a batch of texts, and the weight gradients, whose
/// k is the tokens of a batch.
const TRAINING: &[(&str, [usize; 3])] = &[
    ("projection", [512, 768, 768]),
    ("ffn_expand", [512, 768, 3072]),
    ("ffn_contract", [512, 3072, 768]),
    ("weight_gradient", [768, 1600, 768]),
    ("weight_gradient", [3072, 1600, 768]),
    ("small_projection", [512, 384, 384]),
    ("pruned_heads", [512, 768, 448]),
    ("one_text", [50, 768, 3072]),
];

/// Name, m, k, n of the linear layers of DistilBERT and MiniLM, for a short text, a longer one and a batch.
const INFERENCE: &[(&str, [usize; 3])] = &[
    ("distilbert_projection", [16, 768, 768]),
    ("distilbert_projection", [50, 768, 768]),
    ("distilbert_projection", [512, 768, 768]),
    ("distilbert_ffn_expand", [16, 768, 3072]),
    ("distilbert_ffn_expand", [50, 768, 3072]),
    ("distilbert_ffn_expand", [512, 768, 3072]),
    ("distilbert_ffn_contract", [16, 3072, 768]),
    ("distilbert_ffn_contract", [50, 3072, 768]),
    ("distilbert_ffn_contract", [512, 3072, 768]),
    ("minilm_projection", [16, 384, 384]),
    ("minilm_projection", [50, 384, 384]),
    ("minilm_projection", [512, 384, 384]),
    ("minilm_ffn_expand", [16, 384, 1536]),
    ("minilm_ffn_expand", [50, 384, 1536]),
    ("minilm_ffn_expand", [512, 384, 1536]),
    ("minilm_ffn_contract", [16, 1536, 384]),
    ("minilm_ffn_contract", [50, 1536, 384]),
    ("minilm_ffn_contract", [512, 1536, 384]),
];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(300))
        .configure_from_args();
    let mut table = Vec::new();
    for kernels in Kernels::available() {
        // The portable row takes thousands of times as long on these shapes: one of them will do.
        let shapes = |all: &'static [(&'static str, [usize; 3])]| match kernels.isa() {
            Isa::Scalar => &all[..1],
            _ => all,
        };
        for precision in [Precision::F32, Precision::Bf16] {
            let peak = match precision {
                Precision::F32 => peak::f32(kernels.isa()),
                Precision::Bf16 => peak::bf16(kernels.isa()),
            };
            for &(name, shape) in shapes(TRAINING) {
                let product = || Float::new(kernels, precision, shape, name == "weight_gradient");
                let id = format!("{}/{}", tile(kernels.isa(), Some(precision)), label(name, shape));
                table.extend(bench(&mut criterion, id, shape, peak, product));
            }
        }
        let peak = peak::int8(kernels.isa());
        for &(name, shape) in shapes(INFERENCE) {
            let id = format!("{}/{}", tile(kernels.isa(), None), label(name, shape));
            table.extend(bench(&mut criterion, id, shape, peak, || Int8::new(kernels, shape)));
        }
    }
    pack::bench(&mut criterion, &mut table);
    table.iter().for_each(|line| eprintln!("{line}"));
    criterion.final_summary();
}

fn label(name: &str, [m, k, n]: [usize; 3]) -> String {
    format!("{name}_{m}x{k}x{n}")
}

/// The kernel's name: product, tile, row.
fn tile(isa: Isa, precision: Option<Precision>) -> String {
    let product = match precision {
        Some(Precision::F32) => "f32",
        Some(Precision::Bf16) => "bf16",
        None => "i8",
    };
    let tile = match (isa, precision) {
        (Isa::Avx512, _) => "12x32",
        (Isa::AvxVnni, _) | (Isa::Avx2, Some(_)) => "6x16",
        (Isa::Avx2, None) => "4x16",
        (Isa::NeonDotprod | Isa::Neon, Some(Precision::F32)) => "6x16",
        (Isa::NeonDotprod | Isa::Neon, Some(Precision::Bf16)) => "4x16",
        (Isa::NeonDotprod, None) => "5x16",
        (Isa::Neon, None) => "2x16",
        (Isa::Scalar, _) => "4x16",
    };
    format!("gemm_{product}_{tile}_{isa}")
}

/// Something to time.
trait Product {
    fn check(&mut self);
    fn call(&mut self);
}

/// Times an m×k×n product; gives a line for the table, unless it was filtered out or merely tried.
fn bench<P: Product>(
    criterion: &mut Criterion,
    id: String,
    [m, k, n]: [usize; 3],
    peak: Option<f64>,
    new: impl Fn() -> P,
) -> Option<String> {
    let operations = 2 * (m * k * n) as u64;
    let (mut product, mut best, mut calls) = (None, f64::INFINITY, 0);
    let (group, name) = id.split_once('/').expect("a group and a name");
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(operations));
    group.bench_function(name, |bencher| {
        let product = product.get_or_insert_with(|| {
            let mut product = new();
            product.check();
            product
        });
        bencher.iter_custom(|calls_now| {
            let whole = Instant::now();
            for _ in 0..calls_now {
                let one = Instant::now();
                product.call();
                best = best.min(one.elapsed().as_secs_f64());
            }
            calls += calls_now;
            whole.elapsed()
        });
    });
    group.finish();
    let rate = operations as f64 / best / 1e9;
    let share = peak.map(|peak| format!("{:5.1} % of {peak:.0}", 100.0 * rate / peak)).unwrap_or_default();
    (calls > 1).then(|| format!("{id:68} {:9.1} µs {rate:7.1} Gop/s  {share}", best * 1e6))
}

struct Float {
    kernels: Kernels,
    shape: [usize; 3],
    /// `[m, k]`, or `[k, m]` for a weight gradient.
    a: Vec<f32>,
    transposed: bool,
    b: Vec<f32>,
    packed: PackedMatrix,
    c: Vec<f32>,
}

impl Float {
    fn new(kernels: Kernels, precision: Precision, shape: [usize; 3], transposed: bool) -> Self {
        let [m, k, n] = shape;
        let (a, b) = (floats(m * k, 1), floats(k * n, 2));
        let mut packed = PackedMatrix::new(precision, k, n);
        kernels.pack(Matrix::new(&b, k, n), &mut packed.panels_mut());
        Float { kernels, shape, a, transposed, b, packed, c: vec![0.0; m * n] }
    }
}

impl Product for Float {
    fn call(&mut self) {
        let [m, k, n] = self.shape;
        let a =
            if self.transposed { Matrix::new(&self.a, k, m).transpose() } else { Matrix::new(&self.a, m, k) };
        self.kernels.gemm(a, &self.packed, Epilogue::default(), &mut self.c, n);
        black_box(&mut self.c);
    }

    /// Rows spread over all of c, whole: |error| ≤ (k + 1)·ε·Σ|a·b|, plus both operands' rounding in bf16.
    fn check(&mut self) {
        self.call();
        let [m, k, n] = self.shape;
        let rounding = if self.packed.precision() == Precision::Bf16 { 2.01 / 256.0 } else { 0.0 };
        for i in (0..m).step_by((m / 5).max(1)) {
            let (mut sums, mut magnitudes) = (vec![0.0; n], vec![0.0; n]);
            for p in 0..k {
                let a = f64::from(if self.transposed { self.a[p * m + i] } else { self.a[i * k + p] });
                for j in 0..n {
                    let product = a * f64::from(self.b[p * n + j]);
                    sums[j] += product;
                    magnitudes[j] += product.abs();
                }
            }
            for j in 0..n {
                let bound = ((k + 1) as f64 * f64::from(f32::EPSILON) + rounding) * magnitudes[j];
                assert!((f64::from(self.c[i * n + j]) - sums[j]).abs() <= bound, "wrong at {i}, {j}");
            }
        }
    }
}

struct Int8 {
    kernels: Kernels,
    shape: [usize; 3],
    a: Vec<u8>,
    rows: QuantizedRows,
    weights: Vec<i8>,
    packed: Vec<i8>,
    sums: Vec<i32>,
    a_scale: Vec<f32>,
    b_scale: Vec<f32>,
    bias: Vec<f32>,
    c: Vec<f32>,
}

impl Int8 {
    fn new(kernels: Kernels, shape: [usize; 3]) -> Self {
        let [m, k, n] = shape;
        let a: Vec<u8> = floats(m * k, 3).into_iter().map(|x| (x * 127.0 + 128.0) as u8).collect();
        let weights: Vec<i8> = floats(n * k, 4).into_iter().map(|x| (x * 127.0) as i8).collect();
        let (mut packed, mut sums) = (vec![0; packed_i8_len(n, k)], vec![0; n.next_multiple_of(16)]);
        pack_i8(&weights, n, k, &mut packed);
        packed_i8_sums(&packed, n, k, &mut sums);
        let (a_scale, b_scale, bias) = (floats(m, 5), floats(n, 6), floats(n, 7));
        let rows = QuantizedRows::from_bytes(&a, k, &a_scale);
        Int8 { kernels, shape, a, rows, weights, packed, sums, a_scale, b_scale, bias, c: vec![0.0; m * n] }
    }
}

impl Product for Int8 {
    fn call(&mut self) {
        let [m, k, n] = self.shape;
        let b = PackedI8::new(&self.packed, n, k, &self.sums);
        let layer = LayerI8 { weights: b.into(), scale: &self.b_scale, bias: &self.bias };
        self.kernels.gemm_i8_f32(self.rows.rows(0..m), layer, &mut self.c, n);
        black_box(&mut self.c);
    }

    fn check(&mut self) {
        self.call();
        let [m, k, n] = self.shape;
        for i in (0..m).step_by((m / 16).max(1)) {
            for j in 0..n {
                let pairs = self.a[i * k..][..k].iter().zip(&self.weights[j * k..][..k]);
                let sum: i64 = pairs.map(|(&a, &w)| (i64::from(a) - 128) * i64::from(w)).sum();
                let expected = (sum as f32).mul_add(self.a_scale[i] * self.b_scale[j], self.bias[j]);
                assert_eq!(self.c[i * n + j], expected, "wrong at {i}, {j}");
            }
        }
    }
}

/// Uniform in [-1, 1).
fn floats(len: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64::new(seed);
    (0..len).map(|_| random.signed_unit()).collect()
}

/// Packing of weights in both orientations, in bytes read and written a second.
mod pack {
    use super::*;

    pub fn bench(criterion: &mut Criterion, table: &mut Vec<String>) {
        let [n, k] = [3072, 768];
        let weights = floats(n * k, 8);
        for kernels in Kernels::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                for (orientation, b) in [
                    ("forward", Matrix::new(&weights, n, k).transpose()),
                    ("data_gradient", Matrix::new(&weights, n, k)),
                ] {
                    let [rows, cols] = b.shape();
                    let mut packed = PackedMatrix::new(precision, rows, cols);
                    let bytes = (n * k) as u64 * if precision == Precision::F32 { 8 } else { 6 };
                    let mut best = f64::INFINITY;
                    let mut calls = 0;
                    let id = format!("{orientation}_{precision:?}_{}", kernels.isa()).to_lowercase();
                    let mut group = criterion.benchmark_group("gemm_pack");
                    group.throughput(Throughput::Bytes(bytes));
                    group.bench_function(&id, |bencher| {
                        bencher.iter_custom(|calls_now| {
                            let whole = Instant::now();
                            for _ in 0..calls_now {
                                let one = Instant::now();
                                kernels.pack(b, &mut packed.panels_mut());
                                black_box(&mut packed);
                                best = best.min(one.elapsed().as_secs_f64());
                            }
                            calls += calls_now;
                            whole.elapsed()
                        });
                    });
                    group.finish();
                    if calls > 1 {
                        let rate = bytes as f64 / best / 1e9;
                        table.push(format!(
                            "{:68} {:9.1} µs {rate:7.1} GB/s",
                            format!("gemm_pack/{id}"),
                            best * 1e6
                        ));
                    }
                }
            }
        }
    }
}
