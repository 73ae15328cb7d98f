//! How fast the products of a network are, by everything that makes them (`limbeck bench gemm`).
//!
//! A layer's product is measured as the layer has it done, bias and activation included: what a library lacks is timed with it. All
//! take turns on numbers that are random (zeros are multiplied faster, at less power) and that lie in more memory than the
//! device's cache holds.

use super::{LinearOps, Orientation, Weight};
use crate::Result;
use crate::backend::Cuda;
use crate::backend::cuda::{GemmBackend, GemmProblem, Kind, Storage};
use crate::models::config::Activation;
use crate::tensor::{Shape, Tensor};
use limbeck_kernels::random::SplitMix64;
use std::time::Duration;

/// A product that networks have.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The layer that it is of.
    pub layer: &'static str,
    /// What is multiplied.
    pub product: GemmProblem,
    /// Of the layer, in its forward pass.
    pub activation: Activation,
}

/// How often a product is made.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Turns of each that makes it; what counts is the median.
    pub timed: usize,
    /// Turns before, which do not count.
    pub warmup: usize,
    /// Calls of a turn.
    pub calls: usize,
}

/// What one that makes a product was measured to do.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Who.
    pub products: GemmBackend,
    /// A call: the median over turns.
    pub time: Duration,
    /// How far the worst of [`SAMPLE`] sums is from the exact one, the root of their mean square being 1.
    pub error: f64,
}

/// Sums of a product that are compared with what they are in f64.
pub const SAMPLE: usize = 512;
const SEED: u64 = 5;
/// The most copies of the operands.
const COPIES: usize = 64;

/// The products of an encoder's layers in training: `rows` tokens, and its two sizes. Query, key, value and output are four
/// layers of one shape.
pub fn cases(rows: usize, hidden: usize, intermediate: usize, storage: Storage) -> Vec<Case> {
    let layers = [
        ("attention", hidden, hidden, Activation::Identity),
        ("expand", intermediate, hidden, Activation::Gelu),
        ("contract", hidden, intermediate, Activation::Identity),
    ];
    let kinds = [Kind::Forward, Kind::InputGradient, Kind::WeightGradient];
    let of_layer = |(layer, outputs, inputs, activation)| {
        kinds.map(|kind| {
            let product = GemmProblem { kind, rows, outputs, inputs, storage, accumulate: false };
            Case { layer, product, activation }
        })
    };
    layers.into_iter().flat_map(of_layer).collect()
}

/// A product of square matrices, with nothing beside it, whose rate a device's peak can be taken for.
pub fn square(size: usize, storage: Storage) -> Case {
    let product = GemmProblem {
        kind: Kind::InputGradient,
        rows: size,
        outputs: size,
        inputs: size,
        storage,
        accumulate: false,
    };
    Case { layer: "square", product, activation: Activation::Identity }
}

/// Measures a product by each that makes it, in turns. What refuses it is left out.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
pub fn measure(cuda: &Cuda, case: &Case, rounds: Rounds) -> Result<Vec<Measured>> {
    let cuda = cuda.with_storage(case.product.storage);
    let first = Operands::new(&cuda, case)?;
    let copies = (2 * cuda.cache_bytes()?).div_ceil(first.bytes().max(1)).clamp(2, COPIES);
    let exact = Exact::of(&cuda, case, &first)?;
    let mut sets = vec![first];
    for _ in 1..copies {
        sets.push(Operands::new(&cuda, case)?);
    }
    let mut measured = Vec::new();
    let mut runners = Vec::new();
    for products in cuda.gemm_backends()? {
        let runner = cuda.with_gemm_backend(Some(products))?;
        let error = exact.error(&cuda, &sets[0].call(&runner, case)?)?;
        let makes = match products {
            GemmBackend::Own => true,
            GemmBackend::CublasLt => cuda.library_makes(&case.product)?,
            GemmBackend::Wgmma => case.product.suits_wgmma(),
        };
        if !makes {
            continue;
        }
        measured.push(Measured { products, time: Duration::ZERO, error });
        runners.push(runner);
    }
    let mut times = vec![Vec::with_capacity(rounds.timed); runners.len()];
    let mut next = (0..copies).cycle();
    for round in 0..rounds.warmup + rounds.timed {
        for turn in 0..runners.len() {
            // Each round begins with another.
            let who = (round + turn) % runners.len();
            let mut call = || {
                let set = &mut sets[next.next().expect("two copies at least")];
                let made = set.call(&runners[who], case)?;
                set.result = Some(made);
                Ok(())
            };
            // While the device does this one, those that are timed are launched.
            call()?;
            let time = cuda.elapsed(|| (0..rounds.calls).try_for_each(|_| call()))?;
            if round >= rounds.warmup {
                times[who].push(time / rounds.calls as u32);
            }
        }
    }
    for (measured, times) in measured.iter_mut().zip(&mut times) {
        times.sort_unstable();
        measured.time = times[times.len() / 2];
    }
    Ok(measured)
}

