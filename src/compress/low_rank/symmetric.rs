//! All eigenvalues and eigenvectors of a symmetric matrix, in f64.
//!
//! Reflections make it tridiagonal (Householder, 1958), rotations with shifts make that diagonal (the implicit QL
//! method: Bowdler, Martin, Reinsch and Wilkinson, 1968), and both are applied to the identity. About 5·n³ operations:
//! a second or two for n = 768. Eigenvectors are rows, so that every inner loop runs along memory.

/// Eigenvalues, the largest first, and as many eigenvectors of length 1.
pub(super) struct Eigen {
    pub values: Vec<f64>,
    /// Row i belongs to value i: `[n, n]`.
    pub vectors: Vec<f64>,
}

/// Rotations that one eigenvalue may take: three are usual.
const PATIENCE: usize = 200;

/// Decomposes `matrix`, `[n, n]`.
pub(super) fn eigen(mut matrix: Vec<f64>, n: usize) -> Eigen {
    assert_eq!(matrix.len(), n * n, "a square matrix");
    let (mut diagonal, mut beside, mut vectors) = tridiagonal(&mut matrix, n);
    diagonalize(&mut diagonal, &mut beside, &mut vectors, n);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    Eigen {
        values: order.iter().map(|&i| diagonal[i]).collect(),
        vectors: order.iter().flat_map(|&i| &vectors[i * n..(i + 1) * n]).copied().collect(),
    }
}

/// The diagonal, what stands beside it, and the orthogonal Q in rows, so that `Q·A·Qᵀ` is tridiagonal.
fn tridiagonal(a: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (Vec::with_capacity(n), Vec::with_capacity(n));
    // Reflection k is I - v·vᵀ, v of length √2 and zero up to place k; they are applied to Q at the end.
    let mut reflections: Vec<Vec<f64>> = Vec::with_capacity(n);
    for k in 0..n {
        diagonal.push(a[k * n + k]);
        let from = k + 1;
        if from == n {
            beside.push(0.0);
            break;
        }
        let mut v = a[k * n + from..(k + 1) * n].to_vec();
        let length = norm(&v);
        // The sign for which nothing cancels.
        let target = if v[0] > 0.0 { -length } else { length };
        beside.push(target);
        v[0] -= target;
        let reflected = norm(&v);
        if reflected > 0.0 {
            v.iter_mut().for_each(|x| *x *= std::f64::consts::SQRT_2 / reflected);
            reflect(a, &v, from, n);
        }
        reflections.push(v);
    }
    let mut q = vec![0.0; n * n];
    (0..n).for_each(|i| q[i * n + i] = 1.0);
    // Q = H[n-2]·…·H[0], each reflection acting on one place more than the one before it.
    for (k, v) in reflections.iter().enumerate().rev() {
        let from = k + 1;
        for row in q.chunks_exact_mut(n).skip(from) {
            let row = &mut row[from..];
            let along = dot(row, v);
            row.iter_mut().zip(v).for_each(|(q, v)| *q -= along * v);
        }
    }
    (diagonal, beside, q)
}

/// `A -= v·wᵀ + w·vᵀ` behind `from`, which is `H·A·H` for `H = I - v·vᵀ`.
fn reflect(a: &mut [f64], v: &[f64], from: usize, n: usize) {
    let mut w: Vec<f64> = a.chunks_exact(n).skip(from).map(|row| dot(&row[from..], v)).collect();
    let half = 0.5 * dot(&w, v);
    w.iter_mut().zip(v).for_each(|(w, v)| *w -= half * v);
    for (i, row) in a.chunks_exact_mut(n).skip(from).enumerate() {
        let (vi, wi) = (v[i], w[i]);
        row[from..].iter_mut().zip(v.iter().zip(&w)).for_each(|(a, (v, w))| *a -= vi * w + wi * v);
    }
}

/// Makes a tridiagonal matrix diagonal; the rotations are applied to the rows of `vectors`.
fn diagonalize(diagonal: &mut [f64], beside: &mut [f64], vectors: &mut [f64], n: usize) {
    for first in 0..n {
        for _ in 0..PATIENCE {
            let small =
                |i: &usize| beside[*i].abs() <= f64::EPSILON * (diagonal[*i].abs() + diagonal[*i + 1].abs());
            let last = (first..n - 1).find(small).unwrap_or(n - 1);
            if last == first {
                break;
            }
            // Wilkinson's shift: the eigenvalue of the first two by two block that is nearer to its corner.
            let slope = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
            let shift = diagonal[first] - beside[first] / (slope + slope.hypot(1.0).copysign(slope));
            chase(diagonal, beside, vectors, n, [first, last], shift);
        }
    }
}

