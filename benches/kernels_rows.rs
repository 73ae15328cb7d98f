//! The row kernels, on every row of the table that this CPU can run.
//!
//! Ids are `<kernel>_<isa>/<shape>`. Throughput is in bytes read and written, or, for attention, in
//! multiply-adds counted twice (criterion prints it as elements: Gelem/s is GFLOP/s). Every answer is
//! checked against the obvious f64 formula before it is timed.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::QuantizedRows;
use limbeck_kernels::random::SplitMix64;
use limbeck_kernels::rows::{
    AdamW, AdamWStep, AttentionArgs, AttentionDropout, AttentionGradients, Dropout, LayerNormGradients,
    LayerNormSaved,
};

/// Uniform in [−2, 2).
fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64::new(seed);
    (0..len).map(|_| 2.0 * random.signed_unit()).collect()
}

fn check(what: &str, found: f32, truth: f64, bound: f64) {
    assert!((f64::from(found) - truth).abs() <= bound, "{what}: {found} for {truth}");
}

/// Times one kernel on every row of the table.
fn bench(c: &mut Criterion, name: &str, shape: &str, throughput: Throughput, mut run: impl FnMut(Kernels)) {
    let mut group = c.benchmark_group("rows");
    group.throughput(throughput);
    for kernels in Kernels::available() {
        group.bench_function(BenchmarkId::new(format!("{name}_{}", kernels.isa()), shape), |b| {
            b.iter(|| run(kernels))
        });
    }
    group.finish();
}

/// A DistilBERT layer's activations: 64 tokens, 3,072 wide.
fn elementwise(c: &mut Criterion) {
    let n = 64 * 3072;
    let (x, dy) = (random(n, 1), random(n, 2));
    let mut y = vec![0.0; n];
    let best = Kernels::available().next().expect("the scalar row");
    best.gelu_forward(&x, &mut y);
    for (&x, &y) in x.iter().zip(&y).step_by(97) {
        let cubic = (2.0 / std::f64::consts::PI).sqrt() * (f64::from(x) + 0.044715 * f64::from(x).powi(3));
        check("gelu against its tanh approximation", y, 0.5 * f64::from(x) * (1.0 + cubic.tanh()), 1e-3);
    }
    let bytes = |streams: usize| Throughput::Bytes((streams * n * 4) as u64);
    bench(c, "exp", "64x3072", bytes(2), |k| k.exp(&x, black_box(&mut y)));
    bench(c, "gelu_forward", "64x3072", bytes(2), |k| k.gelu_forward(&x, black_box(&mut y)));
    bench(c, "gelu_backward", "64x3072", bytes(3), |k| k.gelu_backward(&x, &dy, black_box(&mut y)));
    bench(c, "add", "64x3072", bytes(3), |k| k.add(&x, black_box(&mut y)));
    let mut ones = vec![1.0; n];
    bench(c, "dropout", "64x3072", bytes(2), |k| {
        k.dropout(black_box(&mut ones), Dropout { key: 7, first: 0, rate: 0.1 })
    });
    let mut db = vec![0.0; 3072];
    best.column_sums(&dy, &mut db);
    check("column sum", db[5], (0..64).map(|i| f64::from(dy[i * 3072 + 5])).sum(), 1e-4);
    bench(c, "column_sums", "64x3072", bytes(1), |k| k.column_sums(&dy, black_box(&mut db)));
    let truth: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
    assert!((best.sum_squares(&x) - truth).abs() <= 1e-9 * truth);
    bench(c, "sum_squares", "64x3072", bytes(1), |k| {
        black_box(k.sum_squares(&x));
    });
    let mut q = QuantizedRows::default();
    q.reset(64, 3072);
    best.quantize_rows(&x, &mut q, 0);
    let scale = q.scale()[0];
    check("quantized", (f32::from(q.bytes(0)[9]) - 128.0) * scale, f64::from(x[9]), f64::from(scale) * 0.51);
    bench(c, "quantize_rows", "64x3072", Throughput::Bytes((5 * n) as u64), |k| {
        k.quantize_rows(&x, black_box(&mut q), 0);
    });
}

fn norms(c: &mut Criterion) {
    let (rows, h) = (64, 768);
    let (x, dy, gamma, beta) = (random(rows * h, 3), random(rows * h, 4), random(h, 5), random(h, 6));
    let (mut y, mut mean, mut rstd) = (vec![0.0; rows * h], vec![0.0; rows], vec![0.0; rows]);
    let forward = |k: Kernels, y: &mut [f32], mean: &mut [f32], rstd: &mut [f32]| {
        k.layer_norm_forward(&x, &gamma, &beta, 1e-12, y, Some(LayerNormSaved { mean, rstd }));
    };
    let best = Kernels::available().next().expect("the scalar row");
    forward(best, &mut y, &mut mean, &mut rstd);
    let average: f64 = x[..h].iter().map(|&x| f64::from(x)).sum::<f64>() / h as f64;
    check("mean", mean[0], average, 1e-6);
    let normalised = (f64::from(x[1]) - average) * f64::from(rstd[0]);
    check("norm", y[1], normalised * f64::from(gamma[1]) + f64::from(beta[1]), 1e-5);

    let bytes = |streams: usize| Throughput::Bytes((streams * rows * h * 4) as u64);
    let (mut m, mut r) = (mean.clone(), rstd.clone());
    bench(c, "layer_norm_forward", "64x768", bytes(2), |k| forward(k, black_box(&mut y), &mut m, &mut r));
    let (mut dgamma, mut dbeta) = (vec![0.0; h], vec![0.0; h]);
    bench(c, "layer_norm_backward", "64x768", bytes(3), |k| {
        let mut into = LayerNormGradients { dx: black_box(&mut y), dgamma: &mut dgamma, dbeta: &mut dbeta };
        k.layer_norm_backward(&dy, &x, &gamma, &mean, &rstd, &mut into);
    });
    let mut row = x[..512].to_vec();
    best.softmax_row(&mut row);
    assert!((row.iter().map(|&x| f64::from(x)).sum::<f64>() - 1.0).abs() < 1e-5);
    bench(c, "softmax_row", "512", Throughput::Bytes(2 * 512 * 4), |k| k.softmax_row(black_box(&mut row)));
}

