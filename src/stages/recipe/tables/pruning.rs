//! What the keys of `[prune]` for hidden width, single weights and rounds may say.

use serde::{Deserialize, Serialize};

/// What makes a single weight important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightImportance {
    /// Its absolute value.
    #[default]
    Magnitude,
    /// Whether training moves it away from zero: `-Σ w·∂loss/∂w` over all steps (Sanh et al., 2020). Not with
    /// `schedule = "once"`.
    Movement,
    /// How the loss would change without it, by the diagonal of the empirical Fisher information: `Σ (w·∂loss/∂w)²` over
    /// the steps since weights last went. Not with `schedule = "once"`.
    Fisher,
}

/// What a round of iterative pruning goes back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rewind {
    /// What is left gets the weights again that it had at `rewind_to`, and each round the learning rates from there on
    /// (Frankle et al., 2019).
    #[default]
    Weights,
    /// Each round has the learning rates from `rewind_to` on, and the weights stay (Renda et al., 2020).
    Rate,
    /// Training goes on.
    None,
}

/// What makes a hidden feature important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HiddenImportance {
    /// Mean over texts of (∂loss/∂gate)² for a gate on the feature behind every norm: of (Σ γ·∂γ + β·∂β)².
    #[default]
    Gradient,
    /// The sum over matrices of the feature's share of the sum of squares.
    Norm,
    /// Chance, from the seed: the control.
    Random,
}
