//! Linear layers against sums in f64, for all kinds of sizes, storages and orders of threads.
//!
//! By everything that makes products: kernels of ours for every GPU and for sm_90, and cuBLASLt, which without a GPU is one that
//! stands in for it.
//!
//! A result may differ from the exact one by the rounding of each of its products and sums to f32, and by its own rounding to its
//! storage: `(depth + 8) · 2⁻²³ · Σ |products|`, and half a unit in the last place.

use crate::device::*;
use limbeck::backend::cuda::{GemmBackend, Storage};
use limbeck::backend::{Cuda, Device};
use limbeck::models::config::Activation;
use limbeck::nn::{ParamId, ParamSpec, Role};
use limbeck::ops::linear::{LinearOps, Orientation, WeightGradient};
use limbeck::params::ParamStore;
use limbeck::tensor::{Shape, Tensor};

/// Rows, outputs and inputs: nothing and one; multiples of nothing; a little more than a tile; more than one tile either way,
/// with rows that begin at multiples of 16 bytes and that do not; a classifier.
const SIZES: [[usize; 3]; 14] = [
    [0, 40, 8],
    [3, 0, 5],
    [3, 40, 0],
    [1, 1, 1],
    [1, 33, 1],
    [5, 37, 7],
    [65, 66, 33],
    [130, 136, 40],
    [70, 129, 9],
    [33, 257, 65],
    [200, 256, 72],
    [60, 48, 24],
    [9, 4, 300],
    [100, 32, 77],
];

/// What takes several large tiles on a GPU of a hundred multiprocessors and more; too much for the emulation.
const LARGE: [usize; 3] = [1500, 1160, 1048];

/// What the kernels for sm_90 make besides: many columns of result, or of depth; more tiles than blocks, and more steps than
/// their ring has stages; slices of a weight's gradient.
const HOPPER: [[usize; 3]; 5] =
    [[70, 768, 72], [9, 40, 3072], [9, 3072, 40], [1100, 40, 48], [260, 136, 768]];

fn sizes(cuda: &Cuda, products: GemmBackend) -> impl Iterator<Item = [usize; 3]> {
    let hopper = products == GemmBackend::Wgmma && cuda.storage() != Storage::F32;
    let more = if hopper { &HOPPER[..] } else { &[] };
    SIZES.into_iter().chain(more.iter().copied()).chain((cuda.multiprocessors() > 16).then_some(LARGE))
}

/// Every device, by everything that makes products there. Fails if what is there has made none.
fn on_products(test: impl Fn(&Cuda, &str, GemmBackend)) {
    on_devices(&Storage::ALL, |cuda, what| {
        for products in cuda.gemm_backends().unwrap() {
            let before = in_emulation().then(made);
            let of_one = cuda.with_gemm_backend(Some(products)).unwrap();
            test(&of_one, &format!("{what}, {products}"), products);
            if let Some([by_library, by_warpgroups]) = before {
                let [library, warpgroups] = made();
                assert_eq!(
                    library > by_library,
                    products == GemmBackend::CublasLt,
                    "{what}: who has multiplied"
                );
                let hopper = products == GemmBackend::Wgmma && cuda.storage() != Storage::F32;
                assert_eq!(warpgroups > by_warpgroups, hopper, "{what}: who has multiplied");
            }
        }
        assert!(!in_emulation() || cuda.gemm_backends().unwrap() == GemmBackend::ALL, "{what}: it has all");
    });
}

/// Products that the emulated library has made, and warpgroups.
fn made() -> [u64; 2] {
    [limbeck_emulation::products_made(), limbeck_emulation::warpgroup_products()]
}

/// A matrix of numbers that its storage holds.
struct Matrix {
    values: Vec<f32>,
    shape: Shape,
}

impl Matrix {
    fn random(seed: u64, rows: usize, cols: usize, storage: Storage) -> Matrix {
        Matrix { values: random(seed, rows * cols, storage), shape: Shape::new(rows, cols) }
    }

    fn at(&self, row: usize, col: usize) -> f64 {
        f64::from(self.values[row * self.shape.cols + col])
    }

    fn on(&self, cuda: &Cuda, storage: Storage) -> Tensor<Cuda> {
        let uploaded = Tensor::upload(cuda, &self.values, self.shape).unwrap();
        cuda.stored(&uploaded, storage).unwrap().into_owned()
    }
}

/// A sum in f64, and the sum of its terms' sizes.
#[derive(Clone, Copy)]
struct Exact {
    sum: f64,
    size: f64,
    terms: usize,
}

