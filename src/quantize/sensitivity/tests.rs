use super::divergence::divergence;
use super::*;

#[test]
fn a_ratio_is_that_of_squares() {
    let mut noise = SnrAccumulator::default();
    assert_eq!(noise.decibels(), None);
    noise.add(&[3.0, 4.0], &[3.0, 4.0]);
    assert_eq!(noise.decibels(), None, "nothing lost");
    noise.add(&[5.0], &[5.5]);
    // 50 of signal, a quarter of noise: 200, 23.01 dB.
    assert!((noise.decibels().unwrap() - 10.0 * 200f64.log10()).abs() <= 1e-12);
    let mut thrice = SnrAccumulator::default();
    thrice.add_times(3, &[1.0], &[1.5]);
    assert!((thrice.decibels().unwrap() - 10.0 * 4f64.log10()).abs() <= 1e-12);
}

#[test]
fn a_divergence_is_that_of_its_formula() {
    assert_eq!(divergence(&[0.5, 0.5], &[0.5, 0.5]), 0.0);
    let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
    assert!((divergence(&[0.5, 0.5], &[0.25, 0.75]) - expected).abs() <= 1e-12);
    assert!(divergence(&[0.0, 1.0], &[1.0, 0.0]).is_finite());
}
