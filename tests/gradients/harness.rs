//! What every test here does with a case: runs it on the tape and on the oracle, and compares gradients.

use limbeck::autograd::{Tape, Var};
use limbeck::backend::cuda::{Options, Storage, probe};
use limbeck::backend::{Cpu, Cuda};
use limbeck::formats::{Exceptions, Form, Int8Rows};
use limbeck::nn::{ParamId, ParamSpec, Role};
use limbeck::ops::Backend;
use limbeck::ops::dropout::DropoutSeed;
use limbeck::ops::rounded::Rounding;
use limbeck::params::ParamStore;
use limbeck::tensor::{Shape, Tensor};
use limbeck::{Batch, Result, Text};
use limbeck_emulation::ORDERS;
use limbeck_kernels::Kernels;
use limbeck_kernels::random::SplitMix64;
use std::sync::OnceLock;

/// Largest error, as a share of the largest magnitude in the tensor: sums here have at most 50 terms, each
/// rounded a few times.
const BOUND: f64 = 2e-5;

pub const NOISE: DropoutSeed = DropoutSeed { seed: 5, step: 3 };

/// Tokens of the texts of [`batch`].
pub const LENGTHS: [usize; 5] = [3, 1, 7, 2, 5];
/// Tokens of their first sentences; types are given, so that they matter where sentences are kept apart, and nowhere
/// else.
pub const FIRSTS: [usize; 5] = [2, 1, 3, 1, 5];
pub const TOKENS: usize = 18;
pub const TEXTS: usize = LENGTHS.len();
pub const VOCAB: usize = 9;

/// Whether there is a GPU, as there has to be under `LIMBECK_REQUIRE_CUDA`: asked before the emulation is loaded, which would
/// answer.
fn has_gpu() -> bool {
    static GPU: OnceLock<bool> = OnceLock::new();
    *GPU.get_or_init(|| match probe::probe() {
        Err(error) if std::env::var_os("LIMBECK_REQUIRE_CUDA").is_some() => panic!("{error}"),
        found => found.is_ok(),
    })
}

/// Numbers in [-1, 1) that depend on the key alone.
pub fn random(key: u64, len: usize) -> Vec<f32> {
    let mut random = SplitMix64::new(key);
    (0..len).map(|_| random.signed_unit()).collect()
}

/// Ragged texts in which pieces and types occur more than once.
pub fn batch() -> Batch {
    let ids: Vec<u32> = random(91, TOKENS).iter().map(|x| ((x + 1.0) * VOCAB as f32 / 2.0) as u32).collect();
    let (mut batch, mut rest) = (Batch::new(), &ids[..]);
    for (text, length) in LENGTHS.into_iter().enumerate() {
        batch.push(Text { ids: &rest[..length], first: FIRSTS[text] }, 100 + text as u64);
        rest = &rest[length..];
    }
    batch.token_types = (0..TOKENS).map(|t| (t % 3 == 1).into()).collect();
    batch
}

/// What a case does on a device's tape with its inputs.
type OnTape<'a, B> = dyn Fn(&mut Tape<'_, B>, &[Var<B>]) -> Result<Var<B>> + 'a;

/// The same on each kind of device: `both!` writes it twice.
pub struct OnTapes<'a> {
    pub cpu: &'a OnTape<'a, Cpu>,
    pub cuda: &'a OnTape<'a, Cuda>,
}

/// [`OnTapes`] of one closure.
macro_rules! both {
    (|$tape:ident, $x:pat_param| $body:expr) => {
        $crate::harness::OnTapes {
            cpu: &|$tape: &mut limbeck::autograd::Tape<'_, limbeck::backend::Cpu>, $x| $body,
            cuda: &|$tape: &mut limbeck::autograd::Tape<'_, limbeck::backend::Cuda>, $x| $body,
        }
    };
}
pub(crate) use both;

/// What a case is run with.
#[derive(Clone, Copy)]
struct Given<'a> {
    rounding: Option<&'a Rounding>,
    batch: &'a Batch,
    shapes: &'a [(usize, usize)],
    leaves: &'a [Vec<f32>],
    functional: &'a [f32],
}

/// An operation, or a few: the shapes of its parameters and inputs, and its result on the tape and in f64.
/// The oracle is handed parameters, then inputs.
pub struct Case<'a> {
    pub name: &'a str,
    pub params: &'a [(usize, usize)],
    pub inputs: &'a [(usize, usize)],
    pub tape: OnTapes<'a>,
    pub oracle: &'a dyn Fn(&[Vec<f64>]) -> Vec<f64>,
}

