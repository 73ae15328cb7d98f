//! Attention in f64, with its gradients and with how large what is added up is: what errors are measured by.

use limbeck::ops::dropout::DropoutSite;
use limbeck_kernels::Kernels;
use limbeck_kernels::rows::Dropout;

/// What is attended to.
#[derive(Clone, Debug)]
pub struct Texts {
    /// Tokens of each text.
    pub lengths: Vec<usize>,
    pub heads: usize,
    pub size: usize,
    /// Whether the first token alone asks.
    pub first: bool,
}

impl Texts {
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    pub fn queries(&self) -> usize {
        if self.first { self.lengths.len() } else { self.tokens() }
    }

    pub fn width(&self) -> usize {
        self.heads * self.size
    }
}

/// A sum, and the sum of the sizes of its terms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub value: f64,
    pub size: f64,
}

impl Sum {
    fn add(&mut self, value: f64, size: f64) {
        self.value += value;
        self.size += size;
    }
}

/// Everything that attention gives.
pub struct Attended {
    pub context: Vec<Sum>,
    pub sums: Vec<f64>,
    pub dq: Vec<Sum>,
    pub dk: Vec<Sum>,
    pub dv: Vec<Sum>,
    /// The largest sum of sizes in a score.
    pub score: f64,
}

/// The factors of the probabilities of one head of one text, by the CPU's hash.
fn factors(
    texts: &Texts,
    site: Option<(&DropoutSite, u64)>,
    head: usize,
    [queries, len]: [usize; 2],
) -> Vec<f64> {
    let mut factors = vec![1.0; queries * len];
    if let Some((site, sample)) = site {
        assert!(head < texts.heads);
        let first = (head * len * len) as u64;
        let dropout = Dropout { key: site.key(sample), first, rate: site.rate };
        Kernels::select().unwrap().dropout(&mut factors, dropout);
    }
    factors.into_iter().map(f64::from).collect()
}

/// Attention and the gradients of Σ context∘dcontext, from the formulas; `samples` key the dropout of each text.
pub fn attend(
    texts: &Texts,
    [q, k, v, dcontext]: [&[f64]; 4],
    dropout: Option<&DropoutSite>,
    samples: &[u64],
) -> Attended {
    let (rows, asked, width) = (texts.tokens(), texts.queries(), texts.width());
    let empty = |rows: usize| vec![Sum::default(); rows * width];
    let mut all = Attended {
        context: empty(asked),
        sums: vec![0.0; asked * texts.heads],
        dq: empty(asked),
        dk: empty(rows),
        dv: empty(rows),
        score: 0.0,
    };
    let mut first = 0;
    for (text, &len) in texts.lengths.iter().enumerate() {
        let (queries, row) = if texts.first { (1, text) } else { (len, first) };
        for head in 0..texts.heads {
            let z = factors(texts, dropout.map(|site| (site, samples[text])), head, [queries, len]);
            for i in 0..queries {
                let z = &z[i * len..(i + 1) * len];
                all.query(texts, [q, k, v, dcontext], z, head, row + i, first);
            }
        }
        first += len;
    }
    all
}

impl Attended {
    /// One query of one head: `row` is its own, `first` that of its text's first key.
    fn query(&mut self, texts: &Texts, given: [&[f64]; 4], z: &[f64], head: usize, row: usize, first: usize) {
        let (size, [q, k, v, dcontext]) = (texts.size, given);
        let at = |row: usize| row * texts.width() + head * size;
        let (own, scale) = (at(row), 1.0 / (size as f64).sqrt());
        let dot = |a: &[f64], b: &[f64]| {
            let mut sum = Sum::default();
            a.iter().zip(b).for_each(|(a, b)| sum.add(a * b, (a * b).abs()));
            sum
        };
        let part = |x: &'_ [f64], at: usize| -> Vec<f64> { x[at..at + size].to_vec() };
        let (q, dcontext) = (part(q, own), part(dcontext, own));
        let scores: Vec<Sum> =
            (0..z.len()).map(|key| dot(&q, &k[at(first + key)..at(first + key) + size])).collect();
        self.score = scores.iter().fold(self.score, |most, score| most.max(score.size * scale));
        let largest = scores.iter().fold(f64::NEG_INFINITY, |most, score| most.max(score.value * scale));
        let powers: Vec<f64> = scores.iter().map(|score| (score.value * scale - largest).exp()).collect();
        let total: f64 = powers.iter().sum();
        self.sums[row * texts.heads + head] = largest + total.ln();
        for (key, power) in powers.iter().enumerate() {
            let (p, value) = (power / total * z[key], at(first + key));
            for c in 0..size {
                self.context[own + c].add(p * v[value + c], (p * v[value + c]).abs());
                self.dv[value + c].add(p * dcontext[c], (p * dcontext[c]).abs());
            }
        }
        let context: Vec<f64> = self.context[own..own + size].iter().map(|sum| sum.value).collect();
        let delta = dot(&context, &dcontext);
        for (key, power) in powers.iter().enumerate() {
            let (p, value) = (power / total, at(first + key));
            let dp = dot(&dcontext, &v[value..value + size]);
            let ds = scale * p * (dp.value * z[key] - delta.value);
            let sizes = scale * p * (dp.size * z[key] + delta.size);
            for c in 0..size {
                self.dq[own + c].add(ds * k[value + c], sizes * k[value + c].abs());
                self.dk[value + c].add(ds * q[c], sizes * q[c].abs());
            }
        }
    }
}
