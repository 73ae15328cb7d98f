//! Attention on every row of the table, against the f64 oracle; the oracle against finite differences.

mod harness;
#[allow(dead_code, reason = "shared with the other row tests, each of which uses a part")]
mod oracle;

use harness::{EPS, Guarded, Random, assert_slope, doubles, rows};
use limbeck_kernels::Kernels;
use limbeck_kernels::rows::{AttentionArgs, AttentionDropout, AttentionGradients, Dropout};
use oracle::attention::Head;
use oracle::{Sum, assert_close, values};

/// A text with all its inputs, rows of q, k and v interleaved as one fused projection leaves them.
struct Case {
    len: usize,
    queries: usize,
    heads: usize,
    head_size: usize,
    dropout: Option<AttentionDropout>,
    qkv: Vec<f32>,
    dcontext: Vec<f32>,
}

impl Case {
    fn new(len: usize, queries: usize, heads: usize, head_size: usize, rate: Option<f32>) -> Case {
        let mut random = Random::new((len * 1000 + queries * 100 + heads * 10 + head_size) as u64);
        let width = heads * head_size;
        let mut qkv = random.normals(len * 3 * width);
        qkv.iter_mut().for_each(|x| *x *= 1.5);
        Case {
            len,
            queries,
            heads,
            head_size,
            dropout: rate.map(|rate| AttentionDropout { key: random.next(), rate }),
            qkv,
            dcontext: random.normals(queries * width),
        }
    }

    fn width(&self) -> usize {
        self.heads * self.head_size
    }

    fn args(&self) -> AttentionArgs<'_> {
        let (width, stride) = (self.width(), 3 * self.width());
        AttentionArgs {
            q: &self.qkv,
            q_stride: stride,
            k: &self.qkv[width.min(self.qkv.len())..],
            k_stride: stride,
            v: &self.qkv[(2 * width).min(self.qkv.len())..],
            v_stride: stride,
            len: self.len,
            queries: self.queries,
            heads: self.heads,
            head_size: self.head_size,
            scale: 1.0 / (self.head_size as f32).sqrt(),
            dropout: self.dropout,
        }
    }

    /// The oracle's view of one head; the dropout factors come from the dropout kernel, by index.
    fn head(&self, kernels: Kernels, head: usize) -> Head {
        let part = |which: usize, rows: usize| -> Vec<f64> {
            (0..rows)
                .flat_map(|i| {
                    let start = i * 3 * self.width() + which * self.width() + head * self.head_size;
                    doubles(&self.qkv[start..][..self.head_size])
                })
                .collect()
        };
        let mut keep = vec![1.0; self.queries * self.len];
        if let Some(AttentionDropout { key, rate }) = self.dropout {
            let first = (head * self.len * self.len) as u64;
            kernels.dropout(&mut keep, Dropout { key, first, rate });
        }
        Head {
            q: part(0, self.queries),
            k: part(1, self.len),
            v: part(2, self.len),
            keep: doubles(&keep),
            len: self.len,
            d: self.head_size,
            scale: f64::from(self.args().scale),
        }
    }

    /// (context, lse)
    fn forward(&self, kernels: Kernels) -> (Vec<f32>, Vec<f32>) {
        let mut context = Guarded::new(self.queries * self.width());
        let mut lse = Guarded::new(self.queries * self.heads);
        kernels.attention_forward(&self.args(), context.inside(), self.width(), lse.inside());
        (context.checked(), lse.checked())
    }

    /// [dq, dk, dv]
    fn backward(&self, kernels: Kernels, context: &[f32], lse: &[f32]) -> [Vec<f32>; 3] {
        let width = self.width();
        let [mut dq, mut dk, mut dv] =
            [self.queries, self.len, self.len].map(|rows| Guarded::new(rows * width));
        kernels.attention_backward(
            &self.args(),
            context,
            &self.dcontext,
            width,
            lse,
            &mut AttentionGradients {
                dq: dq.inside(),
                dq_stride: width,
                dk: dk.inside(),
                dk_stride: width,
                dv: dv.inside(),
                dv_stride: width,
            },
        );
        [dq.checked(), dk.checked(), dv.checked()]
    }

    /// Of a `[rows, width]` matrix, the columns of one head.
    fn columns<T: Copy>(&self, from: &[T], head: usize) -> Vec<T> {
        let rows = from.chunks(self.width());
        rows.flat_map(|row| row[head * self.head_size..][..self.head_size].iter().copied()).collect()
    }

    /// Roundings, in units of ε of the magnitudes: a score is moved by (d + 2)·ε of its own magnitude, which
    /// moves its exponential by as large a fraction; then come the exponential itself (and the size of its
    /// argument), the sums over keys and queries, and the last few products.
    fn factor(&self, head: &Head) -> f64 {
        let score = head.score_magnitude();
        2.0 * ((self.head_size as f64 + 4.0) * score + score) + (self.len + self.head_size) as f64 + 16.0
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for len in [1, 2, 5, 6, 7, 15, 16, 17, 31, 33, 48, 49, 64, 65, 97, 128, 131] {
        cases.push(Case::new(len, len, 2, 32, None));
        cases.push(Case::new(len, 1, 3, 32, Some(0.1)));
        cases.push(Case::new(len, len, 1, 64, Some(0.3)));
    }
    for head_size in [1, 7, 16, 20, 48, 80, 100] {
        cases.push(Case::new(19, 19, 2, head_size, Some(0.1)));
        cases.push(Case::new(50, 13, 1, head_size, None));
    }
    cases.push(Case::new(512, 512, 1, 64, Some(0.1)));
    cases
}

