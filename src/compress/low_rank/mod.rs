//! A matrix as the product of two thin ones, with the least error that any two of their rank can have.
//!
//! ```text
//! A [rows, cols] ──Gram matrix of the shorter side, f64──► eigenvalues σ², eigenvectors V
//!                ──► left = A·V·σ^-½ [rows, rank], right = σ^½·Vᵀ [rank, cols];  left·right ≈ A
//! ```
//!
//! This is the truncated singular value decomposition (Eckart and Young, 1936): the error is what the spectrum has
//! behind `rank`. The Gram matrix halves the digits of the smallest singular values, which in f64 leaves more than
//! matrices in f32 have. Each factor takes the square root of each singular value, so that neither is much larger than
//! the other when both are trained. All sums have one order: the result does not depend on the number of threads.

mod symmetric;

use rayon::prelude::*;

/// Columns of the Gram matrix that one task makes: so often the matrix is read.
const GRAM_ROWS: usize = 16;

/// Two matrices whose product is near a third.
#[derive(Clone, Debug)]
pub struct Factors {
    /// `[rows, rank]`, row-major.
    pub left: Vec<f32>,
    /// `[rank, cols]`, row-major.
    pub right: Vec<f32>,
    /// All singular values of the matrix, the largest first: `[min(rows, cols)]`.
    pub spectrum: Vec<f64>,
}

impl Factors {
    /// The share of the matrix's sum of squares that the product has, by the spectrum; 1 for a matrix of zeros.
    pub fn energy(&self, rank: usize) -> f64 {
        let sum = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
        let all = sum(&self.spectrum);
        if all == 0.0 { 1.0 } else { sum(&self.spectrum[..rank]) / all }
    }
}

/// Factors `matrix`, `[rows, cols]` row-major, all of whose values are finite.
///
/// # Panics
/// If there are more or fewer values, or `rank` is above the smaller of `rows` and `cols`.
pub fn factor(matrix: &[f32], rows: usize, cols: usize, rank: usize) -> Factors {
    assert_eq!(matrix.len(), rows * cols, "the values of a matrix");
    assert!(rank <= rows.min(cols), "a rank above that of any matrix of the shape");
    if cols <= rows {
        return factor_tall(matrix, rows, cols, rank);
    }
    // (Aᵀ ≈ L·R) is (A ≈ Rᵀ·Lᵀ).
    let Factors { left, right, spectrum } = factor_tall(&transposed(matrix, rows, cols), cols, rows, rank);
    Factors { left: transposed(&right, rank, rows), right: transposed(&left, cols, rank), spectrum }
}

/// [`factor`] of a matrix that has as many rows as columns at least.
fn factor_tall(matrix: &[f32], rows: usize, cols: usize, rank: usize) -> Factors {
    let symmetric::Eigen { values, vectors } = symmetric::eigen(gram(matrix, cols), cols);
    // Rounding may leave an eigenvalue of nothing below zero.
    let spectrum: Vec<f64> = values.iter().map(|value| value.max(0.0).sqrt()).collect();
    // What is lost in rounding beside the largest has no direction that means anything.
    let floor = spectrum.first().map_or(0.0, |largest| largest * 1e-7);
    let inverse = |sigma: f64| if sigma > floor { sigma.sqrt().recip() } else { 0.0 };
    let root = |sigma: f64| if sigma > floor { sigma.sqrt() } else { 0.0 };
    let (sigmas, mut left) = (&spectrum[..rank], vec![0.0f32; rows * rank]);
    let directions = |of: &dyn Fn(f64) -> f64| -> Vec<f64> {
        let scaled = sigmas.iter().zip(vectors.chunks_exact(cols.max(1)));
        scaled
            .flat_map(|(&sigma, vector)| vector.iter().map(move |x| x * of(sigma)).collect::<Vec<_>>())
            .collect()
    };
    let right: Vec<f32> = directions(&root).into_iter().map(|x| x as f32).collect();
    // [cols, rank], so that the inner loop runs along memory.
    let into = transposed(&directions(&inverse), rank, cols);
    let (width, height) = (rank.max(1), cols.max(1));
    left.par_chunks_mut(width).zip(matrix.par_chunks(height)).for_each(|(left, row)| {
        let mut sums = vec![0.0f64; rank];
        for (&value, directions) in row.iter().zip(into.chunks_exact(width)) {
            let value = f64::from(value);
            sums.iter_mut().zip(directions).for_each(|(sum, direction)| *sum += value * direction);
        }
        left.iter_mut().zip(sums).for_each(|(left, sum)| *left = sum as f32);
    });
    Factors { left, right, spectrum }
}

