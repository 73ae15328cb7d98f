//! An accuracy over the seeds of a run, and how far it lies from another's.
//!
//! With one seed, intervals and p-values are over texts; with several they are Student's over the seeds, each with its own
//! pair of runs, since texts that are asked again are no new texts.

use super::cells;
use super::statistics::{Interval, mean, student, student_of_fractions};
use serde::Serialize;

/// An accuracy, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Mean of the seeds.
    #[serde(rename = "accuracy")]
    pub mean: f64,
    /// Lower end of its 95 % interval: Student's over seeds; of a single seed Wilson's, over texts.
    #[serde(rename = "accuracy_low")]
    pub low: f64,
    /// Upper end of it.
    #[serde(rename = "accuracy_high")]
    pub high: f64,
    /// Mean of the accuracy less that of what it is compared with; 0 for that itself.
    pub difference: f64,
    /// Ends of its 95 % interval over seeds.
    pub difference_interval: Option<[f64; 2]>,
    /// Of McNemar's exact test against what it is compared with, where there is a single seed.
    pub p_value: Option<f64>,
}

impl Accuracy {
    /// Of each seed, `[its accuracy, that of what it is compared with]`. What a single seed says of texts counts only where
    /// there is one: the interval, and the p-value.
    ///
    /// # Panics
    /// If there is no seed.
    pub fn over_seeds(seeds: &[[f64; 2]], of_texts: Interval, p_value: Option<f64>) -> Accuracy {
        assert!(!seeds.is_empty(), "an accuracy of no run");
        let accuracies: Vec<f64> = seeds.iter().map(|[accuracy, _]| *accuracy).collect();
        let differences: Vec<f64> = seeds.iter().map(|[accuracy, other]| accuracy - other).collect();
        let Interval { low, high } = student_of_fractions(&accuracies).unwrap_or(of_texts);
        Accuracy {
            mean: mean(&accuracies),
            low,
            high,
            difference: mean(&differences),
            difference_interval: student(&differences).map(|(_, interval)| [interval.low, interval.high]),
            p_value: p_value.filter(|_| seeds.len() == 1),
        }
    }

    /// The reference's own row: difference 0, without interval or p-value.
    pub fn itself(self) -> Accuracy {
        Accuracy { difference_interval: None, p_value: None, ..self }
    }

    /// `93.57 (92.99–94.10)`.
    pub fn cell(&self) -> String {
        cells::accuracy(self.mean, self.low, self.high)
    }

    /// `-0.11 (p = 0.5412)`, or of several seeds `-0.11 (-0.32 to +0.10)`.
    pub fn difference_cell(&self) -> String {
        let points = cells::points;
        match (self.difference_interval, self.p_value) {
            (Some([low, high]), _) => {
                format!("{} ({} to {})", points(self.difference), points(low), points(high))
            }
            (None, Some(p)) => format!("{} ({})", points(self.difference), cells::p_value(p)),
            (None, None) => cells::dash(None, points),
        }
    }
}
