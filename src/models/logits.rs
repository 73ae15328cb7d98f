//! What logits say.

use super::ModelConfig;

/// The place of the highest logit; of equal ones the first.
pub fn highest(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// The softmax of one text's logits: one probability a class. They sum to 1 at any scale of the logits.
pub fn probabilities(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

impl ModelConfig {
    /// The name of the class with the highest of one text's logits; of equal ones the first.
    ///
    /// # Panics
    /// If the model has no classes; one that was opened for prediction has.
    pub fn label(&self, logits: &[f32]) -> &str {
        &self.labels[highest(logits)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_at_any_scale() {
        for logits in [[0.0, 0.0], [1000.0, -1000.0], [-1e30, -1e30]] {
            let sum: f32 = probabilities(&logits).iter().sum();
            assert!((sum - 1.0).abs() <= 1e-6, "{logits:?}");
        }
        assert_eq!(probabilities(&[0.0, 0.0, 0.0, 0.0]), [0.25; 4]);
    }

    #[test]
    fn of_equal_logits_the_first_is_the_highest() {
        assert_eq!(highest(&[1.0, 3.0, 3.0, -1.0]), 1);
        assert_eq!(highest(&[-0.0, 0.0]), 0);
    }
}
