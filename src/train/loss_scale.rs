//! What losses are multiplied by, so that gradients do not vanish where they are stored in few bits (Micikevicius et al.,
//! arXiv:1710.03740): as large as it may be without overflow, which is found by trying.

use crate::backend::Device;

/// Steps without an overflow after which the next larger factor is tried.
const PATIENCE: u64 = 2000;

/// A power of two, and how long it has been good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    factor: f64,
    good: u64,
    /// Whether there is anything to find.
    moves: bool,
}

impl LossScale {
    /// What a training on `device` begins with.
    pub fn new<D: Device>(device: &D) -> LossScale {
        LossScale::resumed(device, None)
    }

    /// A scale that goes on from a factor and how many steps it has been good for.
    pub fn resumed<D: Device>(device: &D, saved: Option<(f64, u64)>) -> LossScale {
        let first = device.loss_scale();
        let (factor, good) = saved.filter(|_| first.is_some()).unwrap_or((first.unwrap_or(1.0), 0));
        LossScale { factor, good, moves: first.is_some() }
    }

    /// What losses are multiplied by.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// What goes into a saved state: nothing where nothing moves.
    pub fn saved(&self) -> Option<(f64, u64)> {
        self.moves.then_some((self.factor, self.good))
    }

    /// Updates the scale after a step: overflow halves it, many finite steps in a row double it. False if gradients were not finite
    /// and the scale cannot be lowered any more: training has diverged. True otherwise; a step that overflowed is then left out.
    pub fn after(&mut self, finite: bool) -> bool {
        if finite {
            self.good += 1;
            if self.moves && self.good == PATIENCE {
                (self.factor, self.good) = (2.0 * self.factor, 0);
            }
            return true;
        }
        self.good = 0;
        let lower = self.moves && self.factor > 1.0;
        if lower {
            self.factor /= 2.0;
        }
        lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_halves_it_and_patience_doubles_it() {
        let mut scale = LossScale { factor: 4.0, good: 0, moves: true };
        assert!(scale.after(false) && scale.after(false));
        assert_eq!(scale.factor(), 1.0);
        assert!(!scale.after(false), "without a factor it is the training that diverges");
        (0..PATIENCE).for_each(|_| assert!(scale.after(true)));
        assert_eq!(scale.saved(), Some((2.0, 0)));
        let mut fixed = LossScale { factor: 1.0, good: 0, moves: false };
        (0..PATIENCE).for_each(|_| assert!(fixed.after(true)));
        assert!(!fixed.after(false) && fixed.factor() == 1.0 && fixed.saved().is_none());
    }
}
