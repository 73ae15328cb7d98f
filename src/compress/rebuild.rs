//! A network rebuilt by another configuration: parameters of the same name stay, others are given.

use crate::Result;
use crate::models::{Classifier, ModelConfig};
use crate::nn::{ParamId, ParamSpec};
use crate::ops::Backend;
use crate::params::ParamStore;
use crate::tensor::{Shape, Tensor};
use crate::train::Learner;
use std::collections::HashMap;

/// Makes a learner's network that of `config`. `new` gives a parameter's values, `[rows, cols]`, where they are not those of the
/// parameter that has the same name; all others keep values, mask and moments. New ones are not masked, and have moments of zero.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If `new` gives nothing for a parameter that was not there, or the network learns from a tutor, who knows it by its parameters.
pub(super) fn rebuild<B: Backend>(
    learner: &mut Learner<B>,
    config: &ModelConfig,
    mut new: impl FnMut(ParamId, &ParamSpec) -> Option<Vec<f32>>,
) -> Result<()> {
    assert!(learner.tutor.is_none(), "a network changes before a tutor knows it");
    let Learner { backend, model, params, optimizer, .. } = learner;
    let before: HashMap<String, ParamId> =
        params.iter().map(|(id, param)| (param.spec.name.clone(), id)).collect();
    let (rebuilt, specs) = Classifier::new(config);
    let mut origins = Vec::with_capacity(specs.len());
    let mut store = ParamStore::new(backend, &specs, |spec| {
        let given = new(ParamId(origins.len() as u32), spec);
        let origin = given.is_none().then(|| before[&spec.name]);
        origins.push(origin);
        given.map_or_else(|| params.value(before[&spec.name]).download(backend), Ok)
    })?;
    let zeros = |spec: &ParamSpec| -> Result<Tensor<B>> {
        let shape = Shape::new(spec.rows, spec.cols);
        Ok(Tensor::from_buffer(backend.zeros(shape.len())?, shape))
    };
    let mut moments = Vec::with_capacity(specs.len());
    for ((id, origin), spec) in (0..).map(ParamId).zip(&origins).zip(&specs) {
        let Some(old) = *origin else {
            moments.push([zeros(spec)?, zeros(spec)?]);
            continue;
        };
        if let Some(mask) = &params.get(old).mask {
            store.set_mask(backend, id, mask.clone())?;
        }
        moments.push(optimizer.moments()[old.index()].clone());
    }
    *optimizer = optimizer.with_moments(moments);
    (*params, *model) = (store, rebuilt);
    Ok(())
}
