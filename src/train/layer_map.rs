//! Which layer of a teacher each layer of a student learns from.
//!
//! ```text
//! original   the one that stands where the student's stood before layers were deleted; or as uniform
//! uniform    student's layer i of n: the last of the i-th of n equal groups of the teacher's
//! last       the teacher's last n, in order
//! search     the one whose hidden states are most like its own, by linear CKA on a sample
//! ```
//!
//! Uniform and last are TinyBERT's strategies (Jiao et al., arXiv:1909.10351). Linear CKA (Kornblith et al.,
//! arXiv:1905.00414) of centred states X and Y, a row for each token, is `‖Yᵀ·X‖² / (‖Xᵀ·X‖·‖Yᵀ·Y‖)`, in Frobenius' norm:
//! 1 for states that are the same but for rotation and size, whatever their widths.

use crate::autograd::Tape;
use crate::models::{Classifier, ModelConfig, Rows};
use crate::ops::Backend;
use crate::params::ParamStore;
use crate::tensor::{Shape, Tensor};
use crate::{Batch, Result};

/// How layers are paired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerMap {
    /// By the places that layers had in the original network, where both networks had as many at first and the teacher has
    /// all that the student has; else as [`LayerMap::Uniform`].
    Original,
    /// Evenly spaced.
    Uniform,
    /// With the teacher's last layers; the student's last ones, if those are more.
    Last,
    /// With the most similar.
    Search,
    /// `[student's, teacher's]`, counted from 0.
    Pairs(Vec<[usize; 2]>),
}

impl LayerMap {
    /// The pairs, `[student's, teacher's]`; `similarities` are asked for by [`LayerMap::Search`] alone.
    ///
    /// # Errors
    /// Those of `similarities`.
    pub fn pairs(
        &self,
        student: &ModelConfig,
        teacher: &ModelConfig,
        similarities: impl FnOnce() -> Result<Vec<Vec<f64>>>,
    ) -> Result<Vec<[usize; 2]>> {
        let [n, m] = [student, teacher].map(|config| config.layers.len());
        let uniform = || (0..n).map(|layer| [layer, ((layer + 1) * m / n).max(1) - 1]).collect();
        Ok(match self {
            LayerMap::Original => by_origin(student, teacher).unwrap_or_else(uniform),
            LayerMap::Uniform => uniform(),
            LayerMap::Last => {
                let last = n.min(m);
                (0..last).map(|layer| [n - last + layer, m - last + layer]).collect()
            }
            LayerMap::Search => {
                similarities()?.iter().map(|row| most_similar(row)).enumerate().map(Into::into).collect()
            }
            LayerMap::Pairs(pairs) => pairs.clone(),
        })
    }
}

fn by_origin(student: &ModelConfig, teacher: &ModelConfig) -> Option<Vec<[usize; 2]>> {
    if student.original_layers() != teacher.original_layers() {
        return None;
    }
    let there = teacher.kept_layers();
    let pair = |(layer, original)| Some([layer, there.iter().position(|place| *place == original)?]);
    student.kept_layers().into_iter().enumerate().map(pair).collect()
}

/// The place of the largest; of equal ones the first.
fn most_similar(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, place| if row[place] > row[best] { place } else { best })
}

/// Linear CKA of each layer of a student with each of a teacher, `[student's][teacher's]`, over the tokens of a batch,
/// which each reads in its own ids.
///
/// # Errors
/// The device's.
pub fn similarities<B: Backend>(
    backend: &B,
    student: (&Classifier, &ParamStore<B>, &Batch),
    teacher: (&Classifier, &ParamStore<B>, &Batch),
) -> Result<Vec<Vec<f64>>> {
    let (mine, theirs) = (states(backend, student)?, states(backend, teacher)?);
    let own = |states: &[Tensor<B>]| -> Result<Vec<f64>> {
        states.iter().map(|x| Ok(product(backend, x, x)?.sqrt())).collect()
    };
    let (of_mine, of_theirs) = (own(&mine)?, own(&theirs)?);
    let mut rows = Vec::with_capacity(mine.len());
    for (x, xx) in mine.iter().zip(of_mine) {
        let mut row = Vec::with_capacity(theirs.len());
        for (y, yy) in theirs.iter().zip(&of_theirs) {
            let norms = xx * yy;
            row.push(if norms > 0.0 { product(backend, y, x)? / norms } else { 0.0 });
        }
        rows.push(row);
    }
    Ok(rows)
}

