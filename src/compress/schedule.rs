//! How much is pruned when.

/// The fraction pruned after `progress` (0 to 1) of a schedule that ends at `target`: fast at first, while much
/// is redundant, slow at the end (Zhu and Gupta, arXiv:1710.01878).
pub fn cubic(target: f64, progress: f64) -> f64 {
    target * (1.0 - (1.0 - progress.clamp(0.0, 1.0)).powi(3))
}

/// The fraction pruned after `progress` (0 to 1) of events that each take the same fraction of what is left.
pub fn geometric(target: f64, progress: f64) -> f64 {
    1.0 - (1.0 - target).powf(progress.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_nothing_and_ends_at_the_target() {
        assert_eq!(cubic(0.6, 0.0), 0.0);
        assert_eq!(cubic(0.6, 1.0), 0.6);
        assert!((cubic(0.8, 0.5) - 0.7).abs() < 1e-12);
        assert_eq!(cubic(0.6, 2.0), 0.6);
    }

    #[test]
    fn each_event_takes_the_same_fraction_of_what_is_left() {
        assert_eq!((geometric(0.875, 0.0), geometric(0.875, 1.0)), (0.0, 0.875));
        assert!((geometric(0.875, 1.0 / 3.0) - 0.5).abs() < 1e-12);
        assert!((geometric(0.875, 2.0 / 3.0) - 0.75).abs() < 1e-12);
        assert_eq!((geometric(1.0, 0.0), geometric(1.0, 0.5)), (0.0, 1.0));
    }
}
