//! Deleting the heads and feed-forward units that masks of blocks have emptied.
//!
//! A mask never lets go, so a unit whose column of the contraction is masked has no effect for ever, and one whose row of the
//! expansion is masked has the same effect on every token: `activation(its bias)` times its column, which the contraction's
//! bias takes over. The same holds for a head, whose context is the bias of its values where their rows are masked, since
//! the weights of attention sum to 1. So both can leave the network, which computes the same without them, and all that was
//! done for them is saved from then on, in training and after it. Where blocks compete over the whole network most of what
//! they are taken from is such parts.
//!
//! Units leave in groups that are as wide as blocks, so that what is left is of whole blocks still.

use super::rebuild::delete;
use super::structure::{Deletion, Keep};
use crate::Result;
use crate::nn::{Layer, Linear, ParamId};
use crate::ops::Backend;
use crate::ops::blocks::BlockShape;
use crate::ops::linear::Orientation;
use crate::params::ParamStore;
use crate::tensor::{Shape, Tensor};
use crate::train::Learner;
use std::ops::Range;

/// Deletes what masks of blocks of this shape have emptied. Returns the deletion, if there was one.
///
/// # Errors
/// The device's.
pub fn delete_emptied<B: Backend>(learner: &mut Learner<B>, shape: BlockShape) -> Result<Option<Deletion>> {
    let mut keep = Keep::all(&learner.model.config);
    // A packed int8 layout has its own blocks, which are to stay as they are, too.
    let (packed, single) = (BlockShape::PACKED, BlockShape::SINGLE);
    let side = if shape == single { 1 } else { packed.outputs.max(shape.outputs).max(shape.inputs) };
    let config = learner.model.config.clone();
    for i in config.own_layers() {
        let Layer { attention, expand, contract, .. } = learner.model.layers[i].clone();
        let (heads, head_size) = (attention.attend.heads, attention.attend.head_size);
        if head_size.is_multiple_of(side) {
            let heads: Vec<Range<usize>> = (0..heads).map(|h| h * head_size..(h + 1) * head_size).collect();
            let left = left(&learner.params, &attention.value, &attention.output, &heads);
            take_over(learner, [&attention.value, &attention.output], &gone(&heads, &left))?;
            keep.heads[i] = left;
        }
        let groups: Vec<Range<usize>> = (0..expand.outputs)
            .step_by(side)
            .map(|first| first..(first + side).min(expand.outputs))
            .collect();
        let left = left(&learner.params, &expand, &contract, &groups);
        take_over(learner, [&expand, &contract], &gone(&groups, &left))?;
        keep.units[i] = left.iter().flat_map(|group| groups[*group].clone()).collect();
    }
    // Layers that share parameters shrink as one.
    for i in 0..config.layers.len() {
        let owner = config.owner(i);
        keep.heads[i] = keep.heads[owner].clone();
        keep.units[i] = keep.units[owner].clone();
    }
    delete(learner, &keep)
}

/// The groups of `writer`'s outputs, which `reader` reads, that are not emptied on one of the two sides.
fn left<B: Backend>(
    params: &ParamStore<B>,
    writer: &Linear,
    reader: &Linear,
    groups: &[Range<usize>],
) -> Vec<usize> {
    let (rows, cols) = (alive(params, writer.weight, true), alive(params, reader.reader(), false));
    let lives = |group: &Range<usize>| {
        [&rows, &cols]
            .iter()
            .all(|alive| alive.as_ref().is_none_or(|alive| alive[group.clone()].contains(&true)))
    };
    (0..groups.len()).filter(|group| lives(&groups[*group])).collect()
}

/// Which rows, or columns, of a masked matrix have a weight left; `None` if it has no mask.
fn alive<B: Backend>(params: &ParamStore<B>, id: ParamId, rows: bool) -> Option<Vec<bool>> {
    let param = params.get(id);
    let (mask, Shape { rows: count, cols }) = (param.mask.as_ref()?, param.value().shape());
    let mut alive = vec![false; if rows { count } else { cols }];
    for (i, kept) in mask.0.iter().enumerate() {
        alive[if rows { i / cols } else { i % cols }] |= *kept != 0;
    }
    Some(alive)
}

/// The places of groups that are not among those left.
fn gone(groups: &[Range<usize>], left: &[usize]) -> Vec<usize> {
    let gone = groups.iter().enumerate().filter(|(group, _)| !left.contains(group));
    gone.flat_map(|(_, places)| places.clone()).collect()
}

/// What a layer makes of a row of zeros: `activation(b)`.
fn at_zero<B: Backend>(learner: &Learner<B>, layer: &Linear) -> Result<Vec<f32>> {
    let Learner { backend, params, .. } = learner;
    let weight = params.packed(backend, layer.weight, Orientation::Forward)?;
    let zeros = Tensor::upload(backend, &vec![0.0; layer.inputs], Shape::new(1, layer.inputs))?;
    let (y, _) =
        backend.linear_forward(&zeros, &weight, params.value(bias(layer)), layer.activation, false)?;
    y.download(backend)
}

/// Adds to `reader`'s bias what `writer`'s outputs at these places, which are the same for every token, give.
fn take_over<B: Backend>(
    learner: &mut Learner<B>,
    [writer, reader]: [&Linear; 2],
    places: &[usize],
) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let constant = at_zero(learner, writer)?;
    let Learner { backend, params, .. } = learner;
    let mut x = vec![0.0; constant.len()];
    places.iter().for_each(|&place| x[place] = f64::from(constant[place]));
    for id in reader.matrices() {
        let weight = params.value(id).download(backend)?;
        let product = |row: &[f32]| row.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum();
        x = weight.chunks(x.len()).map(product).collect();
    }
    let id = bias(reader);
    let mut values = params.value(id).download(backend)?;
    values.iter_mut().zip(x).for_each(|(bias, x)| *bias = (f64::from(*bias) + x) as f32);
    let shape = params.value(id).shape();
    *params.value_mut(id).0 = Tensor::upload(backend, &values, shape)?;
    Ok(())
}

fn bias(layer: &Linear) -> ParamId {
    layer.bias.expect("all but the first of a factored layer's two have one")
}