impl Exact {
    fn of(terms: impl Iterator<Item = f64>) -> Exact {
        terms.fold(Exact { sum: 0.0, size: 0.0, terms: 0 }, |exact, term| Exact {
            sum: exact.sum + term,
            size: exact.size + term.abs(),
            terms: exact.terms + 1,
        })
    }

    /// How far a sum in f32 may be from it.
    fn bound(self) -> f64 {
        (self.terms + 8) as f64 * f64::from(f32::EPSILON) * self.size
    }
}

/// Fails unless each number of `found` is `value` of what is exact, but for the rounding of sums, through a `value` that is
/// at most 1.2 as steep, for that of its storage, and for `slack`, which is told the sum.
fn check(
    cuda: &Cuda,
    found: &Tensor<Cuda>,
    what: &str,
    exact: impl Fn(usize, usize) -> Exact,
    value: impl Fn(f64) -> f64,
    slack: impl Fn(f64) -> f64,
) {
    let (shape, unit) = (found.shape(), rounding(found.buffer().storage()));
    let values = found.download(cuda).unwrap();
    // Of a large result every 13th row and every 7th column, in which each place of a tile comes up.
    let every = if shape.len() > 1 << 18 { [13, 7] } else { [1, 1] };
    for row in (0..shape.rows).step_by(every[0]) {
        for col in (0..shape.cols).step_by(every[1]) {
            let exact = exact(row, col);
            let (expected, found) = (value(exact.sum), f64::from(values[row * shape.cols + col]));
            // The smallest normal number of f16 is 2⁻¹⁴: below, units are no smaller.
            let bound =
                1.2 * exact.bound() + slack(exact.sum) + unit * expected.abs().max(2.0f64.powi(-14)) * 1.01;
            let error = (found - expected).abs();
            assert!(error <= bound, "{what}, ({row}, {col}): {found}, not {expected}; allowed {bound}");
        }
    }
}

