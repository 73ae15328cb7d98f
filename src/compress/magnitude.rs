//! Masks that drop the smallest weights.

use super::blocks::LayerMatrices;
use super::lowest::stay;
use crate::Result;
use crate::models::Classifier;
use crate::nn::ParamId;
use crate::ops::linear::LinearOps;
use crate::params::{Mask, ParamStore};

/// Over what a fraction is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Over all candidates of the network together: parts that matter less lose more.
    Global,
    /// Over each layer, or each matrix, by itself.
    Each,
}

/// Matrices of the layers, each once; of factored ones both factors.
pub fn matrices(model: &Classifier, which: LayerMatrices) -> Vec<ParamId> {
    let layers = model.config.own_layers().map(|layer| &model.layers[layer]);
    let linears = layers.flat_map(|layer| layer.linears().into_iter().enumerate());
    linears
        .filter(|(place, _)| which.range().contains(place))
        .flat_map(|(_, linear)| linear.matrices())
        .collect()
}

/// The head's matrices.
pub fn head(model: &Classifier) -> Vec<ParamId> {
    model.head.dense.iter().map(|dense| dense.weight).chain([model.head.classifier.weight]).collect()
}

/// Masks the `fraction` of smallest magnitude of these parameters' elements (L1 pruning). What is zero already
/// counts, and comes first.
///
/// # Errors
/// The device's.
pub fn mask<D: LinearOps>(
    device: &D,
    params: &mut ParamStore<D>,
    ids: &[ParamId],
    fraction: f64,
    scope: Scope,
) -> Result<()> {
    let groups: Vec<&[ParamId]> = match scope {
        Scope::Global => vec![ids],
        Scope::Each => ids.chunks(1).collect(),
    };
    for group in groups {
        let values = group.iter().map(|&id| params.value(id).download(device)).collect::<Result<Vec<_>>>()?;
        let masks = smallest(&values, fraction);
        for (&id, mask) in group.iter().zip(masks) {
            params.set_mask(device, id, mask)?;
        }
    }
    Ok(())
}

/// Masks that drop exactly `round(fraction · all)` elements, those of smallest magnitude; of equal ones the
/// earlier.
fn smallest(tensors: &[Vec<f32>], fraction: f64) -> Vec<Mask> {
    let all: usize = tensors.iter().map(Vec::len).sum();
    let magnitudes = |values: &Vec<f32>| values.iter().map(|value| f64::from(value.abs())).collect();
    let magnitudes: Vec<Vec<f64>> = tensors.iter().map(magnitudes).collect();
    let kept = stay(&magnitudes, (fraction * all as f64).round() as usize);
    kept.into_iter().map(|kept| Mask(kept.into_iter().map(u8::from).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_exactly_the_asked_fraction_even_among_equals() {
        let tensors = vec![vec![1.0, -2.0, 0.0, 3.0], vec![1.0, 1.0]];
        let kept =
            |fraction| smallest(&tensors, fraction).iter().map(|mask| mask.0.to_vec()).collect::<Vec<_>>();
        assert_eq!(kept(0.0), [vec![1, 1, 1, 1], vec![1, 1]]);
        assert_eq!(kept(0.5), [vec![0, 1, 0, 1], vec![0, 1]]);
        assert_eq!(kept(1.0), [vec![0, 0, 0, 0], vec![0, 0]]);
    }
}
