//! What each term of a recipe contributed: the whole recipe against the recipe without it.
//!
//! Both are run to the end, and the files that they deploy answer the same texts and are timed in turns. With one seed a
//! difference of accuracies has McNemar's exact test over the texts; with several it has Student's interval over the
//! seeds, each with its own pair of runs, since texts that are asked again are no new texts.

use super::cells::{dash, mib, milliseconds, times};
use super::over_seeds::Accuracy;
use super::statistics::{Paired, mean, wilson};
use crate::stages::sweep::WHOLE;
use serde::Serialize;

/// How one file did.
#[derive(Clone, Debug)]
pub struct AblatedTrial {
    /// The seed of its run.
    pub seed: u64,
    /// Whether it classified text i rightly.
    pub right: Vec<bool>,
    /// Its bytes.
    pub file_bytes: u64,
    /// Median latency; all files timed in one process. `None` if they were not.
    pub milliseconds: Option<f64>,
}

/// A recipe, and how it differs from the whole one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contribution {
    /// [`WHOLE`], or `without-` and a term.
    pub name: String,
    /// Seeds that it was run with, and the whole recipe as well.
    pub seeds: usize,
    /// Against that of the whole recipe.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Mean bytes of the file.
    pub file_bytes: f64,
    /// Mean of its bytes, a multiple of the whole recipe's.
    pub times_bytes: f64,
    /// Mean of the median latencies.
    pub milliseconds: Option<f64>,
    /// Mean of its latency, a multiple of the whole recipe's.
    pub times_milliseconds: Option<f64>,
}

impl Contribution {
    /// Of a recipe that was `tried`, against the `whole` one; only seeds that both have count. `None` if they share none.
    ///
    /// # Panics
    /// If two files of a seed answered different numbers of texts.
    pub fn of(name: &str, tried: &[AblatedTrial], whole: &[AblatedTrial]) -> Option<Contribution> {
        let pairs: Vec<(&AblatedTrial, &AblatedTrial)> = tried
            .iter()
            .filter_map(|tried| Some((tried, whole.iter().find(|whole| whole.seed == tried.seed)?)))
            .collect();
        let (first, of) = pairs.first()?;
        let mut paired = Paired::default();
        assert_eq!(first.right.len(), of.right.len(), "the same texts");
        of.right.iter().zip(&first.right).for_each(|(whole, tried)| paired.record(*whole, *tried));
        let accuracies: Vec<[f64; 2]> =
            pairs.iter().map(|(tried, whole)| [tried.accuracy(), whole.accuracy()]).collect();
        let of_texts = wilson(first.correct(), first.right.len() as u64);
        let accuracy = Accuracy::over_seeds(&accuracies, of_texts, Some(paired.p_value()));
        let ratios =
            pairs.iter().map(|(tried, whole)| tried.file_bytes as f64 / whole.file_bytes.max(1) as f64);
        let times: Option<Vec<f64>> = pairs.iter().map(|(tried, _)| tried.milliseconds).collect();
        let slower: Option<Vec<f64>> =
            pairs.iter().map(|(tried, whole)| Some(tried.milliseconds? / whole.milliseconds?)).collect();
        Some(Contribution {
            name: name.to_owned(),
            seeds: pairs.len(),
            accuracy: if name == WHOLE { accuracy.itself() } else { accuracy },
            file_bytes: mean(&pairs.iter().map(|(tried, _)| tried.file_bytes as f64).collect::<Vec<_>>()),
            times_bytes: mean(&ratios.collect::<Vec<_>>()),
            milliseconds: times.map(|times| mean(&times)),
            times_milliseconds: slower.map(|slower| mean(&slower)),
        })
    }

    /// The headings of [`Contribution::cells`].
    pub const HEADINGS: [&str; 8] =
        ["recipe", "seeds", "accuracy % (95 %)", "Δ points", "MiB", "size", "p50 ms", "time"];

    /// A line of the table.
    pub fn cells(&self) -> [String; 8] {
        [
            self.name.clone(),
            self.seeds.to_string(),
            self.accuracy.cell(),
            self.accuracy.difference_cell(),
            mib(self.file_bytes),
            times(self.times_bytes),
            dash(self.milliseconds, milliseconds),
            dash(self.times_milliseconds, times),
        ]
    }
}

impl AblatedTrial {
    fn correct(&self) -> u64 {
        self.right.iter().filter(|right| **right).count() as u64
    }

    fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.right.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(seed: u64, wrong: &[usize], file_bytes: u64, ms: f64) -> AblatedTrial {
        let right = (0..10).map(|text| !wrong.contains(&text)).collect();
        AblatedTrial { seed, right, file_bytes, milliseconds: Some(ms) }
    }

    #[test]
    fn one_seed_has_a_paired_test() {
        let whole = [tried(1, &[0], 100, 2.0)];
        let without = [tried(1, &[1, 2, 3, 4, 5, 6], 150, 3.0)];
        let found = Contribution::of("without-heads", &without, &whole).unwrap();
        assert!(
            (found.accuracy.difference + 0.5).abs() <= 1e-12 && (found.accuracy.mean - 0.4).abs() <= 1e-12
        );
        // Six texts only the whole gets right, one only the other: 2 · (1 + 7) / 2⁷.
        assert!((found.accuracy.p_value.unwrap() - 0.125).abs() <= 1e-12);
        assert_eq!((found.times_bytes, found.times_milliseconds), (1.5, Some(1.5)));
        let cells = found.cells();
        assert_eq!((cells[3].as_str(), cells[5].as_str()), ("-50.00 (p = 0.1250)", "1.50×"));
        let itself = Contribution::of("whole", &whole, &whole).unwrap();
        assert_eq!(
            (itself.accuracy.p_value, itself.accuracy.difference, itself.cells()[3].as_str()),
            (None, 0.0, "–")
        );
    }

    #[test]
    fn seeds_are_paired_and_others_left_out() {
        let whole = [tried(1, &[0], 100, 2.0), tried(2, &[0, 1], 100, 2.0), tried(3, &[], 100, 2.0)];
        let without = [tried(2, &[0, 1, 2], 200, 2.0), tried(1, &[0, 3, 4], 100, 4.0), tried(9, &[], 1, 1.0)];
        let found = Contribution::of("without-heads", &without, &whole).unwrap();
        assert_eq!((found.seeds, found.accuracy.p_value), (2, None));
        assert!((found.accuracy.difference + 0.15).abs() <= 1e-12);
        // -0.1 and -0.2: s / √2 = 0.05.
        let [low, high] = found.accuracy.difference_interval.unwrap();
        assert!((low + 0.15 + 0.635310).abs() <= 1e-5 && (high + 0.15 - 0.635310).abs() <= 1e-5);
        assert_eq!((found.times_bytes, found.times_milliseconds), (1.5, Some(1.5)));
        assert_eq!(Contribution::of("x", &without[2..], &whole), None);
    }
}
