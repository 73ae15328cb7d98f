//! What few bits do to each matrix and each table by itself.
//!
//! Three things are measured, each against the network in f32:
//!
//! - the signal-to-noise ratio of the parameter, `10·log₁₀(Σ w² / Σ (ŵ − w)²)`, in int8 and in int4;
//! - that of what it computes, `y = x·Wᵀ + b` of a matrix or the rows that texts read of a table, with activations in
//!   int8 as a session has them, a scale for each row; and of a matrix in int8 also with static scales, one for its
//!   input, by each [`Calibration`](super::calibration::Calibration) on other texts;
//! - what becomes of the logits if this parameter alone is rounded to int4: the mean Kullback-Leibler divergence over
//!   texts, `Σ p·ln(p / p̂)`, in nats.
//!
//! ```text
//! texts ─ first half ──▶ magnitudes of every matrix's input ──▶ static scales ─┐
//!       └ second half ─▶ inputs of every matrix ─▶ x·Wᵀ and x̂·Ŵᵀ ◀─────────────┘ ──▶ ratios
//!       └ all ─────────▶ logits, with each parameter rounded in turn ──▶ divergences
//! ```
//!
//! Inputs are those of the f32 network: the noise of earlier layers is not in a matrix's ratio.

mod divergence;
mod ratios;

use super::calibration::Magnitudes;
use crate::autograd::Tape;
use crate::data::TokenSet;
use crate::nn::{Linear, ParamId, ParamSpec};
use crate::ops::Backend;
use crate::tensor::Tensor;
use crate::train::{Learner, Progress};
use crate::{Batch, Error, Result};
use divergence::{divergence_without, probabilities};
use ratios::Ratios;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// Texts that run together.
const TEXTS: usize = 16;

/// Signal and noise, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SnrAccumulator {
    signal: f64,
    noise: f64,
}

impl SnrAccumulator {
    /// Adds values and what they became.
    ///
    /// # Panics
    /// If there are not as many of both.
    pub fn add(&mut self, exact: &[f32], found: &[f32]) {
        assert_eq!(exact.len(), found.len(), "as many values as there were");
        self.add_times(1, exact, found);
    }

    /// As [`SnrAccumulator::add`], of values that come so often.
    fn add_times(&mut self, times: usize, exact: &[f32], found: &[f32]) {
        for (&exact, &found) in exact.iter().zip(found) {
            let exact = f64::from(exact);
            self.signal += times as f64 * exact * exact;
            self.noise += times as f64 * (f64::from(found) - exact).powi(2);
        }
    }

    /// The ratio in decibels; `None` where nothing was lost, or there was nothing.
    pub fn decibels(&self) -> Option<f64> {
        (self.noise > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
    }
}

/// A parameter in one form.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FormStats {
    /// Bytes in the file, with scales and the like.
    pub bytes: usize,
    /// Signal-to-noise ratio of the parameter, in decibels.
    pub weights_db: Option<f64>,
    /// Of what it computes, with a scale for each row of activations.
    pub outputs_db: Option<f64>,
}

/// What a matrix in int8 computes from an input with one scale for all rows, in decibels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StaticScales {
    /// By [`Calibration::Max`](super::calibration::Calibration::Max).
    pub max_db: Option<f64>,
    /// By [`Calibration::Percentile`](super::calibration::Calibration::Percentile).
    pub percentile_db: Option<f64>,
    /// By [`Calibration::Mse`](super::calibration::Calibration::Mse).
    pub mse_db: Option<f64>,
}

impl StaticScales {
    /// The best of the three.
    pub fn best(&self) -> Option<f64> {
        [self.max_db, self.percentile_db, self.mse_db].into_iter().flatten().max_by(f64::total_cmp)
    }
}

/// What few bits do to one matrix or table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MatrixSensitivity {
    /// The parameter.
    pub name: String,
    /// Outputs, or entries.
    pub rows: usize,
    /// Inputs, or the width of a row.
    pub cols: usize,
    /// In int8, with a scale for each row.
    pub int8: FormStats,
    /// In int4.
    pub int4: FormStats,
    /// Of a matrix.
    pub static_scales: Option<StaticScales>,
    /// Mean divergence of the probabilities, in nats, if it alone is in int4; `None` if that was not measured.
    pub divergence: Option<f64>,
}