/// One copy of what a product reads, and the result that was last made of it, so that its memory is not the next one's.
struct Operands {
    /// The layer's input, or the gradient of its sums.
    left: Tensor<Cuda>,
    /// The layer's input, for the weight's gradient.
    right: Option<Tensor<Cuda>>,
    weight: Option<Weight>,
    bias: Tensor<Cuda>,
    result: Option<Made>,
}

/// A result, and the sums before the activation where they are kept.
type Made = (Tensor<Cuda>, Option<Tensor<Cuda>>);

impl Operands {
    fn new(cuda: &Cuda, case: &Case) -> Result<Operands> {
        let GemmProblem { kind, rows, outputs, inputs, .. } = case.product;
        let mut stream = SplitMix64::new(SEED);
        let mut random = |rows: usize, cols: usize| {
            let values: Vec<f32> = (0..rows * cols).map(|_| stream.signed_unit()).collect();
            Tensor::upload(cuda, &values, Shape::new(rows, cols))
        };
        let left = random(rows, if kind == Kind::Forward { inputs } else { outputs })?;
        let left = cuda.activation(&left)?.into_owned();
        let bias = random(1, outputs)?;
        let (mut right, mut weight) = (None, None);
        if kind == Kind::WeightGradient {
            right = Some(cuda.activation(&random(rows, inputs)?)?.into_owned());
        } else {
            weight = Some(cuda.pack_weight(&random(outputs, inputs)?, Orientation::Forward, None)?);
        }
        Ok(Operands { left, right, weight, bias, result: None })
    }

    fn bytes(&self) -> usize {
        let of = |tensor: &Tensor<Cuda>| tensor.buffer().memory().bytes();
        of(&self.left)
            + self.right.as_ref().map_or(0, of)
            + self.weight.as_ref().map_or(0, |weight| of(&weight.0))
    }

    fn call(&self, cuda: &Cuda, case: &Case) -> Result<Made> {
        match (case.product.kind, &self.weight, &self.right) {
            (Kind::Forward, Some(weight), _) => {
                cuda.linear_forward(&self.left, weight, &self.bias, case.activation, true)
            }
            (Kind::InputGradient, Some(weight), _) => {
                Ok((cuda.input_gradient(&self.left, weight, case.product.inputs, None)?, None))
            }
            (_, _, Some(x)) => {
                let shape = Shape::new(case.product.outputs, case.product.inputs);
                let mut dw = cuda.tensor(shape, Storage::F32)?;
                cuda.weight_gradient(&self.left, x, &mut dw, false)?;
                Ok((dw, None))
            }
            _ => unreachable!("a weight, or the layer's input"),
        }
    }
}

/// Some of a product's sums.
struct Exact(Vec<([usize; 2], f64)>);

impl Exact {
    fn of(cuda: &Cuda, case: &Case, operands: &Operands) -> Result<Exact> {
        let GemmProblem { kind, rows, outputs, inputs, .. } = case.product;
        let left = operands.left.download(cuda)?;
        let right = match (&operands.right, &operands.weight) {
            (Some(x), _) => x.download(cuda)?,
            (_, Some(weight)) => weight.0.download(cuda)?,
            _ => unreachable!("a weight, or the layer's input"),
        };
        let bias = operands.bias.download(cuda)?;
        let term = |a: usize, b: usize| f64::from(left[a]) * f64::from(right[b]);
        let sum = |[row, col]: [usize; 2]| -> f64 {
            match kind {
                Kind::Forward => {
                    let products = (0..inputs).map(|i| term(row * inputs + i, col * inputs + i));
                    products.sum::<f64>() + f64::from(bias[col])
                }
                Kind::InputGradient => (0..outputs).map(|i| term(row * outputs + i, i * inputs + col)).sum(),
                Kind::WeightGradient => (0..rows).map(|i| term(i * outputs + row, i * inputs + col)).sum(),
            }
        };
        let [height, width] = match kind {
            Kind::Forward => [rows, outputs],
            Kind::InputGradient => [rows, inputs],
            Kind::WeightGradient => [outputs, inputs],
        };
        let mut stream = SplitMix64::new(SEED);
        let places = (0..SAMPLE).map(|_| [stream.below(height), stream.below(width)]);
        Ok(Exact(places.map(|place| (place, sum(place))).collect()))
    }

    /// How far the worst is from them, in units of their root mean square; not a number if one of them is not.
    fn error(&self, cuda: &Cuda, (result, kept): &Made) -> Result<f64> {
        let sums = kept.as_ref().unwrap_or(result);
        let (width, values) = (sums.cols(), sums.download(cuda)?);
        let apart = self.0.iter().map(|([row, col], sum)| (f64::from(values[row * width + col]) - sum).abs());
        let worst = apart.fold(0.0, |worst: f64, apart| match apart <= worst || worst.is_nan() {
            true => worst,
            false => apart,
        });
        let squares = self.0.iter().map(|(_, sum)| sum * sum).sum::<f64>() / self.0.len() as f64;
        Ok(worst / squares.sqrt())
    }
}
