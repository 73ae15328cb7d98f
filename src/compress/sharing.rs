//! Layers that use one set of parameters (Lan et al., ALBERT, arXiv:1909.11942), here neighbours in groups.
//!
//! ```text
//! layers 0 1 2 3 4 5 ──share 3──► 0 0 2 2 4 4      each group starts from its mean, or from its first layer
//! ```
//!
//! A group runs as often as it has layers, and costs as much time as before; it is stored, and trained, once. Its gradient is the
//! sum of its layers'. Neighbours do most alike, so groups are of neighbours, as even as they can be.

use super::expand::norms;
use super::rebuild::{Origin, rebuild};
use crate::Result;
use crate::models::ModelConfig;
use crate::nn::{Layer, Linear, ParamId};
use crate::ops::Backend;
use crate::train::Learner;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What a group's parameters start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShareStart {
    /// The mean of its layers'.
    #[default]
    Mean,
    /// Those of its first layer.
    First,
}

/// The first layer of each layer's group, when `layers` layers have `distinct` sets of parameters.
pub fn groups(layers: usize, distinct: usize) -> Vec<usize> {
    let first = |group: usize| group * layers / distinct;
    (0..distinct).flat_map(|group| vec![first(group); first(group + 1) - first(group)]).collect()
}

/// Why the layers of this network cannot share `distinct` sets of parameters, if they cannot.
pub fn problem(config: &ModelConfig, distinct: usize) -> Option<String> {
    let layers = config.layers.len();
    if distinct > layers {
        return Some(format!("there are {layers} layers"));
    }
    if !config.shared.is_empty() {
        return Some("the model's layers share their parameters already".into());
    }
    if !config.ranks.is_empty() {
        return Some("matrices of the model are factored already, and factors have no mean".into());
    }
    let groups = groups(layers, distinct);
    let odd = (0..layers).find(|&layer| config.layers[layer] != config.layers[groups[layer]]);
    if let Some(layer) = odd {
        return Some(format!("layer {layer} has other heads or units than layer {}", groups[layer]));
    }
    let masked = config.masked.iter().find(|name| crate::checkpoint::layer_of(name).is_some());
    masked.map(|name| format!("{name} is masked, which other layers' weights are not"))
}

/// Makes the layers of a network use `distinct` sets of parameters. All else keeps its values, masks and moments.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If there is a [`problem`].
pub fn share<B: Backend>(learner: &mut Learner<B>, distinct: usize, start: ShareStart) -> Result<()> {
    let config = &learner.model.config;
    assert!(distinct > 0 && problem(config, distinct).is_none(), "layers that can share their parameters");
    if distinct == config.layers.len() {
        return Ok(());
    }
    let config = ModelConfig { shared: groups(config.layers.len(), distinct), ..config.clone() };
    let mut means = HashMap::new();
    if start == ShareStart::Mean {
        for owner in config.own_layers() {
            let members = (0..config.layers.len()).filter(|&layer| config.owner(layer) == owner);
            let members: Vec<Vec<ParamId>> =
                members.map(|layer| parameters(&learner.model.layers[layer])).collect();
            for place in 0..members[0].len() {
                let ids = members.iter().map(|of_layer| of_layer[place]);
                let name = learner.params.get(members[0][place]).spec.name.clone();
                means.insert(name, mean(learner, ids)?);
            }
        }
    }
    rebuild(learner, &config, |_, spec| Origin::given_or_named(means.remove(&spec.name)))
}

/// All parameters of a layer; those of layers of equal sizes correspond.
fn parameters(layer: &Layer) -> Vec<ParamId> {
    layer.linears().into_iter().flat_map(Linear::params).chain(norms(layer)).collect()
}

fn mean<B: Backend>(learner: &Learner<B>, ids: impl ExactSizeIterator<Item = ParamId>) -> Result<Vec<f32>> {
    let (count, mut sums) = (ids.len() as f64, Vec::new());
    for id in ids {
        let values = learner.params.value(id).download(&learner.backend)?;
        sums.resize(values.len(), 0.0);
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
    }
    Ok(sums.into_iter().map(|sum| (sum / count) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn groups_are_of_neighbours_and_even() {
        assert_eq!(groups(6, 3), [0, 0, 2, 2, 4, 4]);
        assert_eq!(groups(6, 1), [0; 6]);
        assert_eq!(groups(5, 2), [0, 0, 2, 2, 2]);
        assert_eq!(groups(4, 4), [0, 1, 2, 3]);
    }
}
