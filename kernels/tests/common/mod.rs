//! What the tests of the kernels share: the walk over the rows, random numbers, guarded outputs.

#![allow(dead_code)] // Each test binary compiles this file and uses a part of it.

use limbeck_kernels::Kernels;

/// Every row this CPU can run, named on standard error. A row that `LIMBECK_REQUIRE_ISA` (`avx2,avx512`)
/// lists and the CPU lacks is a failure, so that no suite passes by having skipped it.
pub fn rows() -> Vec<Kernels> {
    let rows: Vec<_> = Kernels::available().collect();
    let names: Vec<_> = rows.iter().map(|kernels| kernels.isa().name()).collect();
    eprintln!("rows covered: {}", names.join(", "));
    if let Ok(required) = std::env::var("LIMBECK_REQUIRE_ISA") {
        for name in required.split(',').filter(|name| !name.is_empty()) {
            assert!(names.contains(&name), "LIMBECK_REQUIRE_ISA={required}, but this CPU cannot run {name}");
        }
    }
    rows
}

/// SplitMix64: enough randomness for tests, the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }

    /// Uniform in `low..=high`.
    pub fn int(&mut self, low: i32, high: i32) -> i32 {
        low + (self.next() % (high - low + 1) as u64) as i32
    }
}

/// An output between canaries, which [`Guarded::take`] checks.
pub struct Guarded<T> {
    memory: Vec<T>,
    canary: T,
}

const GUARD: usize = 64;

impl<T: Copy + PartialEq + std::fmt::Debug> Guarded<T> {
    pub fn new(inside: &[T], canary: T) -> Self {
        let guard = vec![canary; GUARD];
        Self { memory: [&guard, inside, &guard].concat(), canary }
    }

    pub fn get(&mut self) -> &mut [T] {
        let end = self.memory.len() - GUARD;
        &mut self.memory[GUARD..end]
    }

    pub fn take(self) -> Vec<T> {
        let end = self.memory.len() - GUARD;
        let outside = self.memory[..GUARD].iter().chain(&self.memory[end..]);
        assert!(outside.into_iter().all(|x| *x == self.canary), "a kernel wrote outside its output");
        self.memory[GUARD..end].to_vec()
    }
}