#[test]
fn forward_and_backward_match_the_oracle() {
    let rows = rows();
    for case in cases() {
        let results: Vec<_> = rows
            .iter()
            .map(|&kernels| {
                let (context, lse) = case.forward(kernels);
                let gradients = case.backward(kernels, &context, &lse);
                (kernels.isa(), context, lse, gradients)
            })
            .collect();
        for h in 0..case.heads {
            let head = case.head(rows[0], h);
            let factor = case.factor(&head);
            let score_error =
                EPS * ((case.head_size as f64 + 4.0) * head.score_magnitude() + case.len as f64 + 8.0);
            let context_truth = head.context();
            let truth = head.gradients(&doubles(&case.columns(&case.dcontext, h)));
            for (isa, context, lse, [dq, dk, dv]) in &results {
                let what = format!("{isa} len {} queries {} d {}", case.len, case.queries, case.head_size);
                assert_close(&format!("{what} context"), &case.columns(context, h), &context_truth, factor);
                for i in 0..case.queries {
                    let found = f64::from(lse[i * case.heads + h]);
                    let truth = head.log_sum_exp(i);
                    assert!((found - truth).abs() <= score_error, "{what}: lse {found} for {truth}");
                }
                // P is computed again from lse, whose own error doubles that of the scores.
                let factor = 2.0 * factor;
                assert_close(&format!("{what} dq"), &case.columns(dq, h), &truth.dq, factor);
                assert_close(&format!("{what} dk"), &case.columns(dk, h), &truth.dk, factor);
                assert_close(&format!("{what} dv"), &case.columns(dv, h), &truth.dv, factor);
            }
        }
    }
}

#[test]
fn probabilities_match_the_oracle_and_sum_to_1() {
    let rows = rows();
    for case in cases().into_iter().filter(|case| case.len < 200) {
        for h in 0..case.heads {
            let head = case.head(rows[0], h);
            let truth: Vec<Sum> =
                head.probabilities().concat().iter().map(|&p| Sum { value: p, magnitude: p }).collect();
            for &kernels in &rows {
                let mut out = Guarded::new(case.queries * case.len);
                kernels.attention_probabilities(&case.args(), h, out.inside());
                let out = out.checked();
                assert_close("probabilities", &out, &truth, case.factor(&head));
                for row in out.chunks(case.len) {
                    let sum: f64 = doubles(row).iter().sum();
                    assert!((sum - 1.0).abs() <= EPS * (case.len as f64 + 4.0), "sum {sum}");
                }
            }
        }
    }
}

#[test]
fn oracle_gradients_are_slopes() {
    let kernels = Kernels::available().last().expect("the scalar row");
    for rate in [None, Some(0.25)] {
        let case = Case::new(5, 3, 1, 4, rate);
        let head = case.head(kernels, 0);
        let dcontext = doubles(&case.dcontext);
        let loss =
            |head: &Head| -> f64 { values(&head.context()).iter().zip(&dcontext).map(|(c, d)| c * d).sum() };
        let gradients = head.gradients(&dcontext);
        assert_slope("dq", &head.q, &values(&gradients.dq), |q| {
            loss(&Head { q: q.to_vec(), ..head.clone() })
        });
        assert_slope("dk", &head.k, &values(&gradients.dk), |k| {
            loss(&Head { k: k.to_vec(), ..head.clone() })
        });
        assert_slope("dv", &head.v, &values(&gradients.dv), |v| {
            loss(&Head { v: v.to_vec(), ..head.clone() })
        });
    }
}