impl MatrixSensitivity {
    /// Bytes that int4 saves; none where what it adds for each group weighs more.
    pub fn saved(&self) -> usize {
        self.int8.bytes.saturating_sub(self.int4.bytes)
    }
}

/// Every matrix and table of a network, in its order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// Texts that divergences are means over; ratios are those of the second half.
    pub texts: usize,
    /// The matrices and tables.
    pub parameters: Vec<MatrixSensitivity>,
}

impl Sensitivity {
    /// Matrices whose outputs are better with a scale for each row than with the best static one, and matrices.
    pub fn dynamic_wins(&self) -> (usize, usize) {
        let matrices = self.parameters.iter().filter_map(|parameter| {
            Some(parameter.int8.outputs_db? > parameter.static_scales.as_ref()?.best()?)
        });
        let (wins, losses): (Vec<_>, Vec<_>) = matrices.partition(|win| *win);
        (wins.len(), wins.len() + losses.len())
    }
}

/// The texts that a network is looked at with, and who waits for it.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// Texts.
    pub texts: &'a TokenSet,
    /// So many of them, from the first on.
    pub count: usize,
    /// Whether zero blocks of matrices are left out of the file.
    pub blocks: bool,
    /// Told how far it is.
    pub progress: &'a dyn Progress,
    /// Set by a signal.
    pub stop: &'a AtomicBool,
}

/// Measures every matrix and table of a network in f32. `divergences` says of which parameters the logits are looked at.
///
/// # Errors
/// [`Error::Interrupted`]; the device's.
pub fn measure<B: Backend>(
    learner: &mut Learner<B>,
    scan: Scan<'_>,
    divergences: impl Fn(&ParamSpec) -> bool,
) -> Result<Sensitivity> {
    learner.params.round(None);
    let (calibration, rest) = (0..scan.count / 2, scan.count / 2..scan.count);
    let mut ratios = Ratios::new(learner, scan.blocks)?;
    let mut magnitudes: BTreeMap<ParamId, Magnitudes> = BTreeMap::new();
    scan.progress.begin("signal to noise", scan.count as u64);
    for_inputs(learner, &scan, calibration, |layer, x| {
        magnitudes.entry(layer.weight).or_default().add(&x.download(&learner.backend)?);
        Ok(())
    })?;
    for_inputs(learner, &scan, rest.clone(), |layer, x| {
        ratios.add_matrix(learner, layer, x, magnitudes.get(&layer.weight))
    })?;
    ratios.add_tables(learner, scan.texts, rest)?;
    scan.progress.end();
    let mut parameters = ratios.finish(learner);
    let wanted = parameters.iter().filter(|(id, _)| divergences(&learner.params.get(*id).spec)).count();
    if wanted > 0 {
        let exact = probabilities(learner, &scan)?;
        if exact.iter().any(|p| !p.is_finite()) {
            let problem = learner.params.blame(&learner.backend)?;
            return Err(Error::setting(
                "model.path",
                format!("the network's answers are no numbers: {problem}"),
                "measure a model that predicts",
            ));
        }
        scan.progress.begin("sensitivity", wanted as u64);
        for (id, parameter) in &mut parameters {
            if divergences(&learner.params.get(*id).spec) {
                parameter.divergence = Some(divergence_without(learner, &scan, *id, &exact)?);
                scan.progress.advance(1);
            }
        }
        scan.progress.end();
    }
    let parameters = parameters.into_iter().map(|(_, parameter)| parameter).collect();
    Ok(Sensitivity { texts: scan.count, parameters })
}

/// Hands over every linear layer with what it reads, a batch at a time.
fn for_inputs<B: Backend>(
    learner: &Learner<B>,
    scan: &Scan<'_>,
    rows: Range<usize>,
    mut each: impl FnMut(&Linear, &Tensor<B>) -> Result<()>,
) -> Result<()> {
    let mut batch = Batch::new();
    for first in rows.clone().step_by(TEXTS) {
        batch.clear();
        let texts = first..(first + TEXTS).min(rows.end);
        texts.clone().for_each(|text| batch.push(scan.texts.text(text), text as u64));
        let mut tape = Tape::evaluating(&learner.backend, &learner.params, &batch);
        tape.keep_inputs();
        learner.model.forward(&mut tape)?;
        for (layer, x) in tape.take_inputs() {
            each(&layer, x.tensor())?;
        }
        scan.progress.advance(texts.len() as u64);
        Error::if_stopped(scan.stop)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