/// `‖Yᵀ·X‖²`.
fn product<B: Backend>(backend: &B, y: &Tensor<B>, x: &Tensor<B>) -> Result<f64> {
    let shape = Shape::new(y.cols(), x.cols());
    let mut product = Tensor::from_buffer(backend.empty(shape.len())?, shape);
    backend.weight_gradient(y, x, &mut product, false)?;
    backend.sum_squares(product.buffer())
}

/// The output of each layer for every token, each column less its mean.
fn states<B: Backend>(
    backend: &B,
    (model, params, batch): (&Classifier, &ParamStore<B>, &Batch),
) -> Result<Vec<Tensor<B>>> {
    let mut tape = Tape::evaluating(backend, params, batch);
    let mut states = Vec::with_capacity(model.layers.len());
    model.forward_each(&mut tape, Rows::All, |_| {}, |layer| states.push(layer.hidden.tensor().clone()))?;
    let centred = |state: Tensor<B>| {
        let (mut values, cols) = (state.download(backend)?, state.cols());
        let mut means = vec![0.0; cols];
        for row in values.chunks(cols) {
            means.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x));
        }
        let rows = state.rows().max(1) as f64;
        for row in values.chunks_mut(cols) {
            row.iter_mut().zip(&means).for_each(|(x, mean)| *x = (f64::from(*x) - mean / rows) as f32);
        }
        Tensor::upload(backend, &values, state.shape())
    };
    states.into_iter().map(centred).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::config::Sizes;

    fn network(layers: usize, deleted: &[usize]) -> ModelConfig {
        let sizes = Sizes { vocab: 9, positions: 9, hidden: 4, heads: 2, intermediate: 4, layers };
        ModelConfig { deleted_layers: deleted.to_vec(), ..ModelConfig::distilbert(sizes, ["a", "b"]) }
    }

    fn pairs(map: LayerMap, student: &ModelConfig, teacher: &ModelConfig) -> Vec<[usize; 2]> {
        map.pairs(student, teacher, || Ok(vec![vec![0.1, 0.9, 0.9], vec![0.5, 0.2, 0.1]])).unwrap()
    }

    #[test]
    fn each_map_pairs_as_it_says() {
        let (three, six) = (network(3, &[1, 3, 4]), network(6, &[]));
        assert_eq!(pairs(LayerMap::Original, &three, &six), [[0, 0], [1, 2], [2, 5]]);
        assert_eq!(pairs(LayerMap::Original, &six, &six), [0, 1, 2, 3, 4, 5].map(|layer| [layer; 2]));
        assert_eq!(pairs(LayerMap::Uniform, &three, &six), [[0, 1], [1, 3], [2, 5]]);
        assert_eq!(pairs(LayerMap::Last, &three, &six), [[0, 3], [1, 4], [2, 5]]);
        assert_eq!(pairs(LayerMap::Last, &six, &three), [[3, 0], [4, 1], [5, 2]]);
        assert_eq!(pairs(LayerMap::Search, &network(2, &[]), &network(3, &[])), [[0, 1], [1, 0]]);
        assert_eq!(pairs(LayerMap::Pairs(vec![[1, 0]]), &three, &six), [[1, 0]]);
        // A stranger, and a teacher that lacks a layer of the student's.
        assert_eq!(pairs(LayerMap::Original, &network(3, &[]), &six), [[0, 1], [1, 3], [2, 5]]);
        assert_eq!(pairs(LayerMap::Original, &three, &network(5, &[2])), [[0, 0], [1, 2], [2, 4]]);
        assert_eq!(pairs(LayerMap::Uniform, &six, &network(2, &[])).last(), Some(&[5, 1]));
    }
}
