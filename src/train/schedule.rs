//! The learning rate over the steps.

/// Linear warm-up to the full rate, then linear decay to zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The full rate.
    pub learning_rate: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// All steps.
    pub steps: u64,
}

impl Schedule {
    /// The rate of a step, counted from 0: the first step of warm-up has `1 / warmup` of the full rate.
    pub fn rate(&self, step: u64) -> f64 {
        let fraction = if step < self.warmup {
            (step + 1) as f64 / self.warmup as f64
        } else {
            self.steps.saturating_sub(step) as f64 / (self.steps - self.warmup).max(1) as f64
        };
        self.learning_rate * fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_zero() {
        let schedule = Schedule { learning_rate: 1.0, warmup: 2, steps: 6 };
        let rates: Vec<f64> = (0..7).map(|step| schedule.rate(step)).collect();
        assert_eq!(rates, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]);
        assert_eq!(Schedule { learning_rate: 1.0, warmup: 0, steps: 1 }.rate(0), 1.0);
    }
}
