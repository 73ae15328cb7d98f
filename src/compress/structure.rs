//! Deleting heads, feed-forward units and word pieces for good: rows and columns leave the tensors.
//!
//! Head `h` of a layer is rows `h·head_size..(h+1)·head_size` of query, key and value (weights and biases) and
//! the same columns of the output projection. Unit `u` is row `u` of the expansion (weight and bias) and
//! column `u` of the contraction. What is left computes what the whole network would with the deleted parts'
//! outputs at zero. A word piece is its row of the word table; what is left computes the same for texts without it.

use crate::Result;
use crate::backend::Device;
use crate::models::{Classifier, ModelConfig};
use crate::nn::{Linear, ParamId, ParamSpec};
use crate::ops::linear::LinearOps;
use crate::params::{Mask, ParamStore};
use crate::tensor::{Shape, Tensor};
use std::collections::BTreeMap;

/// What stays, as places among what is there now, ascending; of heads and units one list a layer, the same for layers that share
/// their parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Heads.
    pub heads: Vec<Vec<usize>>,
    /// Feed-forward units.
    pub units: Vec<Vec<usize>>,
    /// Word pieces: no list a layer, but one for the network.
    pub pieces: Vec<usize>,
}

impl Keep {
    /// Everything.
    pub fn all(config: &ModelConfig) -> Keep {
        Keep {
            heads: config.layers.iter().map(|layer| (0..layer.heads.len()).collect()).collect(),
            units: config.layers.iter().map(|layer| (0..layer.intermediate).collect()).collect(),
            pieces: (0..config.vocab).collect(),
        }
    }

    /// The configuration of what stays.
    pub fn config(&self, config: &ModelConfig) -> ModelConfig {
        let mut smaller = ModelConfig { vocab: self.pieces.len(), ..config.clone() };
        for (i, layer) in smaller.layers.iter_mut().enumerate() {
            layer.heads = self.heads[i].iter().map(|&place| layer.heads[place]).collect();
            layer.intermediate = self.units[i].len();
        }
        smaller
    }
}

/// Rows or columns of a parameter that stay.
pub(super) enum Part {
    Rows(Vec<usize>),
    Cols(Vec<usize>),
}

/// How a network's parameters shrink.
pub struct Deletion {
    pub(super) parts: BTreeMap<ParamId, Part>,
    /// The smaller network.
    pub model: Classifier,
    /// Its parameters, in the order of the larger network's.
    pub specs: Vec<ParamSpec>,
}

impl Deletion {
    /// Plans to leave of `model` what `keep` says.
    ///
    /// # Panics
    /// If it says different things of layers that share their parameters.
    pub fn new(model: &Classifier, keep: &Keep) -> Deletion {
        let same = |layer: usize, owner: usize| {
            keep.heads[layer] == keep.heads[owner] && keep.units[layer] == keep.units[owner]
        };
        let layers = 0..model.layers.len();
        assert!(
            layers.into_iter().all(|layer| same(layer, model.config.owner(layer))),
            "shared layers shrink as one"
        );
        let mut parts = BTreeMap::new();
        if keep.pieces.len() < model.config.vocab {
            parts.insert(model.embeddings.words, Part::Rows(keep.pieces.clone()));
        }
        for i in model.config.own_layers() {
            let layer = &model.layers[i];
            let size = layer.attention.attend.head_size;
            let columns: Vec<usize> =
                keep.heads[i].iter().flat_map(|head| head * size..(head + 1) * size).collect();
            let attention = &layer.attention;
            for linear in [&attention.query, &attention.key, &attention.value] {
                outputs(&mut parts, linear, &columns);
            }
            parts.insert(attention.output.reader(), Part::Cols(columns));
            outputs(&mut parts, &layer.expand, &keep.units[i]);
            parts.insert(layer.contract.reader(), Part::Cols(keep.units[i].clone()));
        }
        let (smaller, specs) = Classifier::new(&keep.config(&model.config));
        Deletion { parts, model: smaller, specs }
    }

    /// What stays of the values of parameter `id`, `[rows, cols]`.
    pub fn apply<T: Copy>(&self, id: ParamId, values: &[T], cols: usize) -> Vec<T> {
        match self.parts.get(&id) {
            None => values.to_vec(),
            Some(Part::Rows(rows)) => {
                rows.iter().flat_map(|row| &values[row * cols..(row + 1) * cols]).copied().collect()
            }
            Some(Part::Cols(kept)) => {
                values.chunks(cols.max(1)).flat_map(|row| kept.iter().map(|&col| row[col])).collect()
            }
        }
    }

    /// What stays of a whole store, masks included.
    ///
    /// # Errors
    /// The device's.
    pub fn store<D: LinearOps>(&self, device: &D, params: &ParamStore<D>) -> Result<ParamStore<D>> {
        let mut ids = 0..;
        // What is not the network's own stays as it is.
        let others = params.iter().skip(self.specs.len()).map(|(_, param)| param.spec.clone());
        let specs: Vec<ParamSpec> = self.specs.iter().cloned().chain(others).collect();
        let mut smaller = ParamStore::new(device, &specs, |_| {
            let id = ParamId(ids.next().expect("endless"));
            self.values(device, id, params.value(id))
        })?;
        for (id, param) in params.iter() {
            if let Some(mask) = &param.mask {
                let cols = param.value().cols();
                // Values are zero already where the mask drops them.
                smaller.set_mask(device, id, Mask(self.apply(id, &mask.0, cols)))?;
            }
        }
        Ok(smaller)
    }

    /// What stays of one tensor that has the shape of parameter `id`: a moment, say.
    ///
    /// # Errors
    /// The device's.
    pub fn tensor<D: Device>(&self, device: &D, id: ParamId, tensor: &Tensor<D>) -> Result<Tensor<D>> {
        let spec = self.specs.get(id.index());
        let shape = spec.map_or(tensor.shape(), |spec| Shape::new(spec.rows, spec.cols));
        Tensor::upload(device, &self.values(device, id, tensor)?, shape)
    }

    fn values<D: Device>(&self, device: &D, id: ParamId, tensor: &Tensor<D>) -> Result<Vec<f32>> {
        Ok(self.apply(id, &tensor.download(device)?, tensor.cols()))
    }
}

fn outputs(parts: &mut BTreeMap<ParamId, Part>, linear: &Linear, kept: &[usize]) {
    parts.insert(linear.weight, Part::Rows(kept.to_vec()));
    parts.extend(linear.bias.map(|bias| (bias, Part::Cols(kept.to_vec()))));
}