/// The error function's complement in f64, by its continued fraction and its series.
fn normal_distribution(x: f64) -> f64 {
    if x.abs() > 4.0 {
        let a = x.abs();
        let tail = (1..60).rev().fold(a, |below, i| a + f64::from(i) / below);
        let tail = (-0.5 * a * a).exp() / (tail * (2.0 * std::f64::consts::PI).sqrt());
        return if x > 0.0 { 1.0 - tail } else { tail };
    }
    let (mut term, mut sum) = (x, x);
    for i in 1..200 {
        term *= x * x / f64::from(2 * i + 1);
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

fn value_of(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::Identity => z,
        Activation::Gelu => z * normal_distribution(z),
        Activation::Relu => z.max(0.0),
        Activation::Tanh => z.tanh(),
    }
}

const ACTIVATIONS: [Activation; 4] =
    [Activation::Identity, Activation::Gelu, Activation::Relu, Activation::Tanh];

/// Outputs up to here stay f32.
fn storage_of(cuda: &Cuda, outputs: usize) -> Storage {
    if outputs <= 32 { Storage::F32 } else { cuda.storage() }
}

#[test]
fn forward() {
    on_products(|cuda, what, products| {
        for (i, [m, n, k]) in sizes(cuda, products).enumerate() {
            let storage = storage_of(cuda, n);
            let x = Matrix::random(1, m, k, cuda.storage());
            let weight = Matrix::random(2, n, k, storage);
            let bias = Matrix::random(3, 1, n, Storage::F32);
            let on_gpu = x.on(cuda, cuda.storage());
            let packed =
                cuda.pack_weight(&weight.on(cuda, Storage::F32), Orientation::Forward, None).unwrap();
            assert!(cuda.fits(&packed));
            let bias_on_gpu = bias.on(cuda, Storage::F32);
            let exact = |row: usize, col: usize| {
                Exact::of((0..k).map(|i| x.at(row, i) * weight.at(col, i)).chain([bias.at(0, col)]))
            };
            for activation in [ACTIVATIONS[i % 4], Activation::Gelu] {
                let what = format!("{what}, {activation:?} {m} × {n} × {k}");
                let (y, kept) =
                    cuda.linear_forward(&on_gpu, &packed, &bias_on_gpu, activation, true).unwrap();
                assert_eq!((y.shape(), y.buffer().storage()), (Shape::new(m, n), storage), "{what}");
                // A library adds biases, below 1, as they are stored, and rounds sums before they are activated.
                let unit = if products == GemmBackend::CublasLt { rounding(storage) } else { 0.0 };
                let rounded = |z: f64| unit * (z.abs() + 2.0);
                // Functions in f32 of sums that are not.
                let slack = |z: f64| 3e-7 + 1.2 * rounded(z);
                check(cuda, &y, &what, exact, |z| value_of(activation, z), slack);
                assert_eq!(kept.is_some(), activation != Activation::Identity, "{what}");
                if activation == Activation::Gelu {
                    check(cuda, &kept.unwrap(), &what, exact, |z| z, rounded);
                }
                let (again, kept) =
                    cuda.linear_forward(&on_gpu, &packed, &bias_on_gpu, activation, false).unwrap();
                assert!(kept.is_none());
                assert_eq!(again.download(cuda).unwrap(), y.download(cuda).unwrap(), "{what}: kept or not");
            }
        }
    });
}

#[test]
fn input_gradient() {
    on_products(|cuda, what, products| {
        for [m, n, k] in sizes(cuda, products) {
            let what = format!("{what}, {m} × {n} × {k}");
            let (storage, of_dz) = (cuda.storage(), storage_of(cuda, n));
            let dz = Matrix::random(1, m, n, of_dz);
            let weight = Matrix::random(2, n, k, of_dz);
            let before = Matrix::random(3, m, k, storage);
            let packed =
                cuda.pack_weight(&weight.on(cuda, Storage::F32), Orientation::Backward, None).unwrap();
            for into in [None, Some(storage), Some(Storage::F32)] {
                let exact = |row: usize, col: usize| {
                    let begin = into.map(|_| before.at(row, col));
                    Exact::of((0..n).map(|i| dz.at(row, i) * weight.at(i, col)).chain(begin))
                };
                // Into a gradient of f32, below 1, goes one that has been rounded.
                let apart = if into == Some(Storage::F32) { rounding(storage) } else { 0.0 };
                let into = into.map(|into| before.on(cuda, into));
                let dx = cuda.input_gradient(&dz.on(cuda, of_dz), &packed, k, into).unwrap();
                assert_eq!(dx.shape(), Shape::new(m, k));
                check(cuda, &dx, &what, exact, |sum| sum, |sum| apart * (sum.abs() + 1.0));
            }
        }
    });
}

#[test]
fn parameter_gradients() {
    on_products(|cuda, what, products| {
        for [m, n, k] in sizes(cuda, products).chain([[600, 40, 8], [1100, 33, 5], [700, 3, 30]]) {
            let what = format!("{what}, {m} × {n} × {k}");
            let of_dz = storage_of(cuda, n);
            let (dz, x) = (Matrix::random(1, m, n, of_dz), Matrix::random(2, m, k, cuda.storage()));
            let (before, of_bias) = (Matrix::random(3, n, k, of_dz), Matrix::random(4, 1, n, of_dz));
            let (dz_on_gpu, x_on_gpu) = (dz.on(cuda, of_dz), x.on(cuda, cuda.storage()));
            for accumulate in [false, true] {
                let mut dw = before.on(cuda, Storage::F32);
                cuda.weight_gradient(&dz_on_gpu, &x_on_gpu, &mut dw, accumulate).unwrap();
                let exact = |row: usize, col: usize| {
                    let begin = accumulate.then(|| before.at(row, col));
                    Exact::of((0..m).map(|i| dz.at(i, row) * x.at(i, col)).chain(begin))
                };
                check(cuda, &dw, &what, exact, |sum| sum, |_| 0.0);
                let mut db = of_bias.on(cuda, Storage::F32);
                cuda.bias_gradient(&dz_on_gpu, &mut db, accumulate).unwrap();
                let exact = |_: usize, col: usize| {
                    let begin = accumulate.then(|| of_bias.at(0, col));
                    Exact::of((0..m).map(|i| dz.at(i, col)).chain(begin))
                };
                check(cuda, &db, &what, exact, |sum| sum, |_| 0.0);
            }
        }
    });
}

#[test]
fn weight_gradients_of_several_layers() {
    on_products(|cuda, what, products| {
        // More than one launch takes, of different lengths, some in slices, some added to what is there.
        let rows = |i: usize| if i.is_multiple_of(10) { 600 } else { i * 13 % 7 * 8 };
        let step = if products == GemmBackend::Wgmma { 8 } else { 1 };
        let outputs = |i: usize| (33 + i * 8 % 41).next_multiple_of(step);
        let layers: Vec<[usize; 3]> = (0..50).map(|i| [rows(i), outputs(i), 8 + i % 5 * 8]).collect();
        let storage = cuda.storage();
        let operands: Vec<[Matrix; 2]> = layers
            .iter()
            .map(|&[m, n, k]| [Matrix::random(1, m, n, storage), Matrix::random(2, m, k, storage)])
            .collect();
        let on_gpu: Vec<[Tensor<Cuda>; 2]> =
            operands.iter().map(|pair| [pair[0].on(cuda, storage), pair[1].on(cuda, storage)]).collect();
        let before: Vec<Matrix> =
            layers.iter().map(|&[_, n, k]| Matrix::random(3, n, k, Storage::F32)).collect();
        let mut found: Vec<Tensor<Cuda>> = before.iter().map(|dw| dw.on(cuda, Storage::F32)).collect();
        let mut wanted: Vec<WeightGradient<'_, Cuda>> = found
            .iter_mut()
            .zip(&on_gpu)
            .enumerate()
            .map(|(i, (dw, [dz, x]))| WeightGradient { dz, x, dw, accumulate: i % 3 == 0 })
            .collect();
        cuda.weight_gradients(&mut wanted).unwrap();
        for (i, ((dw, [dz, x]), before)) in found.iter().zip(&operands).zip(&before).enumerate() {
            let exact = |row: usize, col: usize| {
                let begin = (i % 3 == 0).then(|| before.at(row, col));
                Exact::of((0..dz.shape.rows).map(|i| dz.at(i, row) * x.at(i, col)).chain(begin))
            };
            check(cuda, dw, &format!("{what}, layer {i}"), exact, |sum| sum, |_| 0.0);
        }
    });
}

#[test]
fn activation_gradient() {
    on_devices(&Storage::ALL, |cuda, what| {
        for kept_as in [cuda.storage(), Storage::F32] {
            for activation in ACTIVATIONS {
                let dy = Matrix::random(1, 7, 41, cuda.storage());
                let kept = Matrix::random(2, 7, 41, cuda.storage());
                let slope = |kept: f64| match activation {
                    Activation::Identity => 1.0,
                    Activation::Gelu => {
                        let density = (-0.5 * kept * kept).exp() / (2.0 * std::f64::consts::PI).sqrt();
                        normal_distribution(kept) + kept * density
                    }
                    Activation::Relu => f64::from(u8::from(kept > 0.0)),
                    Activation::Tanh => 1.0 - kept * kept,
                };
                let on_gpu = dy.on(cuda, cuda.storage());
                let dz = cuda.activation_backward(&on_gpu, &kept.on(cuda, kept_as), activation).unwrap();
                let exact = |row: usize, col: usize| {
                    Exact::of([dy.at(row, col) * slope(kept.at(row, col))].into_iter())
                };
                check(cuda, &dz, &format!("{what}, {activation:?}"), exact, |dz| dz, |_| 4e-7);
            }
        }
    });
}

#[test]
fn a_packed_weight_follows_its_parameter() {
    on_devices(&Storage::ALL, |cuda, what| {
        let (m, k) = (3, 8);
        let sizes = [40, 4];
        let specs = sizes.map(|rows| ParamSpec { name: "weight".into(), role: Role::Weight, rows, cols: k });
        let value = |spec: &ParamSpec| Ok(random(1, spec.len(), cuda.storage()));
        let mut params = ParamStore::new(cuda, &specs, value).unwrap();
        for (i, n) in sizes.into_iter().enumerate() {
            let dz = Matrix::random(2, m, n, cuda.storage());
            let dz_on_gpu = dz.on(cuda, cuda.storage());
            // A step of the optimizer: the weight changes in place, which asks for its one owner.
            for step in 0..3 {
                let id = ParamId(i as u32);
                let forward = params.packed(cuda, id, Orientation::Forward).unwrap();
                let backward = params.packed(cuda, id, Orientation::Backward).unwrap();
                assert!(std::rc::Rc::ptr_eq(&forward, &backward), "{what}: one serves both");
                drop(forward);
                let values = random(1, n * k, cuda.storage());
                let weight = |row: usize, col: usize| f64::from(values[row * k + col]) * 2.0f64.powi(step);
                let exact =
                    |row: usize, col: usize| Exact::of((0..n).map(|i| dz.at(row, i) * weight(i, col)));
                let dx = cuda.input_gradient(&dz_on_gpu, &backward, k, None).unwrap();
                check(cuda, &dx, &format!("{what}, {n} outputs, step {step}"), exact, |sum| sum, |_| 0.0);
                drop(backward);
                let before = cuda.upload(&params.value(id).download(cuda).unwrap()).unwrap();
                cuda.add(&before, params.value_mut(id).0.buffer_mut()).unwrap();
            }
        }
    });
}
