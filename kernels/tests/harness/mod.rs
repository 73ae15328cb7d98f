//! What the kernel tests share: the rows to test, random numbers, guarded outputs, errors in ulps.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use limbeck_kernels::random::SplitMix64;
use limbeck_kernels::{Isa, Kernels};
use std::io::Write;
use std::sync::Once;

/// f32's unit roundoff: a rounded operation is off by at most this fraction.
pub const EPS: f64 = (f32::EPSILON / 2.0) as f64;

/// Lengths around every boundary of a sixteen-lane loop, and the models' own, a pruned one among them.
pub const SIZES: [usize; 12] = [0, 1, 2, 15, 16, 17, 31, 33, 65, 384, 768, 1907];

/// m, n, k: edges of the tiles (3, 4, 6, 12 rows; 16, 32 columns), of the blocks of k (192 words: 192 elements in
/// f32, 384 in bf16, 768 in int8) and of m, primes, the models' own shapes and pruned ones (7 heads, 1907 units).
pub const GEMM_SHAPES: &[[usize; 3]] = &[
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

/// Every row this CPU can run. Those named in `LIMBECK_REQUIRE_ISA` must be among them.
pub fn rows() -> Vec<Kernels> {
    let rows: Vec<Kernels> = Kernels::available().collect();
    let names: Vec<&str> = rows.iter().map(|row| row.isa().name()).collect();
    // Once for each test binary, and not by println!, which the test harness keeps to itself when a test passes.
    static SAID: Once = Once::new();
    let said = format!("rows under test: {}\n", names.join(", "));
    SAID.call_once(|| std::io::stderr().write_all(said.as_bytes()).unwrap());
    if let Ok(required) = std::env::var("LIMBECK_REQUIRE_ISA") {
        for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            assert!(
                Isa::ALL.iter().any(|isa| isa.name() == name),
                "LIMBECK_REQUIRE_ISA: {name} is not a row"
            );
            assert!(names.contains(&name), "LIMBECK_REQUIRE_ISA: this CPU lacks {name}");
        }
    }
    rows
}

/// Test data from a seed.
pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(SplitMix64::new(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next_word()
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [-1, 1).
    pub fn float(&mut self) -> f32 {
        self.0.signed_unit()
    }

    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }

    /// Uniform in `low..=high`.
    pub fn int(&mut self, low: i32, high: i32) -> i32 {
        low + (self.next() % (high - low + 1) as u64) as i32
    }

    /// Roughly normal, mean 0, deviation 1, no tail beyond 6.
    pub fn normal(&mut self) -> f32 {
        ((0..12).map(|_| self.unit()).sum::<f64>() - 6.0) as f32
    }

    pub fn normals(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.normal()).collect()
    }
}

/// What stands around an output: a number that no kernel writes.
pub trait Canary: Copy + PartialEq {
    const CANARY: Self;
}

impl Canary for f32 {
    const CANARY: f32 = f32::from_bits(0xdead_beef);
}

impl Canary for i32 {
    const CANARY: i32 = 0x5ead_beef;
}

const GUARD: usize = 64;

/// An output between two poisoned stretches of memory.
pub struct Guarded<T> {
    memory: Vec<T>,
}

impl Guarded<f32> {
    pub fn new(len: usize) -> Guarded<f32> {
        Guarded::of(&vec![f32::NAN; len])
    }
}

impl<T: Canary> Guarded<T> {
    pub fn of(values: &[T]) -> Guarded<T> {
        let guard = [T::CANARY; GUARD];
        Guarded { memory: [&guard, values, &guard].concat() }
    }

    pub fn inside(&mut self) -> &mut [T] {
        let end = self.memory.len() - GUARD;
        &mut self.memory[GUARD..end]
    }

    /// The output, once nothing around it has been touched.
    pub fn checked(mut self) -> Vec<T> {
        let len = self.inside().len();
        let (before, rest) = self.memory.split_at(GUARD);
        let touched = before.iter().chain(&rest[len..]).any(|x| *x != T::CANARY);
        assert!(!touched, "wrote outside its {len} values");
        self.inside().to_vec()
    }
}

/// The largest of these errors; NaN if one of them is, so that no bound holds for it.
pub fn worst(errors: impl IntoIterator<Item = f64>) -> f64 {
    let keep = |worst: f64, error: f64| if error <= worst || worst.is_nan() { worst } else { error };
    errors.into_iter().fold(0.0, keep)
}

/// The distance from the true value in units of the last place of an `f32` of its size.
pub fn ulps(found: f32, truth: f64) -> f64 {
    let exponent = if truth == 0.0 { -126 } else { (truth.abs().log2().floor() as i32).max(-126) };
    (f64::from(found) - truth).abs() / f64::powi(2.0, exponent - 23)
}

pub fn doubles(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Asserts that `gradient` is the slope of `loss` at `x`, by central differences in f64.
pub fn assert_slope(what: &str, x: &[f64], gradient: &[f64], loss: impl Fn(&[f64]) -> f64) {
    assert_eq!(x.len(), gradient.len());
    assert!(gradient.iter().any(|g| *g != 0.0), "{what}: no gradient to check");
    let largest = gradient.iter().fold(0.0f64, |max, g| max.max(g.abs()));
    let step = 1e-5;
    for i in 0..x.len() {
        let mut moved = x.to_vec();
        moved[i] = x[i] + step;
        let above = loss(&moved);
        moved[i] = x[i] - step;
        let slope = (above - loss(&moved)) / (2.0 * step);
        let error = (slope - gradient[i]).abs();
        assert!(error <= 1e-6 * largest.max(1.0), "{what}[{i}]: gradient {} but slope {slope}", gradient[i]);
    }
}
