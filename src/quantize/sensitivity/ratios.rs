//! Signal-to-noise ratios of parameters and of what they compute.

use super::{FormStats, MatrixSensitivity, SnrAccumulator, StaticScales};
use crate::data::TokenSet;
use crate::formats::{Form, RowRounding};
use crate::models::config::Activation;
use crate::nn::{Linear, ParamId, ParamSpec, Role};
use crate::ops::Backend;
use crate::ops::linear::Orientation;
use crate::ops::rounded::{Rounded, RoundedLayer};
use crate::quantize::calibration::{Calibration, Magnitudes, round_to};
use crate::quantize::stored_bytes;
use crate::tensor::{Shape, Tensor};
use crate::train::Learner;
use crate::{Result, Text};
use std::collections::BTreeMap;
use std::ops::Range;

/// The forms that are compared.
const FORMS: [Form; 2] = [Form::Int8, Form::Int4];

/// A matrix as it is multiplied while it is looked at.
struct Prepared<B: Backend> {
    /// In [`FORMS`].
    rounded: [Rounded<B>; 2],
    /// The first of them, for inputs that have another scale.
    packed: B::Packed,
}

/// What is summed of one parameter.
#[derive(Clone, Copy, Default)]
struct Sums {
    bytes: [usize; 2],
    /// Of the parameter, in [`FORMS`].
    weights: [SnrAccumulator; 2],
    /// Of what it computes.
    outputs: [SnrAccumulator; 2],
    /// With static scales, in the order of [`Calibration::ALL`].
    fixed: [SnrAccumulator; 3],
}

/// Sums of all matrices and tables.
pub(super) struct Ratios<B: Backend> {
    prepared: BTreeMap<ParamId, Prepared<B>>,
    sums: BTreeMap<ParamId, Sums>,
}

impl<B: Backend> Ratios<B> {
    /// Of a network in f32; `blocks` as in [`Scan`](super::Scan).
    pub fn new(learner: &Learner<B>, blocks: bool) -> Result<Ratios<B>> {
        let backend = &learner.backend;
        let mut ratios = Ratios { prepared: BTreeMap::new(), sums: BTreeMap::new() };
        for (id, param) in learner.network() {
            let spec = &param.spec;
            if !matches!(spec.role, Role::Weight | Role::Embedding) || spec.is_empty() {
                continue;
            }
            let values = param.value().download(backend)?;
            let bytes = |form| stored_bytes(spec, form, blocks, &values);
            let [int8, int4] = FORMS.map(bytes);
            let mut sums = Sums { bytes: [int8?, int4?], ..Sums::default() };
            for (form, noise) in FORMS.into_iter().zip(&mut sums.weights) {
                noise.add(&values, &rounded(form, spec, &values));
            }
            ratios.sums.insert(id, sums);
            if spec.role == Role::Weight {
                let [int8, int4] = FORMS.map(|form| backend.round_weight(param.value(), form));
                let rounded = [int8?, int4?];
                let packed = backend.pack_weight(&rounded[0].values, Orientation::Forward, None)?;
                ratios.prepared.insert(id, Prepared { rounded, packed });
            }
        }
        Ok(ratios)
    }

    /// Adds what a matrix computes from some rows; `magnitudes` are those of its input, on other texts.
    pub fn add_matrix(
        &mut self,
        learner: &Learner<B>,
        layer: &Linear,
        x: &Tensor<B>,
        magnitudes: Option<&Magnitudes>,
    ) -> Result<()> {
        let (backend, id) = (&learner.backend, layer.weight);
        let (Some(prepared), Some(sums)) = (self.prepared.get(&id), self.sums.get_mut(&id)) else {
            return Ok(());
        };
        let bias = &learner.params.bias(backend, layer)?;
        let plain = Activation::Identity;
        let multiply = |x: &Tensor<B>, weight: &B::Packed| -> Result<Vec<f32>> {
            backend.linear_forward(x, weight, bias, plain, false)?.0.download(backend)
        };
        let exact = multiply(x, &*learner.params.packed(backend, id, Orientation::Forward)?)?;
        let rows = backend.round_rows(x)?;
        for (rounded, noise) in prepared.rounded.iter().zip(&mut sums.outputs) {
            let layer = RoundedLayer { weight: &rounded.weight, bias };
            noise.add(&exact, &backend.rounded_linear(&rows, layer, plain)?.download(backend)?);
        }
        let Some(magnitudes) = magnitudes else { return Ok(()) };
        let values = x.download(backend)?;
        for (how, noise) in Calibration::ALL.into_iter().zip(&mut sums.fixed) {
            let mut values = values.clone();
            round_to(magnitudes.clip(how), &mut values);
            let x = Tensor::upload(backend, &values, Shape::new(x.rows(), x.cols()))?;
            noise.add(&exact, &multiply(&x, &prepared.packed)?);
        }
        Ok(())
    }

    /// Adds the rows of tables that some texts read.
    pub fn add_tables(&mut self, learner: &Learner<B>, texts: &TokenSet, rows: Range<usize>) -> Result<()> {
        let tables = &learner.model.embeddings;
        for (id, param) in learner.network().filter(|(_, param)| param.spec.role == Role::Embedding) {
            let spec = &param.spec;
            let Some(sums) = self.sums.get_mut(&id) else { continue };
            let mut reads = vec![0usize; spec.rows];
            for text in rows.clone() {
                let Text { ids, first } = texts.text(text);
                for (place, &word) in ids.iter().enumerate() {
                    let row = if id == tables.words {
                        word as usize
                    } else if id == tables.positions {
                        place
                    } else {
                        usize::from(place >= first)
                    };
                    reads[row] += 1;
                }
            }
            let values = param.value().download(&learner.backend)?;
            for (form, noise) in FORMS.into_iter().zip(&mut sums.outputs) {
                let rounded = rounded(form, spec, &values);
                let pairs = values.chunks(spec.cols).zip(rounded.chunks(spec.cols));
                for ((exact, found), &times) in pairs.zip(&reads).filter(|(_, times)| **times > 0) {
                    noise.add_times(times, exact, found);
                }
            }
        }
        Ok(())
    }

    /// What was measured of each, in order.
    pub fn finish(self, learner: &Learner<B>) -> Vec<(ParamId, MatrixSensitivity)> {
        let finished = self.sums.into_iter().map(|(id, sums)| {
            let ParamSpec { name, rows, cols, role } = learner.params.get(id).spec.clone();
            let [int8, int4] = [0, 1].map(|i| FormStats {
                bytes: sums.bytes[i],
                weights_db: sums.weights[i].decibels(),
                outputs_db: sums.outputs[i].decibels(),
            });
            let [max_db, percentile_db, mse_db] = sums.fixed.map(|noise| noise.decibels());
            let fixed = (role == Role::Weight).then_some(StaticScales { max_db, percentile_db, mse_db });
            (id, MatrixSensitivity { name, rows, cols, int8, int4, static_scales: fixed, divergence: None })
        });
        finished.collect()
    }
}

/// The values that a parameter in few bits stands for.
pub(super) fn rounded(form: Form, spec: &ParamSpec, values: &[f32]) -> Vec<f32> {
    RowRounding::new(form, values).rows(values, spec.rows, spec.cols).values().collect()
}
