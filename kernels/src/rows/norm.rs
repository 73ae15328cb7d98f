//! Layer norm (Ba, Kiros and Hinton, arXiv 1607.06450), forward and backward.
//!
//!   x̂ = (x − mean)·rstd,   rstd = 1/√(var + eps),   y = gamma·x̂ + beta
//!
//! with the biased variance, taken around the mean in a second pass so that it cannot cancel. With
//! g = gamma·dy and means over the row:
//!
//!   dx = rstd·(g − mean(g) − x̂·mean(g·x̂)),   dgamma += Σ dy·x̂,   dbeta += Σ dy
//!
//! A row stays in the first-level cache between its passes.

use super::map::Unary;
use crate::Kernels;
use crate::simd::{LANES, Simd};

/// What the backward needs of each row: `mean` and `rstd`, each `[rows]`.
#[derive(Debug)]
pub struct LayerNormSaved<'a> {
    /// The mean of each row.
    pub mean: &'a mut [f32],
    /// 1/√(variance + eps) of each row.
    pub rstd: &'a mut [f32],
}

/// What the backward gives.
#[derive(Debug)]
pub struct LayerNormGradients<'a> {
    /// Overwritten. `[rows, hidden]`
    pub dx: &'a mut [f32],
    /// Added to. `[hidden]`
    pub dgamma: &'a mut [f32],
    /// Added to. `[hidden]`
    pub dbeta: &'a mut [f32],
}

impl Kernels {
    /// Normalises each row of `x`: `[rows, hidden]` into `y`, and saves what the backward needs, if there will
    /// be one. `gamma` and `beta`: `[hidden]`. A NaN or infinity makes its whole row NaN.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn layer_norm_forward(
        self,
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        eps: f32,
        y: &mut [f32],
        saved: Option<LayerNormSaved<'_>>,
    ) {
        let hidden = gamma.len();
        assert!(beta.len() == hidden && y.len() == x.len());
        assert!(if hidden == 0 { x.is_empty() } else { x.len().is_multiple_of(hidden) });
        if let Some(saved) = &saved {
            assert!(saved.mean.len() == saved.rstd.len() && x.len() == saved.mean.len() * hidden);
        }
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.layer_norm_forward)(x, gamma, beta, eps, y, saved) }
    }

    /// The gradients of [`Kernels::layer_norm_forward`], from its input and what it saved.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    #[cfg(feature = "train")]
    pub fn layer_norm_backward(
        self,
        dy: &[f32],
        x: &[f32],
        gamma: &[f32],
        mean: &[f32],
        rstd: &[f32],
        into: &mut LayerNormGradients<'_>,
    ) {
        assert!(mean.len() == rstd.len() && x.len() == mean.len() * gamma.len());
        assert!(dy.len() == x.len() && into.dx.len() == x.len());
        assert!(into.dgamma.len() == gamma.len() && into.dbeta.len() == gamma.len());
        // SAFETY: `Kernels` exists only for instructions that this CPU has.
        unsafe { (self.0.rows.layer_norm_backward)(dy, x, gamma, mean, rstd, into) }
    }
}

/// Vectors that are summed side by side, to hide the latency of an addition.
const CHAINS: usize = 4;

