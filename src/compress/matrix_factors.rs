//! Matrices of the encoder as products of two thin ones.
//!
//! ```text
//! W [outputs, inputs] ─factor─► U [outputs, rank] · V [rank, inputs] ─training─► … ─fold─► U·V, where two matrices are no smaller
//! ```
//!
//! The factors are the best of their rank ([`low_rank`](super::low_rank)); training goes on from there, on both. What they save in
//! multiply-adds they save in parameters, on any device and in any precision, with products that are dense.
//!
//! How much a matrix loses by a rank is what its spectrum has behind it. One rank for all is wrong by as much as spectra differ:
//! under [`RankScope::Global`] all singular values compete, each by its share of its own matrix's energy, so that matrices of
//! large weights have no advantage over those of small ones.

use super::blocks::LayerMatrices;
use super::expand::matrix;
use super::low_rank::{Factors, factor};
use super::rebuild::{Origin, rebuild};
use crate::Result;
use crate::models::config::MatrixRanks;
use crate::models::{Classifier, ModelConfig};
use crate::ops::Backend;
use crate::quantize::int8_bytes;
use crate::train::Learner;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Over what a budget of parameters is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RankScope {
    /// Each matrix has the same fraction of its full rank.
    #[default]
    Matrix,
    /// All matrices together have as many parameters as they would have so; singular values are kept by their share of their
    /// matrix's sum of squares, the largest first.
    Global,
}

/// Which matrices are factored, and how thin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankBudget {
    /// Rank, as a fraction of the full one; 0 for none.
    pub fraction: f64,
    /// Over what it is shared out.
    pub scope: RankScope,
    /// Where the matrices are.
    pub matrices: LayerMatrices,
}

/// A matrix that may be factored.
#[derive(Clone, Debug)]
pub struct Spectrum {
    /// The layer.
    pub layer: usize,
    /// Its place in [`MatrixRanks`].
    pub matrix: usize,
    /// Outputs and inputs.
    pub sides: [usize; 2],
    /// Its singular values, the largest first.
    pub values: Vec<f64>,
}

/// What became of the matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct FactorizationReport {
    /// How many are products now, of those that might be.
    pub matrices: [usize; 2],
    /// Parameters of all these before and after.
    pub parameters: [usize; 2],
    /// The mean share of their sums of squares that they have; 1 of those that stay whole.
    pub energy: f64,
}

/// Whether a matrix of these sides, `[outputs, inputs]`, is smaller as a product of this rank: in parameters, and in bytes in the
/// int8 layout, which has its own padding, scales and sums.
pub fn pays([outputs, inputs]: [usize; 2], rank: usize) -> bool {
    rank * (outputs + inputs) < outputs * inputs
        && int8_bytes(outputs, rank) + int8_bytes(rank, inputs) < int8_bytes(outputs, inputs)
}

/// A rank for each matrix; 0 for one that a product would not make smaller.
pub fn choose(spectra: &[Spectrum], fraction: f64, scope: RankScope) -> Vec<usize> {
    let even = |of: &Spectrum| ((fraction * of.values.len() as f64).round() as usize).max(1);
    let ranks = match scope {
        RankScope::Matrix => spectra.iter().map(even).collect(),
        RankScope::Global => shared_out(spectra, spectra.iter().map(|of| cost(of.sides, even(of))).sum()),
    };
    let useful = |(of, rank): (&Spectrum, usize)| if pays(of.sides, rank) { rank } else { 0 };
    spectra.iter().zip(ranks).map(useful).collect()
}

/// Parameters of a matrix with this rank: all that it has, if a product does not pay.
fn cost(sides: [usize; 2], rank: usize) -> usize {
    let [outputs, inputs] = sides;
    if pays(sides, rank) { rank * (outputs + inputs) } else { outputs * inputs }
}

