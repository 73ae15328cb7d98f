//! Deleting heads, feed-forward units, hidden features, word pieces and positions for good: rows and columns leave the tensors.
//!
//! Head `h` of a layer is rows `h·head_size..(h+1)·head_size` of query, key and value (weights and biases) and
//! the same columns of the output projection. Unit `u` is row `u` of the expansion (weight and bias) and
//! column `u` of the contraction. What is left computes what the whole network would with the deleted parts'
//! outputs at zero. A word piece is its row of the word table, a position its row of its own; what is left computes the
//! same for texts without them. A
//! hidden feature is a row or column of every matrix, and a place of every norm ([`width`](super::width)).

use crate::models::{Classifier, ModelConfig};
use crate::nn::{Linear, ParamId, ParamSpec};
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
    /// Hidden features, likewise.
    pub hidden: Vec<usize>,
    /// Outputs of the head's dense layer, where there is one: as many as hidden features.
    pub dense: Vec<usize>,
    /// The first so many positions.
    pub positions: usize,
}

impl Keep {
    /// Everything.
    pub fn all(config: &ModelConfig) -> Keep {
        Keep {
            heads: config.layers.iter().map(|layer| (0..layer.heads.len()).collect()).collect(),
            units: config.layers.iter().map(|layer| (0..layer.intermediate).collect()).collect(),
            pieces: (0..config.vocab).collect(),
            hidden: (0..config.hidden).collect(),
            dense: (0..config.hidden).collect(),
            positions: config.positions,
        }
    }

    /// The configuration of what stays.
    pub fn config(&self, config: &ModelConfig) -> ModelConfig {
        let mut smaller = ModelConfig {
            vocab: self.pieces.len(),
            positions: self.positions,
            hidden: self.hidden.len(),
            ..config.clone()
        };
        for (i, layer) in smaller.layers.iter_mut().enumerate() {
            layer.heads = self.heads[i].iter().map(|&place| layer.heads[place]).collect();
            layer.intermediate = self.units[i].len();
        }
        smaller
    }
}

/// A side of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Rows,
    Cols,
}

/// Rows and columns of a parameter that stay; none if all do.
#[derive(Default)]
pub(super) struct Part {
    pub(super) rows: Option<Vec<usize>>,
    pub(super) cols: Option<Vec<usize>>,
}

/// The sides of parameters that hidden features are on.
pub(super) fn hidden_sides(model: &Classifier) -> Vec<(ParamId, Side)> {
    let Classifier { config, embeddings, layers, head } = model;
    let mut sides = Vec::new();
    match &embeddings.projection {
        None => sides.push((embeddings.words, Side::Cols)),
        Some(projection) => sides.extend(outputs(projection)),
    }
    let tables = [embeddings.positions].into_iter().chain(embeddings.token_types);
    let mut across: Vec<ParamId> = tables.chain([embeddings.norm.gamma, embeddings.norm.beta]).collect();
    for layer in config.own_layers().map(|layer| &layers[layer]) {
        let attention = &layer.attention;
        let readers = [&attention.query, &attention.key, &attention.value, &layer.expand];
        across.extend(readers.map(Linear::reader));
        for norm in [&layer.attention_norm, &layer.output_norm] {
            across.extend([norm.gamma, norm.beta]);
        }
        sides.extend([&attention.output, &layer.contract].into_iter().flat_map(outputs));
    }
    across.push(head.dense.as_ref().unwrap_or(&head.classifier).reader());
    sides.extend(across.into_iter().map(|id| (id, Side::Cols)));
    sides
}

/// The sides of parameters that the outputs of the head's dense layer are on.
pub(super) fn dense_sides(model: &Classifier) -> Vec<(ParamId, Side)> {
    let dense = model.head.dense.iter();
    dense
        .flat_map(|dense| [outputs(dense), vec![(model.head.classifier.reader(), Side::Cols)]].concat())
        .collect()
}

fn outputs(linear: &Linear) -> Vec<(ParamId, Side)> {
    let bias = linear.bias.map(|bias| (bias, Side::Cols));
    [(linear.weight, Side::Rows)].into_iter().chain(bias).collect()
}

/// How a network's parameters shrink.
pub struct Deletion {
    pub(super) parts: BTreeMap<ParamId, Part>,
    /// Columns of the larger network's parameters.
    cols: Vec<usize>,
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
        let mut parts: BTreeMap<ParamId, Part> = BTreeMap::new();
        let mut stay = |sides: &[(ParamId, Side)], kept: &[usize]| {
            for (id, side) in sides {
                let part = parts.entry(*id).or_default();
                let place = if *side == Side::Rows { &mut part.rows } else { &mut part.cols };
                *place = Some(kept.to_vec());
            }
        };
        if keep.pieces.len() < model.config.vocab {
            stay(&[(model.embeddings.words, Side::Rows)], &keep.pieces);
        }
        if keep.positions < model.config.positions {
            let first: Vec<usize> = (0..keep.positions).collect();
            stay(&[(model.embeddings.positions, Side::Rows)], &first);
        }
        if keep.hidden.len() < model.config.hidden {
            stay(&hidden_sides(model), &keep.hidden);
            stay(&dense_sides(model), &keep.dense);
        }
        for i in model.config.own_layers() {
            let layer = &model.layers[i];
            let size = layer.attention.attend.head_size;
            let columns: Vec<usize> =
                keep.heads[i].iter().flat_map(|head| head * size..(head + 1) * size).collect();
            let attention = &layer.attention;
            for linear in [&attention.query, &attention.key, &attention.value] {
                stay(&outputs(linear), &columns);
            }
            stay(&[(attention.output.reader(), Side::Cols)], &columns);
            stay(&outputs(&layer.expand), &keep.units[i]);
            stay(&[(layer.contract.reader(), Side::Cols)], &keep.units[i]);
        }
        let (_, larger) = Classifier::new(&model.config);
        let cols = larger.iter().map(|spec| spec.cols).collect();
        let (model, specs) = Classifier::new(&keep.config(&model.config));
        Deletion { parts, cols, model, specs }
    }

    /// What stays of the values of parameter `id`, `[rows, cols]`.
    pub fn apply<T: Copy>(&self, id: ParamId, values: &[T]) -> Vec<T> {
        let Some(part) = self.parts.get(&id) else { return values.to_vec() };
        let cols = self.cols[id.index()];
        let row = |row: usize| &values[row * cols..(row + 1) * cols];
        let rows: Vec<&[T]> = match &part.rows {
            Some(kept) => kept.iter().map(|&kept| row(kept)).collect(),
            None => values.chunks(cols.max(1)).collect(),
        };
        match &part.cols {
            None => rows.concat(),
            Some(kept) => rows.iter().flat_map(|row| kept.iter().map(|&col| row[col])).collect(),
        }
    }
}
