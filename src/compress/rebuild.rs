//! A network rebuilt by another configuration, and where each of its parameters comes from: the one place that carries values, masks
//! and moments over.

use super::structure::{Deletion, Keep};
use crate::Result;
use crate::models::{Classifier, ModelConfig};
use crate::nn::{ParamId, ParamSpec};
use crate::ops::Backend;
use crate::params::{Mask, ParamStore};
use crate::tensor::{Shape, Tensor};
use crate::train::Learner;
use std::collections::HashMap;

/// Where a parameter comes from.
pub(super) enum Origin<'d> {
    /// It is the one that had its name: value, mask and moments.
    Named,
    /// It is this one.
    From(ParamId),
    /// It is what a deletion leaves of this one.
    Shrunk(ParamId, &'d Deletion),
    /// These are its values, `[rows, cols]`; it is not masked, and its moments are zero.
    Given(Vec<f32>),
}

impl Origin<'_> {
    /// Values, if there are any; the parameter of the same name if not.
    pub fn given_or_named(values: Option<Vec<f32>>) -> Self {
        values.map_or(Origin::Named, Origin::Given)
    }
}

/// Makes a learner's network that of `config`, with each parameter from its `origin`. Parameters behind the network's own, which
/// are a feature teacher's, stay as they are.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If no parameter had a name that is to be kept; if values are given, or layers go, while the network learns from a feature teacher, who
/// knows it by its parameters.
pub(super) fn rebuild<'d, B: Backend>(
    learner: &mut Learner<B>,
    config: &ModelConfig,
    mut origin: impl FnMut(ParamId, &ParamSpec) -> Origin<'d>,
) -> Result<()> {
    let by_name: HashMap<&str, ParamId> =
        learner.network().map(|(id, param)| (param.spec.name.as_str(), id)).collect();
    let (mut rebuilt, mut specs) = Classifier::new(config);
    let mut origins: Vec<Origin<'d>> = (0..)
        .map(ParamId)
        .zip(&specs)
        .map(|(id, spec)| match origin(id, spec) {
            Origin::Named => Origin::From(by_name[spec.name.as_str()]),
            other => other,
        })
        .collect();
    let given = origins.iter().any(|origin| matches!(origin, Origin::Given(_)));
    let same = !given && config.layers.len() == learner.model.config.layers.len();
    assert!(same || learner.feature_teacher.is_none(), "a network changes before a feature teacher knows it");
    let own = learner.network().count();
    for (id, param) in learner.params.iter().skip(own) {
        specs.push(param.spec.clone());
        origins.push(Origin::From(id));
    }
    let Learner { backend, model, params, optimizer, .. } = learner;
    let store = values(backend, params, &specs, &mut origins)?;
    let moments = moments(backend, optimizer.moments(), &specs, &origins)?;
    let masked = store.iter().filter(|(_, param)| param.mask.is_some());
    rebuilt.config.masked = masked.map(|(_, param)| param.spec.name.clone()).collect();
    *optimizer = optimizer.with_moments(moments);
    (*params, *model) = (store, rebuilt);
    backend.forget_buffers();
    Ok(())
}

/// Deletes what `keep` leaves out, from parameters, masks and moments. Returns the deletion, if there was one.
///
/// # Errors
/// The device's.
pub fn delete<B: Backend>(learner: &mut Learner<B>, keep: &Keep) -> Result<Option<Deletion>> {
    if *keep == Keep::all(&learner.model.config) {
        return Ok(None);
    }
    let deletion = Deletion::new(&learner.model, keep);
    rebuild(learner, &deletion.model.config, |id, _| Origin::Shrunk(id, &deletion))?;
    Ok(Some(deletion))
}

/// The parameters with their masks. Given values are taken.
fn values<B: Backend>(
    backend: &B,
    before: &ParamStore<B>,
    specs: &[ParamSpec],
    origins: &mut [Origin<'_>],
) -> Result<ParamStore<B>> {
    let mut places = origins.iter_mut();
    let mut store = ParamStore::new(backend, specs, |_| match places.next().expect("one for each") {
        Origin::Named => unreachable!("looked up"),
        Origin::From(id) => before.value(*id).download(backend),
        Origin::Shrunk(id, deletion) => Ok(deletion.apply(*id, &before.value(*id).download(backend)?)),
        Origin::Given(values) => Ok(std::mem::take(values)),
    })?;
    for (id, origin) in (0..).map(ParamId).zip(origins) {
        // Values are zero already where the mask drops them.
        let mask = match origin {
            Origin::From(old) => before.get(*old).mask.clone(),
            Origin::Shrunk(old, deletion) => {
                before.get(*old).mask.as_ref().map(|mask| Mask(deletion.apply(*old, &mask.0).into()))
            }
            Origin::Named | Origin::Given(_) => None,
        };
        mask.map_or(Ok(()), |mask| store.set_mask(backend, id, mask))?;
    }
    Ok(store)
}

/// First and second moment of each parameter.
fn moments<B: Backend>(
    backend: &B,
    before: &[[Tensor<B>; 2]],
    specs: &[ParamSpec],
    origins: &[Origin<'_>],
) -> Result<Vec<[Tensor<B>; 2]>> {
    let of = |(spec, origin): (&ParamSpec, &Origin<'_>)| -> Result<[Tensor<B>; 2]> {
        let shape = Shape::new(spec.rows, spec.cols);
        let zeros = || -> Result<Tensor<B>> { Ok(Tensor::from_buffer(backend.zeros(shape.len())?, shape)) };
        match origin {
            Origin::From(old) => Ok(before[old.index()].clone()),
            Origin::Shrunk(old, deletion) => {
                let [m, v] = &before[old.index()];
                let shrunk = |moment: &Tensor<B>| {
                    Tensor::upload(backend, &deletion.apply(*old, &moment.download(backend)?), shape)
                };
                Ok([shrunk(m)?, shrunk(v)?])
            }
            Origin::Named | Origin::Given(_) => Ok([zeros()?, zeros()?]),
        }
    };
    specs.iter().zip(origins).map(of).collect()
}
