//! Every row of the table gives the same bits.

use crate::harness::{Random, SIZES, rows};
use crate::map;
use crate::norm::layer_norm;
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::QuantizedRows;
use limbeck_kernels::rows::{AdamW, AdamWStep, Dropout, LayerNormGradients};

/// The bits of every float kernel's results for one size.
fn results(kernels: Kernels, n: usize) -> Vec<(&'static str, Vec<u32>)> {
    let mut random = Random::new(n as u64 + 77);
    let rows = 3;
    let [mut x, dy] = [(); 2].map(|()| random.normals(rows * n));
    // Some of every size, denormals among them.
    x.iter_mut().step_by(7).for_each(|x| *x *= 1e-39);
    x.iter_mut().step_by(5).for_each(|x| *x *= 20.0);
    let [gamma, beta] = [(); 2].map(|()| random.normals(n));
    let mut out: Vec<(&'static str, Vec<u32>)> = Vec::new();
    let mut keep = |name, values: &[f32]| out.push((name, values.iter().map(|x| x.to_bits()).collect()));

    keep("exp", &map(&x, |x, y| kernels.exp(x, y)));
    keep("gelu_forward", &map(&x, |x, y| kernels.gelu_forward(x, y)));
    keep("gelu_backward", &map(&x, |x, y| kernels.gelu_backward(x, &dy, y)));
    keep("relu_forward", &map(&x, |x, y| kernels.relu_forward(x, y)));
    keep("relu_backward", &map(&x, |x, y| kernels.relu_backward(x, &dy, y)));
    keep("tanh_forward", &map(&x, |x, y| kernels.tanh_forward(x, y)));
    keep("tanh_backward", &map(&x, |x, y| kernels.tanh_backward(x, &dy, y)));
    let mut y = x.clone();
    kernels.softmax_row(&mut y);
    keep("softmax_row", &y);
    let [y, mean, rstd] = layer_norm(kernels, &x, &gamma, &beta, rows);
    for (name, values) in [("layer_norm_forward", &y), ("mean", &mean), ("rstd", &rstd)] {
        keep(name, values);
    }
    let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], gamma.clone(), beta.clone());
    let mut into = LayerNormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta };
    kernels.layer_norm_backward(&dy, &x, &gamma, &mean, &rstd, &mut into);
    for (name, values) in [("layer_norm dx", &dx), ("dgamma", &dgamma), ("dbeta", &dbeta)] {
        keep(name, values);
    }
    let mut y = dy.clone();
    kernels.add(&x, &mut y);
    keep("add", &y);
    let mut z = vec![0.0; x.len()];
    kernels.sum(&x, &dy, &mut z);
    keep("sum", &z);
    kernels.scale(&mut y, 0.7);
    keep("scale", &y);
    kernels.dropout(&mut y, Dropout { key: 3, first: u64::from(u32::MAX) - 20, rate: 0.3 });
    keep("dropout", &y);
    let mut db = beta.clone();
    kernels.column_sums(&dy.repeat(5), &mut db);
    keep("column_sums", &db);
    let squares = kernels.sum_squares(&x).to_bits();
    keep("sum_squares", &[f32::from_bits(squares as u32), f32::from_bits((squares >> 32) as u32)]);
    let mut quantized = QuantizedRows::default();
    quantized.reset(rows, n);
    kernels.quantize_rows(&x, &mut quantized, 0);
    let bytes: Vec<u8> = (0..rows).flat_map(|row| quantized.bytes(row)).collect();
    let scales = quantized.scale().iter().copied();
    keep("quantize_rows", &bytes.iter().map(|b| f32::from(*b)).chain(scales).collect::<Vec<_>>());
    let q: Vec<i8> = bytes.iter().map(|b| b.wrapping_sub(128).cast_signed()).take(n).collect();
    let mut y = gamma.clone();
    kernels.dequantize_row(&q, 0.013, &mut y, true);
    keep("dequantize_row", &y);
    let (mut w, mut m, mut v) = (x.clone(), dy.clone(), x.iter().map(|x| x * x).collect::<Vec<_>>());
    let step = AdamWStep {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        gradient_scale: 0.3,
        step: 1,
    };
    kernels.adamw(AdamW { w: &mut w, m: &mut m, v: &mut v, g: &dy, mask: None }, &step);
    for (name, values) in [("adamw w", &w), ("adamw m", &m), ("adamw v", &v)] {
        keep(name, values);
    }
    out
}

#[test]
fn every_row_gives_the_same_bits() {
    let rows = rows();
    for n in SIZES {
        let reference = results(rows[0], n);
        for &kernels in &rows[1..] {
            for ((name, found), (_, reference)) in results(kernels, n).iter().zip(&reference) {
                assert!(found == reference, "{name}/{n}: {} differs from {}", kernels.isa(), rows[0].isa());
            }
        }
    }
}