#[test]
fn every_row_gives_the_same_bits() {
    let bits = |x: &[f32]| -> Vec<u32> { x.iter().map(|x| x.to_bits()).collect() };
    for case in cases() {
        let results: Vec<_> = rows()
            .into_iter()
            .map(|kernels| {
                let (context, lse) = case.forward(kernels);
                let gradients = case.backward(kernels, &context, &lse);
                let mut probabilities = vec![0.0; case.queries * case.len];
                kernels.attention_probabilities(&case.args(), 0, &mut probabilities);
                (bits(&context), bits(&lse), gradients.map(|x| bits(&x)), bits(&probabilities))
            })
            .collect();
        for other in &results[1..] {
            assert!(*other == results[0], "len {} queries {} d {}", case.len, case.queries, case.head_size);
        }
    }
}

#[test]
fn dropout_drops_the_same_in_both_directions() {
    // Values of 1 make a context the sum of kept factors times probabilities, and dv the column sums of
    // the same: their totals must agree.
    for kernels in rows() {
        let mut case = Case::new(40, 40, 1, 16, Some(0.5));
        for row in case.qkv.chunks_mut(48) {
            row[32..].fill(1.0);
        }
        case.dcontext.fill(1.0);
        let (context, lse) = case.forward(kernels);
        let [_, _, dv] = case.backward(kernels, &context, &lse);
        let (context, dv): (f64, f64) = (doubles(&context).iter().sum(), doubles(&dv).iter().sum());
        assert!((context - dv).abs() <= 1e-3, "{context} and {dv}");
        let without = (40 * 16) as f64;
        assert!((context - without).abs() > 1.0, "nothing was dropped");
    }
}

#[test]
fn nothing_is_read_or_written_where_there_is_nothing() {
    for kernels in rows() {
        for case in [Case::new(5, 5, 0, 64, None), Case::new(0, 0, 2, 8, None), Case::new(3, 0, 2, 8, None)] {
            let (context, lse) = case.forward(kernels);
            let [dq, dk, dv] = case.backward(kernels, &context, &lse);
            assert!(context.is_empty() && lse.is_empty() && dq.is_empty());
            // Without queries nothing depends on keys and values.
            assert!(dk.iter().chain(&dv).all(|x| *x == 0.0));
        }
        // An empty lse is allowed, and the context does not change.
        let case = Case::new(17, 17, 2, 32, None);
        let mut context = vec![f32::NAN; 17 * 64];
        kernels.attention_forward(&case.args(), &mut context, 64, &mut []);
        assert_eq!(context, case.forward(kernels).0);
    }
}

#[test]
fn strided_outputs_leave_the_gaps_alone() {
    for kernels in rows() {
        let case = Case::new(21, 21, 2, 20, Some(0.1));
        let (dense, lse) = case.forward(kernels);
        let [dq, dk, dv] = case.backward(kernels, &dense, &lse);
        let (width, stride) = (40, 53);
        let spread = |dense: &[f32]| -> Vec<f32> {
            let mut out = vec![7.0; 20 * stride + width];
            dense
                .chunks(width)
                .zip(out.chunks_mut(stride))
                .for_each(|(from, to)| to[..width].copy_from_slice(from));
            out
        };
        let mut context = vec![7.0; 20 * stride + width];
        let mut again = vec![0.0; lse.len()];
        kernels.attention_forward(&case.args(), &mut context, stride, &mut again);
        assert_eq!(context, spread(&dense));
        let mut found = [(); 3].map(|()| vec![7.0; 20 * stride + width]);
        let [a, b, c] = &mut found;
        let mut into = AttentionGradients {
            dq: a,
            dq_stride: stride,
            dk: b,
            dk_stride: stride,
            dv: c,
            dv_stride: stride,
        };
        let dcontext = spread(&case.dcontext);
        kernels.attention_backward(&case.args(), &context, &dcontext, stride, &lse, &mut into);
        assert_eq!(found, [spread(&dq), spread(&dk), spread(&dv)]);
    }
}

#[test]
fn nan_and_large_scores() {
    for kernels in rows() {
        let mut case = Case::new(20, 20, 1, 32, None);
        case.qkv[3 * 96 + 5] = f32::NAN;
        let (context, _) = case.forward(kernels);
        for (i, row) in context.chunks(32).enumerate() {
            assert!(row.iter().all(|x| x.is_nan() == (i == 3)), "row {i}");
        }
        // Scores of thousands: the exponential of any of them alone would overflow.
        let mut case = Case::new(20, 20, 1, 32, None);
        case.qkv.iter_mut().for_each(|x| *x *= 40.0);
        let (context, lse) = case.forward(kernels);
        assert!(context.iter().chain(&lse).all(|x| x.is_finite()));
        assert!(lse.iter().any(|x| *x > 1000.0));
    }
}
