//! The values a network starts with: from a checkpoint, or drawn from a seed.

use super::{HfDirectory, Located, Wanted};
use crate::Result;
use crate::nn::{ParamSpec, Role};
use crate::ops::noise::mix;

/// Standard deviation of new weights, BERT's.
const SPREAD: f64 = 0.02;

/// The values of each spec: from the directory, and drawn from `seed` for a head that the file lacks or that
/// `fresh_head` sets aside.
///
/// # Errors
/// A parameter of the encoder is missing, has another shape, or holds a value that is no number.
pub fn read_values(
    directory: &HfDirectory,
    specs: &[ParamSpec],
    fresh_head: bool,
    seed: u64,
) -> Result<Vec<Vec<f32>>> {
    let dims: Vec<Vec<usize>> = specs.iter().map(ParamSpec::dims).collect();
    let wanted: Vec<Wanted<'_>> =
        specs.iter().zip(&dims).map(|(spec, shape)| Wanted { name: &spec.name, shape }).collect();
    let located = directory.locate(&wanted, fresh_head)?;
    let read = |(spec, located): (&ParamSpec, Located)| match located {
        Located::Fresh => Ok(fresh(spec, seed)),
        Located::Found(name) => {
            let mut values = Vec::with_capacity(spec.len());
            directory.tensors.read_f32(&name, &mut values)?;
            Ok(values)
        }
    };
    specs.iter().zip(located).map(read).collect()
}

/// New values: normal with a deviation of 0.02 for matrices and tables, one for gamma, zero for the rest. They
/// depend on the seed and the parameter's name.
pub fn fresh(spec: &ParamSpec, seed: u64) -> Vec<f32> {
    match spec.role {
        Role::Bias | Role::Beta => vec![0.0; spec.len()],
        Role::Gamma => vec![1.0; spec.len()],
        Role::Weight | Role::Embedding => {
            let key = spec.name.bytes().fold(mix(seed), |key, byte| mix(key ^ u64::from(byte)));
            (0..spec.len() as u64).map(|i| (SPREAD * normal(key, i)) as f32).collect()
        }
    }
}

/// A standard normal number (Box and Muller).
fn normal(key: u64, i: u64) -> f64 {
    // In (0, 1]: the logarithm below is finite.
    let uniform = |z: u64| ((z >> 11) + 1) as f64 / (1u64 << 53) as f64;
    let (u, v) = (uniform(mix(key ^ mix(2 * i))), uniform(mix(key ^ mix(2 * i + 1))));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