impl Case<'_> {
    pub fn check(&self) {
        self.check_at(None, |_, leaf| leaf, BOUND);
    }

    /// With weights and activations rounded to int8: at leaves that int8 holds, where rounding them again changes nothing,
    /// so that the gradient which takes rounding for the identity is the oracle's. A result that is rounded itself may be
    /// off by `bound`.
    pub fn check_in_int8(&self, bound: f64) {
        let int8 = Rounding { weights: Form::Int8, embeddings: Form::Int8, exceptions: Exceptions::NONE };
        let held = |(rows, cols), leaf: Vec<f32>| Int8Rows::by_row(&leaf, rows, cols).values().collect();
        self.check_at(Some(&int8), held, bound);
    }

    fn check_at(
        &self,
        rounding: Option<&Rounding>,
        change: impl Fn((usize, usize), Vec<f32>) -> Vec<f32>,
        bound: f64,
    ) {
        let batch = batch();
        let shapes: Vec<(usize, usize)> = self.params.iter().chain(self.inputs).copied().collect();
        let leaves: Vec<Vec<f32>> = shapes
            .iter()
            .zip(1..)
            .map(|(&(rows, cols), key)| change((rows, cols), random(key, rows * cols)))
            .collect();
        let wide: Vec<Vec<f64>> =
            leaves.iter().map(|leaf| leaf.iter().map(|x| f64::from(*x)).collect()).collect();
        let expected = (self.oracle)(&wide);
        let functional = random(77, expected.len());
        let slopes = self.slopes(&wide, &functional);
        let compare = |what: &str, (y, gradients): (Vec<f32>, Vec<Vec<f32>>)| {
            let what = format!("{} on {what}", self.name);
            close_within(&format!("{what}: the result"), &y, &expected, bound);
            for (i, (found, slope)) in gradients.iter().zip(&slopes).enumerate() {
                close(&format!("{what}: the gradient of leaf {i} {:?}", shapes[i]), found, slope);
            }
        };
        let given =
            Given { rounding, batch: &batch, shapes: &shapes, leaves: &leaves, functional: &functional };
        for kernels in Kernels::available() {
            let cpu = Cpu::new(kernels);
            compare(&kernels.isa().to_string(), self.run(&cpu, self.tape.cpu, given));
        }
        let options = Options { storage: Storage::F32, reuse: false, ..Options::default() };
        // A stand-in beside a real driver would be a compiler of one and a driver of the other.
        if has_gpu() {
            compare("a GPU", self.run(&Cuda::open(&options).unwrap(), self.tape.cuda, given));
            return;
        }
        for order in ORDERS.into_iter().filter(|_| limbeck_emulation::load()) {
            limbeck_emulation::set_order(order);
            let cuda = Cuda::open(&options).unwrap();
            compare(&format!("emulated CUDA, {order:?}"), self.run(&cuda, self.tape.cuda, given));
        }
    }

    /// The result on the tape, and the gradients of parameters and inputs.
    fn run<B: Backend>(
        &self,
        device: &B,
        on_tape: &OnTape<'_, B>,
        given: Given<'_>,
    ) -> (Vec<f32>, Vec<Vec<f32>>) {
        let Given { rounding, batch, shapes, leaves, functional } = given;
        let spec = |(i, &(rows, cols)): (usize, &(usize, usize))| ParamSpec {
            name: i.to_string(),
            role: Role::Weight,
            rows,
            cols,
        };
        let specs: Vec<ParamSpec> = self.params.iter().enumerate().map(spec).collect();
        let value = |spec: &ParamSpec| Ok(leaves[spec.name.parse::<usize>().unwrap()].clone());
        let mut params = ParamStore::new(device, &specs, value).unwrap();
        params.round(rounding.cloned());
        let mut tape = Tape::recording(device, &params, batch, Some(NOISE));
        let inputs: Vec<Var<B>> = (specs.len()..leaves.len())
            .map(|i| {
                let shape = Shape::new(shapes[i].0, shapes[i].1);
                tape.leaf(Tensor::upload(device, &leaves[i], shape).unwrap())
            })
            .collect();
        let y = on_tape(&mut tape, &inputs).unwrap();
        let dy = Tensor::upload(device, functional, y.tensor().shape()).unwrap();
        let grads = tape.backward([(y.clone(), dy)]).unwrap();
        let of_params = (0..specs.len()).map(|i| grads.param(ParamId(i as u32)));
        let gradients = of_params.chain(inputs.iter().map(|input| grads.var(input.id())));
        // A leaf that the result does not depend on has no gradient: that of a constant.
        let download = |(gradient, leaf): (Option<&Tensor<B>>, &Vec<f32>)| {
            gradient.map_or_else(|| vec![0.0; leaf.len()], |tensor| tensor.download(device).unwrap())
        };
        let gradients = gradients.zip(leaves).map(download).collect();
        (y.tensor().download(device).unwrap(), gradients)
    }

    /// The derivative of the functional by each element of each leaf.
    fn slopes(&self, leaves: &[Vec<f64>], functional: &[f32]) -> Vec<Vec<f64>> {
        let loss = |leaves: &[Vec<f64>]| -> f64 {
            (self.oracle)(leaves).iter().zip(functional).map(|(y, dy)| y * f64::from(*dy)).sum()
        };
        (0..leaves.len()).map(|leaf| slopes(leaves, leaf, &loss)).collect()
    }
}

/// The derivatives of `loss` by each element of `leaves[leaf]`, by central differences.
pub fn slopes(leaves: &[Vec<f64>], leaf: usize, loss: &dyn Fn(&[Vec<f64>]) -> f64) -> Vec<f64> {
    let (mut leaves, h) = (leaves.to_vec(), 1e-5);
    let mut slopes = Vec::with_capacity(leaves[leaf].len());
    for i in 0..leaves[leaf].len() {
        let x = leaves[leaf][i];
        leaves[leaf][i] = x + h;
        let above = loss(&leaves);
        leaves[leaf][i] = x - h;
        let below = loss(&leaves);
        leaves[leaf][i] = x;
        slopes.push((above - below) / (2.0 * h));
    }
    slopes
}

pub fn close(what: &str, found: &[f32], expected: &[f64]) {
    close_within(what, found, expected, BOUND);
}

fn close_within(what: &str, found: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: elements");
    // Where terms of order 1 cancel, as in the gradient of a key's bias, what is left is their rounding: 1e-6.
    let scale = expected.iter().fold(0.05, |largest: f64, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs() / scale;
        assert!(error <= bound, "{what}: element {i} is {found}, expected {expected:.8} ({error:.1e})");
    }
}
