//! Sums and scalings.

use super::map::{Binary, Unary, binary, binary_in_place, unary_in_place};
use crate::Kernels;
use crate::simd::{LANES, Simd};

impl Kernels {
    /// `y[i] += x[i]`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(self, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.add)(x, y) }
    }

    /// `z[i] = x[i] + y[i]`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn sum(self, x: &[f32], y: &[f32], z: &mut [f32]) {
        assert!(x.len() == y.len() && y.len() == z.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.sum)(x, y, z) }
    }

    /// `x[i] *= factor`.
    pub fn scale(self, x: &mut [f32], factor: f32) {
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.scale)(x, factor) }
    }

    /// `db[j] += Σᵢ dy[i][j]`, rows in ascending order: the gradient of a bias. `dy`: `[rows, n]`, `db`: `[n]`.
    ///
    /// # Panics
    /// If `dy` is not whole rows.
    pub fn column_sums(self, dy: &[f32], db: &mut [f32]) {
        assert!(if db.is_empty() { dy.is_empty() } else { dy.len().is_multiple_of(db.len()) });
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.column_sums)(dy, db) }
    }

    /// Σᵢ `x[i]`², in double precision, so that gradients of any `f32` size neither overflow nor drown.
    #[cfg(feature = "train")]
    pub fn sum_squares(self, x: &[f32]) -> f64 {
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.sum_squares)(x) }
    }
}

#[derive(Clone, Copy)]
struct Add;

impl<S: Simd> Binary<S> for Add {
    #[inline(always)]
    fn apply(self, s: S, x: S::Floats, y: S::Floats) -> S::Floats {
        s.add(x, y)
    }
}

#[derive(Clone, Copy)]
struct Scale(f32);

impl<S: Simd> Unary<S> for Scale {
    #[inline(always)]
    fn apply(self, s: S, x: S::Floats) -> S::Floats {
        s.mul(x, s.splat(self.0))
    }
}

#[inline(always)]
pub(super) fn sum<S: Simd>(s: S, x: &[f32], y: &[f32], z: &mut [f32]) {
    binary(s, Add, x, y, z);
}

#[inline(always)]
pub(super) fn add<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    binary_in_place(s, Add, x, y);
}

#[inline(always)]
pub(super) fn scale<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    unary_in_place(s, Scale(factor), x);
}

/// Rows that are added up in registers before `db` is touched: as many streams as a prefetcher follows.
const ROWS_AT_ONCE: usize = 8;

#[inline(always)]
pub(super) fn column_sums<S: Simd>(s: S, dy: &[f32], db: &mut [f32]) {
    if db.is_empty() {
        return;
    }
    let n = db.len();
    let mut blocks = dy.chunks_exact(ROWS_AT_ONCE * n);
    for block in &mut blocks {
        let (first, rest) = block.split_at(n);
        let rows: [&[f32]; ROWS_AT_ONCE] =
            std::array::from_fn(|i| if i == 0 { first } else { &rest[(i - 1) * n..][..n] });
        add_rows(s, rows, db);
    }
    for row in blocks.remainder().chunks_exact(n) {
        add_rows(s, [row], db);
    }
}

/// `db[j] = (db[j] + rows[0][j]) + rows[1][j] + …`
#[inline(always)]
fn add_rows<S: Simd, const ROWS: usize>(s: S, rows: [&[f32]; ROWS], db: &mut [f32]) {
    let chunks = rows.map(|row| row.as_chunks::<LANES>());
    let (db, db_rest) = db.as_chunks_mut::<LANES>();
    for (j, db) in db.iter_mut().enumerate() {
        let mut sum = s.load(db);
        for (row, _) in chunks {
            sum = s.add(sum, s.load(&row[j]));
        }
        s.store(sum, db);
    }
    if !db_rest.is_empty() {
        let mut sum = s.load_partial(db_rest, 0.0);
        for (_, rest) in chunks {
            sum = s.add(sum, s.load_partial(rest, 0.0));
        }
        s.store_partial(sum, db_rest);
    }
}

#[inline(always)]
pub(super) fn sum_squares<S: Simd>(s: S, x: &[f32]) -> f64 {
    let (x, rest) = x.as_chunks::<LANES>();
    // Two chains of additions, to hide their latency.
    let (pairs, last) = x.as_chunks::<2>();
    let (mut even, mut odd) = (s.zero_doubles(), s.zero_doubles());
    for [a, b] in pairs {
        even = s.add_squares(even, s.load(a));
        odd = s.add_squares(odd, s.load(b));
    }
    for a in last {
        even = s.add_squares(even, s.load(a));
    }
    odd = s.add_squares(odd, s.load_partial(rest, 0.0));
    s.sum_doubles(even) + s.sum_doubles(odd)
}
