//! Kernels that mostly move memory: sums, scalings, embedding rows, quantization.

use crate::harness::{EPS, Guarded, Random, SIZES, rows};
use crate::oracle::{Sum, assert_close};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::QuantizedRows;

#[test]
fn sums_and_scalings() {
    for kernels in rows() {
        for n in SIZES {
            let mut random = Random::new(n as u64);
            let (x, y) = (random.normals(n), random.normals(n));
            let mut out = Guarded::of(&y);
            kernels.add(&x, out.inside());
            let truth: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            assert_eq!(out.checked(), truth);
            let mut out = Guarded::new(n);
            kernels.sum(&x, &y, out.inside());
            assert_eq!(out.checked(), truth);
            let mut out = Guarded::of(&x);
            kernels.scale(out.inside(), 0.3);
            assert_eq!(out.checked(), x.iter().map(|x| x * 0.3).collect::<Vec<_>>());

            let truth: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let error = (kernels.sum_squares(&x) - truth).abs();
            assert!(error <= truth * f64::EPSILON * (n as f64 + 8.0));

            for rows in [0, 1, 7, 8, 9, 20] {
                let dy = random.normals(rows * n);
                let start = random.normals(n);
                let mut db = Guarded::of(&start);
                kernels.column_sums(&dy, db.inside());
                let truth: Vec<Sum> = (0..n)
                    .map(|j| {
                        let mut sum = Sum::default();
                        sum.add(f64::from(start[j]));
                        (0..rows).for_each(|i| sum.add(f64::from(dy[i * n + j])));
                        sum
                    })
                    .collect();
                assert_close("column sums", &db.checked(), &truth, rows as f64 + 1.0);
            }
        }
        // Squares that overflow or vanish in f32.
        assert_eq!(kernels.sum_squares(&[1e30; 20]), 20.0 * f64::from(1e30f32).powi(2));
        assert_eq!(kernels.sum_squares(&[1e-30; 3]), 3.0 * f64::from(1e-30f32).powi(2));
        assert!(kernels.sum_squares(&[1.0, f32::NAN]).is_nan());
    }
}

#[test]
fn embedding_rows() {
    for kernels in rows() {
        for hidden in SIZES.into_iter().filter(|h| *h > 0) {
            let mut random = Random::new(hidden as u64);
            let table = random.normals(7 * hidden);
            let ids = [6, 0, 3, 3];
            let mut out = Guarded::new(4 * hidden);
            kernels.gather_rows(&table, &ids, out.inside(), false);
            let out = out.checked();
            let mut twice = Guarded::of(&out);
            kernels.gather_rows(&table, &ids, twice.inside(), true);
            assert_eq!(twice.checked(), out.iter().map(|x| x + x).collect::<Vec<_>>());
            let dy = random.normals(4 * hidden);
            let mut dtable = Guarded::of(&table);
            kernels.scatter_add_rows(&dy, &ids, 0, dtable.inside());
            let dtable = dtable.checked();
            let mut parts = table.clone();
            let (low, high) = parts.split_at_mut(3 * hidden);
            kernels.scatter_add_rows(&dy, &ids, 0, low);
            kernels.scatter_add_rows(&dy, &ids, 3, high);
            assert_eq!(parts, dtable);
            let mut truth = table.clone();
            for (row, &id) in ids.iter().enumerate() {
                for j in 0..hidden {
                    assert_eq!(out[row * hidden + j], table[id as usize * hidden + j]);
                    truth[id as usize * hidden + j] += dy[row * hidden + j];
                }
            }
            assert_eq!(dtable, truth);

            let q: Vec<i8> = (0..hidden).map(|_| (random.next() >> 56) as u8 as i8).collect();
            for accumulate in [false, true] {
                let start = random.normals(hidden);
                let mut out = Guarded::of(&start);
                kernels.dequantize_row(&q, 0.017, out.inside(), accumulate);
                let truth: Vec<f32> = (0..hidden)
                    .map(|i| f32::from(q[i]).mul_add(0.017, if accumulate { start[i] } else { 0.0 }))
                    .collect();
                assert_eq!(out.checked(), truth);
            }
        }
        kernels.gather_rows(&[1.0, 2.0], &[], &mut [], false);
        kernels.scatter_add_rows(&[], &[], 0, &mut [1.0, 2.0]);
    }
}

#[test]
#[should_panic]
fn an_id_beyond_the_table_panics() {
    Kernels::available().next().expect("a row").gather_rows(&[0.0; 6], &[2], &mut [0.0; 3], false);
}

#[test]
fn quantized_rows_are_within_half_a_step() {
    for kernels in rows() {
        for k in SIZES {
            let x = Random::new(k as u64).normals(3 * k);
            // The middle three of five rows; the others stay as they are.
            let mut quantized = QuantizedRows::from_bytes(&vec![7; 5 * k], k, &[7.0; 5]);
            kernels.quantize_rows(&x, &mut quantized, 1);
            let scales = quantized.scale()[1..4].to_vec();
            for row in [0, 4] {
                assert!(quantized.bytes(row).iter().all(|b| *b == 7), "wrote outside");
                assert!(k == 0 || quantized.scale()[row] == 7.0);
            }
            for (r, scale) in scales.iter().enumerate() {
                let (q, x) = (quantized.bytes(r + 1), &x[r * k..][..k]);
                let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                assert_eq!(*scale, if k == 0 { 1.0 } else { max / 127.0 });
                assert_eq!(q.len(), k);
                for (&q, &x) in q.iter().zip(x) {
                    let exact = f64::from(x) * f64::from(127.0 / max);
                    assert_eq!(i32::from(q) - 128, exact.round_ties_even() as i32);
                    let step = f64::from(*scale);
                    let error = (f64::from(i32::from(q) - 128) * step - f64::from(x)).abs();
                    assert!(error <= step * (0.5 + 127.0 * 3.0 * EPS), "{x} became {q}·{scale}");
                }
            }
        }
        // (row, scale, every byte or only the first)
        let quantize = |x: &[f32]| {
            let mut quantized = QuantizedRows::default();
            quantized.reset(1, x.len());
            kernels.quantize_rows(x, &mut quantized, 0);
            (quantized.bytes(0), quantized.scale()[0])
        };
        for zeros in [[0.0f32; 21], [-0.0; 21], [1e-40; 21]] {
            let (bytes, scale) = quantize(&zeros);
            assert!(scale == 1.0 && bytes.iter().all(|b| *b == 128));
        }
        for (at, poison) in [(0, f32::NAN), (20, f32::NAN), (3, f32::INFINITY), (17, f32::NEG_INFINITY)] {
            let mut x = [1.0; 21];
            x[at] = poison;
            let (bytes, scale) = quantize(&x);
            assert!(scale.is_nan() && bytes.iter().all(|b| *b == 128));
        }
        assert_eq!(quantize(&[f32::MAX, f32::MIN, 0.0]).0, [255, 1, 128]);
        // Ties go to the even integer.
        assert_eq!(
            quantize(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5]).0,
            [255, 128, 130, 130, 128, 126, 126, 132]
        );
    }
}
