//! Dropout and AdamW.

use crate::harness::{EPS, Guarded, Random, SIZES, rows};
use limbeck_kernels::rows::{AdamW, AdamWStep, Dropout};

#[test]
fn dropout_is_a_function_of_key_and_index() {
    let n = 100_000;
    for kernels in rows() {
        let factors = |key: u64, first: u64, rate: f32, n: usize| {
            let mut x = Guarded::of(&vec![1.0; n]);
            kernels.dropout(x.inside(), Dropout { key, first, rate });
            x.checked()
        };
        for rate in [0.1f32, 0.5, 0.9] {
            let kept = 1.0 / (1.0 - rate);
            let a = factors(1, 0, rate, n);
            let b = factors(2, 0, rate, n);
            assert!(a.iter().all(|x| *x == 0.0 || *x == kept));
            let fraction = |hits: usize, of: usize, expected: f64, what: &str| {
                let deviation = (expected * (1.0 - expected) / of as f64).sqrt();
                let found = hits as f64 / of as f64;
                assert!((found - expected).abs() <= 5.0 * deviation, "{what}: {found} for {expected}");
            };
            let q = f64::from(rate);
            fraction(a.iter().filter(|x| **x == 0.0).count(), n, q, "dropped");
            let both = a.iter().zip(&b).filter(|(a, b)| **a == 0.0 && **b == 0.0).count();
            fraction(both, n, q * q, "dropped under two keys");
            for lag in [1, 2, 16, 64, 768] {
                let pairs = a.iter().zip(&a[lag..]).filter(|(a, b)| **a == 0.0 && **b == 0.0).count();
                fraction(pairs, n - lag, q * q, "dropped together");
            }
            let far = factors(1, 1 << 32, rate, n);
            let both = a.iter().zip(&far).filter(|(a, b)| **a == 0.0 && **b == 0.0).count();
            fraction(both, n, q * q, "dropped 2³² apart");
        }
        // Any piece of a stream is that piece, across the middle of the index too.
        for start in [0, 5, (1 << 32) - 50, u64::from(u32::MAX) - 15] {
            let whole = factors(9, start, 0.3, 200);
            for (skip, n) in [(0, 200), (1, 17), (33, 100), (199, 1), (7, 0)] {
                assert_eq!(factors(9, start + skip, 0.3, n), whole[skip as usize..][..n]);
            }
        }
        let mut x = Random::new(1).normals(50);
        let before = x.clone();
        kernels.dropout(&mut x, Dropout { key: 1, first: 0, rate: 0.0 });
        assert_eq!(x, before);
    }
}

#[test]
fn adamw_follows_pytorch_and_keeps_pruned_weights_at_0() {
    for kernels in rows() {
        for n in SIZES {
            let mut random = Random::new(n as u64);
            let mask: Vec<u8> = (0..n).map(|_| u8::from(random.unit() < 0.7)).collect();
            for mask in [None, Some(&mask[..])] {
                let start = random.normals(n);
                let (mut w, mut m, mut v) =
                    (Guarded::of(&start), Guarded::of(&vec![0.0; n]), Guarded::of(&vec![0.0; n]));
                let mut truth: Vec<[f64; 3]> = start.iter().map(|&w| [f64::from(w), 0.0, 0.0]).collect();
                for t in 1..=20 {
                    let mut g = random.normals(n);
                    if let Some(mask) = mask {
                        // A pruned weight must shrug off even this.
                        g.iter_mut()
                            .zip(mask)
                            .filter(|(_, kept)| **kept == 0)
                            .for_each(|(g, _)| *g = f32::NAN);
                    }
                    let step = AdamWStep {
                        learning_rate: 2e-3,
                        beta1: 0.9,
                        beta2: 0.999,
                        eps: 1e-8,
                        weight_decay: 0.01,
                        gradient_scale: 0.5,
                        step: t,
                    };
                    let tensors = AdamW { w: w.inside(), m: m.inside(), v: v.inside(), g: &g, mask };
                    kernels.adamw(tensors, &step);
                    for ([w, m, v], g) in truth.iter_mut().zip(&g) {
                        let g = 0.5 * f64::from(*g);
                        *w *= 1.0 - 2e-3 * 0.01;
                        *m = 0.9 * *m + 0.1 * g;
                        *v = 0.999 * *v + 0.001 * g * g;
                        let root = v.sqrt() / (1.0 - 0.999f64.powi(t as i32)).sqrt() + 1e-8;
                        *w -= 2e-3 * (*m / (1.0 - 0.9f64.powi(t as i32))) / root;
                    }
                }
                let (w, m, v) = (w.checked(), m.checked(), v.checked());
                for i in 0..n {
                    if mask.is_some_and(|mask| mask[i] == 0) {
                        assert!([w[i], m[i], v[i]].iter().all(|x| x.to_bits() == 0));
                        continue;
                    }
                    let [true_w, true_m, true_v] = truth[i];
                    // Four roundings a step, of values that m and v forget or that w's size bounds.
                    assert!((f64::from(m[i]) - true_m).abs() <= 40.0 * EPS);
                    assert!((f64::from(v[i]) - true_v).abs() <= 80.0 * EPS * true_v);
                    let bound = 20.0 * EPS * (2.0 * f64::from(start[i].abs()) + 0.1);
                    assert!((f64::from(w[i]) - true_w).abs() <= bound, "w[{i}]: {} for {true_w}", w[i]);
                }
            }
        }
    }
}
