//! Attention of one head, in f64.

use super::{Sum, softmax};

/// One head: `q` is [queries, d], `k` and `v` are [len, d], `keep` the dropout factors [queries, len].
#[derive(Clone)]
pub struct Head {
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub keep: Vec<f64>,
    pub len: usize,
    pub d: usize,
    pub scale: f64,
}

/// Everything that a forward and a backward give.
pub struct Gradients {
    pub dq: Vec<Sum>,
    pub dk: Vec<Sum>,
    pub dv: Vec<Sum>,
}

impl Head {
    pub fn queries(&self) -> usize {
        self.q.len() / self.d
    }

    fn score(&self, i: usize, j: usize) -> f64 {
        (0..self.d).map(|p| self.q[i * self.d + p] * self.k[j * self.d + p]).sum::<f64>() * self.scale
    }

    /// The largest sum of magnitudes behind any score: rounding moves scores by a few ε of it.
    pub fn score_magnitude(&self) -> f64 {
        let mut largest = 0.0f64;
        for q in self.q.chunks(self.d) {
            for k in self.k.chunks(self.d) {
                largest = largest.max(q.iter().zip(k).map(|(q, k)| (q * k).abs()).sum::<f64>() * self.scale);
            }
        }
        largest
    }

    /// [queries][len]
    pub fn probabilities(&self) -> Vec<Vec<f64>> {
        (0..self.queries())
            .map(|i| softmax(&(0..self.len).map(|j| self.score(i, j)).collect::<Vec<_>>()))
            .collect()
    }

    pub fn log_sum_exp(&self, i: usize) -> f64 {
        (0..self.len).map(|j| self.score(i, j).exp()).sum::<f64>().ln()
    }

    /// [queries, d]
    pub fn context(&self) -> Vec<Sum> {
        let mut context = vec![Sum::default(); self.q.len()];
        for (i, p) in self.probabilities().iter().enumerate() {
            for (j, p) in p.iter().enumerate() {
                for f in 0..self.d {
                    context[i * self.d + f].add(p * self.keep[i * self.len + j] * self.v[j * self.d + f]);
                }
            }
        }
        context
    }

    pub fn gradients(&self, dcontext: &[f64]) -> Gradients {
        let p = self.probabilities();
        let (d, len) = (self.d, self.len);
        let mut dq = vec![Sum::default(); self.q.len()];
        let mut dk = vec![Sum::default(); self.k.len()];
        let mut dv = vec![Sum::default(); self.v.len()];
        for i in 0..self.queries() {
            let dcontext = &dcontext[i * d..][..d];
            // The gradient of each probability, and its magnitude.
            let mut dp = vec![Sum::default(); len];
            for j in 0..len {
                let keep = self.keep[i * len + j];
                for f in 0..d {
                    dp[j].add(keep * dcontext[f] * self.v[j * d + f]);
                    dv[j * d + f].add(p[i][j] * keep * dcontext[f]);
                }
            }
            let mean: f64 = (0..len).map(|j| p[i][j] * dp[j].value).sum();
            let mean_magnitude: f64 = (0..len).map(|j| p[i][j] * dp[j].magnitude).sum();
            for j in 0..len {
                let ds = p[i][j] * (dp[j].value - mean) * self.scale;
                let ds_magnitude = p[i][j] * (dp[j].magnitude + mean_magnitude) * self.scale;
                for f in 0..d {
                    let (k, q) = (self.k[j * d + f], self.q[i * d + f]);
                    dq[i * d + f].value += ds * k;
                    dq[i * d + f].magnitude += ds_magnitude * k.abs();
                    dk[j * d + f].value += ds * q;
                    dk[j * d + f].magnitude += ds_magnitude * q.abs();
                }
            }
        }
        Gradients { dq, dk, dv }
    }
}