/// AdamW over a tensor that fits no cache, as all of DistilBERT's parameters do not.
fn adamw(c: &mut Criterion) {
    let n = 8 << 20;
    let (mut w, mut m, mut v, g) = (random(n, 7), vec![0.0; n], vec![0.0; n], random(n, 8));
    let step = AdamWStep {
        learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        gradient_scale: 1.0,
        step: 1,
    };
    let mut run = |k: Kernels, w: &mut [f32]| {
        k.adamw(AdamW { w, m: &mut m, v: &mut v, g: &g, mask: None }, &step);
    };
    let before = f64::from(w[3]);
    run(Kernels::available().next().expect("the scalar row"), &mut w);
    // The first step moves every weight by the learning rate, against the sign of its gradient.
    check("adamw", w[3], before * (1.0 - 1e-6) - 1e-4 * f64::from(g[3].signum()), 1e-6);
    bench(c, "adamw", "8Mi", Throughput::Bytes((28 * n) as u64), |k| run(k, black_box(&mut w)));
}

/// One text through twelve heads: forward in floats and in int8, and backward.
fn attention(c: &mut Criterion) {
    for (len, queries, head_size, rate) in [
        (16, 16, 64, 0.0),
        (32, 32, 64, 0.0),
        (64, 64, 64, 0.0),
        (128, 128, 64, 0.0),
        (128, 128, 32, 0.0),
        (50, 50, 64, 0.0),
        (64, 64, 64, 0.1),
        (64, 1, 64, 0.0),
    ] {
        let (heads, width) = (12, 12 * head_size);
        let qkv = random(len * 3 * width, 9);
        let args = AttentionArgs {
            q: &qkv,
            q_stride: 3 * width,
            k: &qkv[width..],
            k_stride: 3 * width,
            v: &qkv[2 * width..],
            v_stride: 3 * width,
            len,
            queries,
            heads,
            head_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            dropout: (rate > 0.0).then_some(AttentionDropout { key: 5, rate }),
        };
        let (mut context, mut lse) = (vec![0.0; queries * width], vec![0.0; queries * heads]);
        let best = Kernels::available().next().expect("the scalar row");
        best.attention_forward(&args, &mut context, width, &mut lse);
        check_first_value(&args, context[0], 1e-4);

        let shape =
            format!("{len}x{queries}x{heads}x{head_size}{}", if rate > 0.0 { "_dropout" } else { "" });
        let product = (2 * queries * len * width) as u64;
        bench(c, "attention_forward", &shape, Throughput::Elements(2 * product), |k| {
            k.attention_forward(&args, black_box(&mut context), width, &mut lse);
        });
        if rate == 0.0 {
            let mut coarse = vec![0.0; queries * width];
            best.attention_int8(&args, &mut coarse, width);
            // Of operands rounded to 1/127 of their largest, which is 2.
            check_first_value(&args, coarse[0], 0.08);
            bench(c, "attention_int8", &shape, Throughput::Elements(2 * product), |k| {
                k.attention_int8(&args, black_box(&mut coarse), width);
            });
        }
        let dcontext = random(queries * width, 10);
        let (mut dq, mut dk, mut dv) =
            (vec![0.0; queries * width], vec![0.0; len * width], vec![0.0; len * width]);
        bench(c, "attention_backward", &shape, Throughput::Elements(5 * product), |k| {
            let mut into = AttentionGradients {
                dq: black_box(&mut dq),
                dq_stride: width,
                dk: &mut dk,
                dk_stride: width,
                dv: &mut dv,
                dv_stride: width,
            };
            k.attention_backward(&args, &context, &dcontext, width, &lse, &mut into);
        });
    }
}

/// The first feature of the first context, without dropout, by the definition.
fn check_first_value(args: &AttentionArgs<'_>, found: f32, bound: f64) {
    if args.dropout.is_some() {
        return;
    }
    let (mut sum, mut weighted) = (0.0, 0.0);
    for j in 0..args.len {
        let key = &args.k[j * args.k_stride..][..args.head_size];
        let score: f64 = args.q.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
        let power = (score * f64::from(args.scale)).exp();
        sum += power;
        weighted += power * f64::from(args.v[j * args.v_stride]);
    }
    check("attention", found, weighted / sum, bound);
}

criterion_group!(benches, elementwise, norms, adamw, attention);
criterion_main!(benches);