/// `AᵀA`: `[cols, cols]`.
fn gram(matrix: &[f32], cols: usize) -> Vec<f64> {
    let mut gram = vec![0.0f64; cols * cols];
    let width = cols.max(1);
    gram.par_chunks_mut(GRAM_ROWS * width).enumerate().for_each(|(block, gram)| {
        let first = block * GRAM_ROWS;
        let mut wide = vec![0.0f64; cols];
        for row in matrix.chunks_exact(width) {
            wide.iter_mut().zip(row).for_each(|(wide, &value)| *wide = f64::from(value));
            for (i, sums) in gram.chunks_exact_mut(width).enumerate() {
                let factor = wide[first + i];
                sums.iter_mut().zip(&wide).for_each(|(sum, value)| *sum += factor * value);
            }
        }
    });
    gram
}

/// `[rows, cols]` as `[cols, rows]`.
pub(super) fn transposed<T: Copy>(matrix: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| matrix[row * cols + col])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck_kernels::random::SplitMix64;

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let mut random = SplitMix64::new(seed);
        (0..len).map(|_| random.signed_unit()).collect()
    }

    fn product(left: &[f32], right: &[f32], rank: usize, cols: usize) -> Vec<f64> {
        let row = |row: &[f32]| -> Vec<f64> {
            let entry = |col: usize| -> f64 {
                (0..rank).map(|k| f64::from(row[k]) * f64::from(right[k * cols + col])).sum()
            };
            (0..cols).map(entry).collect()
        };
        left.chunks_exact(rank).flat_map(row).collect()
    }

    /// A sum of squares.
    fn energy(values: impl IntoIterator<Item = f64>) -> f64 {
        values.into_iter().map(|x| x * x).sum()
    }

    #[test]
    fn the_error_is_what_the_spectrum_has_behind_the_rank() {
        for (rows, cols) in [(60, 17), (17, 60), (23, 23), (40, 1), (1, 9)] {
            let matrix = random(rows * cols, (rows * 100 + cols) as u64);
            let all = energy(matrix.iter().map(|&x| f64::from(x)));
            for rank in [1, 3, rows.min(cols)].into_iter().filter(|&rank| rank <= rows.min(cols)) {
                let found = factor(&matrix, rows, cols, rank);
                assert_eq!((found.left.len(), found.right.len()), (rows * rank, rank * cols));
                assert!(found.spectrum.is_sorted_by(|a, b| a >= b));
                assert!((energy(found.spectrum.iter().copied()) - all).abs() <= 1e-9 * all);
                let near = product(&found.left, &found.right, rank, cols);
                let error = energy(near.iter().zip(&matrix).map(|(near, &x)| near - f64::from(x)));
                let tail = energy(found.spectrum[rank..].iter().copied());
                assert!((error - tail).abs() <= 1e-6 * all, "{rows}×{cols}, rank {rank}: {error} for {tail}");
                assert!((found.energy(rank) - (1.0 - tail / all)).abs() <= 1e-12);
            }
        }
    }

    #[test]
    fn both_factors_are_orthogonal_and_carry_the_same() {
        let (rows, cols, rank) = (50, 20, 6);
        let found = factor(&random(rows * cols, 4), rows, cols, rank);
        let column = |k: usize| (0..rows).map(move |row| row * rank + k);
        for (a, &sigma) in found.spectrum[..rank].iter().enumerate() {
            for b in 0..rank {
                let left: f64 = column(a)
                    .zip(column(b))
                    .map(|(a, b)| f64::from(found.left[a]) * f64::from(found.left[b]))
                    .sum();
                let right: f64 = (0..cols)
                    .map(|col| {
                        f64::from(found.right[a * cols + col]) * f64::from(found.right[b * cols + col])
                    })
                    .sum();
                let expected = if a == b { sigma } else { 0.0 };
                let bound = 1e-5 * found.spectrum[0];
                assert!((left - expected).abs() <= bound, "left {a}, {b}: {left}");
                assert!((right - expected).abs() <= bound, "right {a}, {b}: {right}");
            }
        }
    }

    #[test]
    fn a_matrix_of_a_low_rank_comes_back() {
        // Of rank 3, so that 14 singular values are nothing but rounding.
        let (rows, cols) = (40, 17);
        let (left, right) = (random(rows * 3, 1), random(3 * cols, 2));
        let matrix: Vec<f32> = product(&left, &right, 3, cols).into_iter().map(|x| x as f32).collect();
        for rank in [3, 8] {
            let found = factor(&matrix, rows, cols, rank);
            let near = product(&found.left, &found.right, rank, cols);
            let worst =
                near.iter().zip(&matrix).map(|(near, &x)| (near - f64::from(x)).abs()).fold(0.0, f64::max);
            assert!(worst <= 1e-6, "rank {rank}: {worst}");
            assert!(found.left.iter().chain(&found.right).all(|x| x.is_finite()));
        }
        let zeros = factor(&[0.0; 12], 4, 3, 2);
        assert!(zeros.left.iter().chain(&zeros.right).all(|&x| x == 0.0) && zeros.energy(2) == 1.0);
    }

    #[test]
    fn threads_change_nothing() {
        let matrix = random(300 * 40, 9);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| factor(&matrix, 300, 40, 10));
            [found.left, found.right].concat().iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
        };
        assert!(on(1) == on(3));
    }
}