/// Σ f(x) over a row. `fill` stands for the missing lanes of the last vector; f(fill) must be 0.
#[inline(always)]
fn sum_row<S: Simd>(s: S, x: &[f32], fill: f32, f: impl Unary<S>) -> f32 {
    let (x, rest) = x.as_chunks::<LANES>();
    let (groups, singles) = x.as_chunks::<CHAINS>();
    let mut sums = [s.zero(); CHAINS];
    for group in groups {
        for (sum, x) in sums.iter_mut().zip(group) {
            *sum = s.add(*sum, f.apply(s, s.load(x)));
        }
    }
    for (sum, x) in sums.iter_mut().zip(singles) {
        *sum = s.add(*sum, f.apply(s, s.load(x)));
    }
    if !rest.is_empty() {
        sums[CHAINS - 1] = s.add(sums[CHAINS - 1], f.apply(s, s.load_partial(rest, fill)));
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[derive(Clone, Copy)]
struct Identity;

impl<S: Simd> Unary<S> for Identity {
    #[inline(always)]
    fn apply(self, _: S, x: S::Floats) -> S::Floats {
        x
    }
}

/// (x − centre)²
#[derive(Clone, Copy)]
struct SquaredDistance(f32);

impl<S: Simd> Unary<S> for SquaredDistance {
    #[inline(always)]
    fn apply(self, s: S, x: S::Floats) -> S::Floats {
        let distance = s.sub(x, s.splat(self.0));
        s.mul(distance, distance)
    }
}

#[inline(always)]
pub(super) fn layer_norm_forward<S: Simd>(
    s: S,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    y: &mut [f32],
    mut saved: Option<LayerNormSaved<'_>>,
) {
    let hidden = gamma.len();
    if hidden == 0 {
        return;
    }
    for (i, (x, y)) in x.chunks_exact(hidden).zip(y.chunks_exact_mut(hidden)).enumerate() {
        let mean = sum_row(s, x, 0.0, Identity) / hidden as f32;
        let variance = sum_row(s, x, mean, SquaredDistance(mean)) / hidden as f32;
        let rstd = 1.0 / (variance + eps).sqrt();
        normalize(s, x, gamma, beta, mean, rstd, y);
        if let Some(saved) = &mut saved {
            (saved.mean[i], saved.rstd[i]) = (mean, rstd);
        }
    }
}

#[inline(always)]
fn normalize<S: Simd>(s: S, x: &[f32], gamma: &[f32], beta: &[f32], mean: f32, rstd: f32, y: &mut [f32]) {
    let (mean, rstd) = (s.splat(mean), s.splat(rstd));
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (gamma, gamma_rest) = gamma.as_chunks::<LANES>();
    let (beta, beta_rest) = beta.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks_mut::<LANES>();
    for (((x, gamma), beta), y) in x.iter().zip(gamma).zip(beta).zip(y) {
        let x_hat = s.mul(s.sub(s.load(x), mean), rstd);
        s.store(s.fma(x_hat, s.load(gamma), s.load(beta)), y);
    }
    if !x_rest.is_empty() {
        let x_hat = s.mul(s.sub(s.load_partial(x_rest, 0.0), mean), rstd);
        let (gamma, beta) = (s.load_partial(gamma_rest, 0.0), s.load_partial(beta_rest, 0.0));
        s.store_partial(s.fma(x_hat, gamma, beta), y_rest);
    }
}

#[inline(always)]
pub(super) fn layer_norm_backward<S: Simd>(
    s: S,
    dy: &[f32],
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    rstd: &[f32],
    into: &mut LayerNormGradients<'_>,
) {
    let hidden = gamma.len();
    if hidden == 0 {
        return;
    }
    let inputs = dy.chunks_exact(hidden).zip(x.chunks_exact(hidden));
    let saved = mean.iter().zip(rstd);
    for (((dy, x), (&mean, &rstd)), dx) in inputs.zip(saved).zip(into.dx.chunks_exact_mut(hidden)) {
        let (sum, sum_x_hat) = gradient_sums(s, dy, x, gamma, mean, rstd);
        let row = BackwardRow {
            mean: s.splat(mean),
            rstd: s.splat(rstd),
            mean_g: s.splat(sum / hidden as f32),
            mean_g_x_hat: s.splat(sum_x_hat / hidden as f32),
        };
        gradients(s, row, [dy, x, gamma], [dx, into.dgamma, into.dbeta]);
    }
}

/// (Σ g, Σ g·x̂) of one row.
#[inline(always)]
fn gradient_sums<S: Simd>(s: S, dy: &[f32], x: &[f32], gamma: &[f32], mean: f32, rstd: f32) -> (f32, f32) {
    let (dy, dy_rest) = dy.as_chunks::<LANES>();
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (gamma, gamma_rest) = gamma.as_chunks::<LANES>();
    let (mean, rstd) = (s.splat(mean), s.splat(rstd));
    let (mut sums, mut sums_x_hat) = ([s.zero(); 2], [s.zero(); 2]);
    for (i, ((dy, x), gamma)) in dy.iter().zip(x).zip(gamma).enumerate() {
        let g = s.mul(s.load(dy), s.load(gamma));
        let x_hat = s.mul(s.sub(s.load(x), mean), rstd);
        sums[i % 2] = s.add(sums[i % 2], g);
        sums_x_hat[i % 2] = s.fma(g, x_hat, sums_x_hat[i % 2]);
    }
    if !dy_rest.is_empty() {
        // Missing lanes have dy = gamma = 0, so add nothing.
        let g = s.mul(s.load_partial(dy_rest, 0.0), s.load_partial(gamma_rest, 0.0));
        let x_hat = s.mul(s.sub(s.load_partial(x_rest, 0.0), mean), rstd);
        sums[0] = s.add(sums[0], g);
        sums_x_hat[0] = s.fma(g, x_hat, sums_x_hat[0]);
    }
    (s.sum(s.add(sums[0], sums[1])), s.sum(s.add(sums_x_hat[0], sums_x_hat[1])))
}

/// What all lanes of one row share.
#[derive(Clone, Copy)]
struct BackwardRow<S: Simd> {
    mean: S::Floats,
    rstd: S::Floats,
    mean_g: S::Floats,
    mean_g_x_hat: S::Floats,
}

impl<S: Simd> BackwardRow<S> {
    /// From (dy, x, gamma, dgamma, dbeta) to (dx, dgamma, dbeta).
    #[inline(always)]
    fn step(self, s: S, [dy, x, gamma, dgamma, dbeta]: [S::Floats; 5]) -> [S::Floats; 3] {
        let x_hat = s.mul(s.sub(x, self.mean), self.rstd);
        let centred = s.sub(s.mul(dy, gamma), s.fma(x_hat, self.mean_g_x_hat, self.mean_g));
        [s.mul(self.rstd, centred), s.fma(dy, x_hat, dgamma), s.add(dbeta, dy)]
    }
}

#[inline(always)]
fn gradients<S: Simd>(s: S, row: BackwardRow<S>, inputs: [&[f32]; 3], outputs: [&mut [f32]; 3]) {
    let [(dy, dy_rest), (x, x_rest), (gamma, gamma_rest)] = inputs.map(|slice| slice.as_chunks::<LANES>());
    let [(dx, dx_rest), (dgamma, dgamma_rest), (dbeta, dbeta_rest)] =
        outputs.map(|slice| slice.as_chunks_mut::<LANES>());
    let outputs = dx.iter_mut().zip(dgamma).zip(dbeta);
    for (((dy, x), gamma), ((dx, dgamma), dbeta)) in dy.iter().zip(x).zip(gamma).zip(outputs) {
        let lanes = [s.load(dy), s.load(x), s.load(gamma), s.load(dgamma), s.load(dbeta)];
        let [a, b, c] = row.step(s, lanes);
        s.store(a, dx);
        s.store(b, dgamma);
        s.store(c, dbeta);
    }
    if !dy_rest.is_empty() {
        let lanes = [dy_rest, x_rest, gamma_rest, dgamma_rest, dbeta_rest];
        let mut loaded = [s.zero(); 5];
        for (to, from) in loaded.iter_mut().zip(lanes) {
            *to = s.load_partial(from, 0.0);
        }
        let [a, b, c] = row.step(s, loaded);
        s.store_partial(a, dx_rest);
        s.store_partial(b, dgamma_rest);
        s.store_partial(c, dbeta_rest);
    }
}
