//! How much is pruned when.

/// The fraction pruned after `progress` (0 to 1) of a schedule that ends at `target`: fast at first, while much
/// is redundant, slow at the end (Zhu and Gupta, arXiv:1710.01878).
pub fn cubic(target: f64, progress: f64) -> f64 {
    target * (1.0 - (1.0 - progress.clamp(0.0, 1.0)).powi(3))
}

#[cfg(test)]
mod tests {
    use super::cubic;

    #[test]
    fn begins_at_nothing_and_ends_at_the_target() {
        assert_eq!(cubic(0.6, 0.0), 0.0);
        assert_eq!(cubic(0.6, 1.0), 0.6);
        assert!((cubic(0.8, 0.5) - 0.7).abs() < 1e-12);
        assert_eq!(cubic(0.6, 2.0), 0.6);
    }
}