/// Ranks whose costs sum to no more than `parameters`, but that each is 1 at least.
fn shared_out(spectra: &[Spectrum], parameters: usize) -> Vec<usize> {
    let mut candidates: Vec<(f64, usize, usize)> = Vec::new();
    for (place, of) in spectra.iter().enumerate() {
        let all: f64 = of.values.iter().map(|value| value * value).sum();
        let share = |value: &f64| if all > 0.0 { value * value / all } else { 0.0 };
        candidates.extend((1..).zip(&of.values[1..]).map(|(rank, value)| (share(value), rank, place)));
    }
    // Of equal ones that of the thinner matrix, or else of the earlier.
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let (mut ranks, mut full) = (vec![1; spectra.len()], vec![false; spectra.len()]);
    let mut spent: usize = spectra.iter().map(|of| cost(of.sides, 1)).sum();
    for (_, _, place) in candidates {
        let sides = spectra[place].sides;
        let more = cost(sides, ranks[place] + 1) - cost(sides, ranks[place]);
        full[place] |= spent + more > parameters;
        if !full[place] {
            ranks[place] += 1;
            spent += more;
        }
    }
    ranks
}

/// Factors the matrices of a learner's encoder as `budget` says. Everything else keeps its values, masks and moments; what is
/// masked, factored or empty already stays as it is.
///
/// # Errors
/// The device's.
pub fn factorize<B: Backend>(learner: &mut Learner<B>, budget: &RankBudget) -> Result<FactorizationReport> {
    factorize_to(learner, budget.matrices, |spectra| choose(spectra, budget.fraction, budget.scope))
}

/// [`factorize`] with ranks of another choice, one for each matrix; 0 leaves it whole.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If there are more or fewer ranks than matrices, or one is above the smaller side.
pub fn factorize_to<B: Backend>(
    learner: &mut Learner<B>,
    matrices: LayerMatrices,
    choose: impl FnOnce(&[Spectrum]) -> Vec<usize>,
) -> Result<FactorizationReport> {
    let (spectra, factors) = decompose(candidates(learner, matrices)?);
    let chosen = choose(&spectra);
    assert_eq!(chosen.len(), spectra.len(), "a rank for each matrix");
    let config = &learner.model.config;
    let mut ranks: Vec<MatrixRanks> = (0..config.layers.len()).map(|layer| config.ranks_of(layer)).collect();
    let mut sum = FactorizationReport { matrices: [0, spectra.len()], parameters: [0; 2], energy: 0.0 };
    let all = || spectra.iter().zip(&factors).zip(chosen.iter().copied());
    for ((of, factors), rank) in all() {
        let ([outputs, inputs], whole) = (of.sides, rank == 0);
        ranks[of.layer][of.matrix] = rank;
        sum.matrices[0] += usize::from(!whole);
        sum.parameters[0] += outputs * inputs;
        sum.parameters[1] += if whole { outputs * inputs } else { rank * (outputs + inputs) };
        sum.energy += if whole { 1.0 } else { factors.energy(rank) } / spectra.len() as f64;
    }
    let config = with_ranks(config, ranks);
    let (factored, _) = Classifier::new(&config);
    let mut values = HashMap::new();
    for ((of, factors), rank) in all().filter(|(_, rank)| *rank > 0) {
        let linear = factored.layers[of.layer].linears()[of.matrix];
        values.insert(linear.weight, truncated(&factors.left, of.values.len(), rank));
        values.insert(linear.reader(), factors.right[..rank * of.sides[1]].to_vec());
    }
    rebuild(learner, &config, |id, _| Origin::given_or_named(values.remove(&id)))?;
    Ok(sum)
}

/// Spectra, and factors of full rank, of which those of any less are the first columns and rows.
fn decompose(matrices: Vec<Candidate>) -> (Vec<Spectrum>, Vec<Factors>) {
    let each = matrices.into_par_iter().map(|([layer, matrix], sides, values)| {
        let [outputs, inputs] = sides;
        let factors = factor(&values, outputs, inputs, outputs.min(inputs));
        (Spectrum { layer, matrix, sides, values: factors.spectrum.clone() }, factors)
    });
    each.unzip()
}

/// The first `rank` columns of `[rows, cols]`.
fn truncated(values: &[f32], cols: usize, rank: usize) -> Vec<f32> {
    values.chunks_exact(cols.max(1)).flat_map(|row| &row[..rank]).copied().collect()
}

