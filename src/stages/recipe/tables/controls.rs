//! `[controls]`: what a run is compared with besides its own baseline.

use serde::{Deserialize, Serialize};

/// `[controls]`: rows of the table that say what compression is worth. They change no artifact of the stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Controls {
    /// The row `int8 baseline`: the baseline as `[quantize]` has it, without its exceptions and with int8 for `"auto"`; nothing deleted,
    /// nothing distilled. Default false.
    pub int8: bool,
    /// The row `n-grams`: logistic regression on words and pairs of neighbours, trained on the same rows; no network at
    /// all. Default false.
    pub ngrams: bool,
    /// Features that words and pairs are hashed to. Default 262144, which makes a MiB for each class.
    pub ngram_buckets: usize,
    /// Passes over the training rows. Default 5.
    pub ngram_epochs: usize,
    /// AdaGrad's step, from 1e-9 to 1000. Default 0.5.
    pub ngram_learning_rate: f64,
    /// What large weights cost: half of this times the squares of those that a text uses. Default 1e-5.
    pub ngram_l2: f64,
}

impl Default for Controls {
    fn default() -> Self {
        Controls {
            int8: false,
            ngrams: false,
            ngram_buckets: 1 << 18,
            ngram_epochs: 5,
            ngram_learning_rate: 0.5,
            ngram_l2: 1e-5,
        }
    }
}