/// One sweep of rotations from the end of a block to its beginning, which keeps it tridiagonal.
fn chase(
    diagonal: &mut [f64],
    beside: &mut [f64],
    vectors: &mut [f64],
    n: usize,
    [first, last]: [usize; 2],
    shift: f64,
) {
    let (mut sine, mut cosine, mut moved) = (1.0, 1.0, 0.0);
    let mut corner = diagonal[last] - shift;
    for i in (first..last).rev() {
        let (bulge, side) = (sine * beside[i], cosine * beside[i]);
        let length = bulge.hypot(corner);
        beside[i + 1] = length;
        if length == 0.0 {
            // The block falls apart here: what was moved so far is put down.
            diagonal[i + 1] -= moved;
            beside[last] = 0.0;
            return;
        }
        (sine, cosine) = (bulge / length, corner / length);
        let base = diagonal[i + 1] - moved;
        let turn = (diagonal[i] - base) * sine + 2.0 * cosine * side;
        moved = sine * turn;
        diagonal[i + 1] = base + moved;
        corner = cosine * turn - side;
        let (upper, lower) = vectors[i * n..(i + 2) * n].split_at_mut(n);
        upper.iter_mut().zip(lower).for_each(|(upper, lower)| {
            (*upper, *lower) = (cosine * *upper - sine * *lower, sine * *upper + cosine * *lower);
        });
    }
    diagonal[first] -= moved;
    beside[first] = corner;
    beside[last] = 0.0;
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Eight sums, so that the loop is one of vectors.
    let mut sums = [0.0; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        (0..8).for_each(|i| sums[i] += a[i] * b[i]);
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

fn norm(v: &[f64]) -> f64 {
    dot(v, v).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck_kernels::random::SplitMix64;

    fn check(matrix: &[f64], n: usize) {
        let Eigen { values, vectors } = eigen(matrix.to_vec(), n);
        let largest = matrix.iter().fold(1e-300f64, |largest, x| largest.max(x.abs()));
        let row = |i: usize| &vectors[i * n..(i + 1) * n];
        assert!(values.is_sorted_by(|a, b| a >= b));
        for (i, value) in values.iter().enumerate() {
            for j in 0..n {
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((dot(row(i), row(j)) - expected).abs() <= 1e-12, "vectors {i} and {j}");
                let image = dot(&matrix[j * n..(j + 1) * n], row(i));
                let error = (image - value * row(i)[j]).abs();
                assert!(error <= 1e-12 * largest * n as f64, "value {i}, place {j}: {error}");
            }
        }
        let trace: f64 = (0..n).map(|i| matrix[i * n + i]).sum();
        assert!((values.iter().sum::<f64>() - trace).abs() <= 1e-12 * largest * (n * n) as f64);
    }

    #[test]
    fn vectors_are_orthogonal_and_keep_their_direction() {
        let mut random = SplitMix64::new(5);
        for n in [1, 2, 3, 10, 41] {
            let half: Vec<f64> = (0..n * n).map(|_| f64::from(random.signed_unit())).collect();
            let matrix: Vec<f64> = (0..n * n).map(|i| half[i] + half[i % n * n + i / n]).collect();
            check(&matrix, n);
        }
    }

    #[test]
    fn equal_and_zero_eigenvalues_are_found() {
        let n = 12;
        check(&vec![0.0; n * n], n);
        check(&vec![1.0; n * n], n);
        let place =
            |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> { (0..n * n).map(|i| f(i / n, i % n)).collect() };
        check(&place(&|i, j| if i == j { 3.0 } else { 0.0 }), n);
        check(&place(&|i, j| if i.abs_diff(j) == 6 { 1e150 } else { 0.0 }), n);
        check(
            &place(&|i, j| {
                if i.abs_diff(j) == 1 {
                    -1.0
                } else if i == j {
                    2.0
                } else {
                    0.0
                }
            }),
            n,
        );
        // The second difference has the eigenvalues 2 - 2·cos(kπ / (n + 1)).
        let values = eigen(place(&|i, j| [2.0, -1.0, 0.0][i.abs_diff(j).min(2)]), n).values;
        for (k, value) in values.iter().rev().enumerate() {
            let angle = (k + 1) as f64 * std::f64::consts::PI / (n + 1) as f64;
            assert!((value - (2.0 - 2.0 * angle.cos())).abs() <= 1e-12, "{value}");
        }
    }
}