/// A configuration with these ranks for the layers that have parameters of their own, and for those that use them.
fn with_ranks(config: &ModelConfig, mut ranks: Vec<MatrixRanks>) -> ModelConfig {
    for layer in 0..ranks.len() {
        ranks[layer] = ranks[config.owner(layer)];
    }
    if ranks.iter().all(|ranks| *ranks == MatrixRanks::default()) {
        ranks.clear();
    }
    ModelConfig { ranks, ..config.clone() }
}

/// Where a matrix is, its sides, and its values.
type Candidate = ([usize; 2], [usize; 2], Vec<f32>);

/// The whole matrices that are not masked.
fn candidates<B: Backend>(learner: &Learner<B>, matrices: LayerMatrices) -> Result<Vec<Candidate>> {
    let Learner { backend, model, params, .. } = learner;
    let mut found = Vec::new();
    for layer in model.config.own_layers() {
        for place in matrices.range() {
            let linear = model.layers[layer].linears()[place];
            let free = linear.down.is_none() && params.get(linear.weight).mask.is_none();
            if free && linear.inputs * linear.outputs > 0 {
                let values = params.value(linear.weight).download(backend)?;
                found.push(([layer, place], [linear.outputs, linear.inputs], values));
            }
        }
    }
    Ok(found)
}

/// Multiplies the factors that are no smaller than their product: heads and units that were deleted since may have left them so.
/// Masked ones stay, since zeros of a factor are none of the product. Returns how many became whole. If any did, the learner has
/// no feature teacher any more.
///
/// # Errors
/// The device's.
pub fn unfactor<B: Backend>(learner: &mut Learner<B>) -> Result<usize> {
    let Learner { backend, model, params, .. } = &*learner;
    let config = &model.config;
    let mut ranks: Vec<MatrixRanks> = (0..config.layers.len()).map(|layer| config.ranks_of(layer)).collect();
    let mut whole = HashMap::new();
    for layer in config.own_layers() {
        let sides = config.sides(layer);
        for (place, linear) in model.layers[layer].linears().into_iter().enumerate() {
            let masked = linear.matrices().any(|id| params.get(id).mask.is_some());
            if linear.down.is_some() && !masked && !pays(sides[place], linear.inputs) {
                let values = matrix(linear, |id| params.value(id).download(backend))?;
                whole.insert(params.get(linear.weight).spec.name.clone(), values);
                ranks[layer][place] = 0;
            }
        }
    }
    let count = whole.len();
    if count > 0 {
        let config = with_ranks(config, ranks);
        learner.feature_teacher = None;
        rebuild(learner, &config, |_, spec| Origin::given_or_named(whole.remove(&spec.name)))?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spectrum(sides: [usize; 2], values: &[f64]) -> Spectrum {
        Spectrum { layer: 0, matrix: 0, sides, values: values.to_vec() }
    }

    #[test]
    fn a_product_pays_where_it_is_smaller() {
        // 384·384 / 768 = 192 is as large; scales and padding make it larger from a little below.
        assert!(pays([384, 384], 96) && pays([384, 384], 184) && !pays([384, 384], 192));
        assert!(pays([1536, 384], 256) && !pays([1536, 384], 308));
        assert!(!pays([0, 384], 1) && !pays([3, 3], 1), "nothing to save");
    }

    #[test]
    fn each_matrix_has_its_fraction_or_the_energy_decides() {
        let flat = spectrum([64, 64], &[1.0; 64]);
        let steep = spectrum([64, 64], &std::array::from_fn::<f64, 64, _>(|i| 0.5f64.powi(i as i32)));
        let both = [flat, steep];
        assert_eq!(choose(&both, 0.25, RankScope::Matrix), [16, 16]);
        assert_eq!(choose(&both, 0.9, RankScope::Matrix), [0, 0], "which would be larger");
        let [flat, steep] = choose(&both, 0.2, RankScope::Global)[..] else { panic!("two ranks") };
        assert!((1..8).contains(&steep), "{steep}");
        assert_eq!(flat + steep, 2 * 13, "all of the budget is spent");
        // The same spectrum, at a hundred times the size, is worth as much.
        let large = spectrum([64, 64], &[100.0; 64]);
        assert_eq!(choose(&[both[0].clone(), large], 0.25, RankScope::Global), [16, 16]);
        assert_eq!(choose(&[spectrum([64, 64], &[0.0; 64])], 0.001, RankScope::Global), [1]);
    }
}
