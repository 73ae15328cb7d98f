//! Deletion undone, in zeros: the network that stock programs can load, with the same logits.
//!
//! A deleted head comes back with zero rows in query, key and value, biases included, and zero columns in the
//! output projection: its scores are all equal, its values all zero, and so is its context. A deleted unit
//! comes back with a zero row in the expansion, bias included, and a zero column in the contraction: every
//! nonlinearity here maps zero to zero. Heads return to their original places. Where a unit stood is not
//! recorded, and their order means nothing: those that were kept come first. Word pieces do not come back: the
//! tokenizer that was saved with the network has none of those that went. Hidden features do not either: a norm would
//! count them. A narrower network gets so many heads as are together as wide as it is now.

use super::structure::{Deletion, Keep};
use crate::models::config::LayerConfig;
use crate::models::{Classifier, ModelConfig};
use crate::nn::{ParamId, ParamSpec};

/// How a network's parameters grow back to their original sizes.
pub struct Padding {
    /// What would make the padded network small again.
    deletion: Deletion,
    /// The padded network. It has no masks: whoever trains it on trains all of it.
    pub model: Classifier,
    /// Its parameters, in the order of the smaller network's.
    pub specs: Vec<ParamSpec>,
}

impl Padding {
    /// Plans to bring back what was deleted from a network of this configuration.
    pub fn new(config: &ModelConfig) -> Padding {
        let config = &as_wide(config);
        let dense = ModelConfig { masked: Vec::new(), ..config.dense() };
        let (model, specs) = Classifier::new(&dense);
        let keep = Keep {
            heads: config.layers.iter().map(|layer| layer.heads.clone()).collect(),
            units: config.layers.iter().map(|layer| (0..layer.intermediate).collect()).collect(),
            ..Keep::all(&dense)
        };
        Padding { deletion: Deletion::new(&model, &keep), model, specs }
    }

    /// The values of parameter `id` in the padded network, from those in the smaller one; both row-major.
    ///
    /// # Panics
    /// If there are more or fewer values than the smaller network's parameter has.
    pub fn apply(&self, id: ParamId, values: &[f32]) -> Vec<f32> {
        let (spec, small) = (&self.specs[id.index()], &self.deletion.specs[id.index()]);
        assert_eq!(values.len(), small.len(), "the values of {}", spec.name);
        let Some(part) = self.deletion.parts.get(&id) else { return values.to_vec() };
        let mut padded = vec![0.0; spec.len()];
        let rows = values.chunks_exact(small.cols.max(1));
        let place = |kept: &Option<Vec<usize>>, i: usize| kept.as_ref().map_or(i, |kept| kept[i]);
        for (row, values) in rows.enumerate() {
            let padded = &mut padded[place(&part.rows, row) * spec.cols..][..spec.cols];
            values.iter().enumerate().for_each(|(col, value)| padded[place(&part.cols, col)] = *value);
        }
        padded
    }
}

/// The same network, as one that had so many heads of its size as make its width, if it has no more in any layer: what
/// programs can load that know no other size of a head. Heads then have other numbers, and their order stays.
fn as_wide(config: &ModelConfig) -> ModelConfig {
    let heads = config.hidden / config.head_size;
    let most = config.layers.iter().map(|layer| layer.heads.len()).max().unwrap_or(0);
    let as_it_is = config.original_heads * config.head_size == config.hidden;
    if as_it_is || heads * config.head_size != config.hidden || most > heads {
        return config.clone();
    }
    let layer =
        |layer: &LayerConfig| LayerConfig { heads: (0..layer.heads.len()).collect(), ..layer.clone() };
    let layers = config.layers.iter().map(layer).collect();
    ModelConfig { original_heads: heads, layers, ..config.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Batch;
    use crate::backend::Cpu;
    use crate::checkpoint::fresh;
    use crate::models::config::{Activation, Architecture, DropoutConfig, LayerConfig, Sizes};
    use crate::nn::Role;
    use crate::params::ParamStore;
    use crate::train::learner::logits;
    use limbeck_kernels::Kernels;

    /// A layer without heads, one without units, one that lost its first head, and a whole one.
    fn pruned(architecture: Architecture, activation: Activation) -> ModelConfig {
        let layers = [(vec![], 5), (vec![1], 0), (vec![1, 3], 17), (vec![0, 1, 2, 3], 19)];
        ModelConfig {
            architecture,
            activation,
            token_types: if architecture == Architecture::Bert { 2 } else { 0 },
            layers: layers.map(|(heads, intermediate)| LayerConfig { heads, intermediate }).to_vec(),
            dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.1 },
            masked: vec!["classifier.weight".to_owned()],
            ..ModelConfig::distilbert(
                Sizes { vocab: 50, positions: 16, hidden: 36, heads: 4, intermediate: 19, layers: 0 },
                ["a", "b", "c"],
            )
        }
    }

    /// Values of which none is zero, biases included.
    fn values(spec: &ParamSpec) -> Vec<f32> {
        let as_weight = ParamSpec { role: Role::Weight, ..spec.clone() };
        let centre = if spec.role == Role::Gamma { 1.0 } else { 0.0 };
        fresh(&as_weight, 7).into_iter().map(|value| centre + 10.0 * value).collect()
    }

    #[test]
    fn padded_networks_have_the_same_logits() {
        let device = Cpu::new(Kernels::select().unwrap());
        let texts: [&[u32]; 3] = [&[1, 7, 9, 30, 49, 2], &[1, 2], &[3; 16]];
        let batch = Batch::from_texts(texts);
        for (architecture, activation) in [
            (Architecture::DistilBert, Activation::Gelu),
            (Architecture::Bert, Activation::Relu),
            (Architecture::Bert, Activation::Tanh),
        ] {
            let config = pruned(architecture, activation);
            let (model, specs) = Classifier::new(&config);
            let padding = Padding::new(&config);
            assert!(padding.model.config.is_dense() && padding.model.config.masked.is_empty());
            let small = ParamStore::new(&device, &specs, |spec| Ok(values(spec))).unwrap();
            let mut ids = 0..;
            let padded = ParamStore::new(&device, &padding.specs, |_| {
                let id = ParamId(ids.next().unwrap());
                Ok(padding.apply(id, &values(&specs[id.index()])))
            })
            .unwrap();
            let expected = logits(&device, &model, &small, &batch).unwrap();
            let found = logits(&device, &padding.model, &padded, &batch).unwrap();
            let largest = expected.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
            assert!(largest > 0.1, "logits that say something");
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-6 * largest, "{found} for {expected}");
            }
            // What came back is zeros, and nothing else is.
            let zeros = padded.count(&device).unwrap();
            assert_eq!(zeros.1, small.count(&device).unwrap().1);
            assert!(zeros.0 > zeros.1);
        }
    }

    #[test]
    fn deleting_what_came_back_gives_the_values_again() {
        let config = pruned(Architecture::DistilBert, Activation::Gelu);
        let (_, specs) = Classifier::new(&config);
        let padding = Padding::new(&config);
        for (i, spec) in specs.iter().enumerate() {
            let (id, values) = (ParamId(i as u32), values(spec));
            let padded = padding.apply(id, &values);
            assert_eq!(padded.len(), padding.specs[i].len(), "{}", spec.name);
            assert_eq!(padding.deletion.apply(id, &padded), values, "{}", spec.name);
        }
    }
}
