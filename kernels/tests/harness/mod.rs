//! What the kernel tests share: the rows to test, random numbers, guarded outputs, errors in ulps.

use limbeck_kernels::{Isa, Kernels};

/// f32's unit roundoff: a rounded operation is off by at most this fraction.
pub const EPS: f64 = (f32::EPSILON / 2.0) as f64;

/// Lengths around every boundary of a sixteen-lane loop, and the models' own, a pruned one among them.
pub const SIZES: [usize; 12] = [0, 1, 2, 15, 16, 17, 31, 33, 65, 384, 768, 1907];

/// Every row this CPU can run. Those named in `LIMBECK_REQUIRE_ISA` must be among them.
pub fn rows() -> Vec<Kernels> {
    let rows: Vec<Kernels> = Kernels::available().collect();
    let names: Vec<&str> = rows.iter().map(|row| row.isa().name()).collect();
    println!("rows under test: {}", names.join(", "));
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

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Roughly normal, mean 0, deviation 1, no tail beyond 6.
    pub fn normal(&mut self) -> f32 {
        ((0..12).map(|_| self.unit()).sum::<f64>() - 6.0) as f32
    }

    pub fn normals(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.normal()).collect()
    }
}

const CANARY: u32 = 0xdead_beef;
const GUARD: usize = 40;

/// An output between two poisoned stretches of memory.
pub struct Guarded {
    memory: Vec<f32>,
    len: usize,
}

impl Guarded {
    pub fn new(len: usize) -> Guarded {
        Guarded::of(&vec![f32::NAN; len])
    }

    pub fn of(values: &[f32]) -> Guarded {
        let mut memory = vec![f32::from_bits(CANARY); values.len() + 2 * GUARD];
        memory[GUARD..][..values.len()].copy_from_slice(values);
        Guarded { memory, len: values.len() }
    }

    pub fn inside(&mut self) -> &mut [f32] {
        &mut self.memory[GUARD..][..self.len]
    }

    /// The output, once nothing around it has been touched.
    pub fn checked(mut self) -> Vec<f32> {
        let (before, rest) = self.memory.split_at(GUARD);
        let touched = before.iter().chain(&rest[self.len..]).any(|x| x.to_bits() != CANARY);
        assert!(!touched, "wrote outside its {} values", self.len);
        self.inside().to_vec()
    }
}

/// The distance from the true value in units of the last place of an `f32` of its size.
pub fn ulps(found: f32, truth: f64) -> f64 {
    let exponent = if truth == 0.0 { -126 } else { (truth.abs().log2().floor() as i32).max(-126) };
    (f64::from(found) - truth).abs() / f64::powi(2.0, exponent - 23)
}

pub fn doubles(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Asserts |found − value| ≤ factor·ε·magnitude for every element, and that the factor leaves the bound
/// far below the magnitude, so that the assertion can fail.
pub fn assert_close(what: &str, found: &[f32], truth: &[super::oracle::Sum], factor: f64) {
    assert_eq!(found.len(), truth.len(), "{what}");
    assert!(factor * EPS < 1e-3, "{what}: a vacuous bound");
    for (i, (&found, truth)) in found.iter().zip(truth).enumerate() {
        let error = (f64::from(found) - truth.value).abs();
        let bound = factor * EPS * truth.magnitude + f64::from(f32::MIN_POSITIVE);
        assert!(error <= bound, "{what}[{i}]: {found} for {}, error {error:e} over {bound:e}", truth.value);
    }
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
