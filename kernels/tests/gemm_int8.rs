//! int8 products of every row, dense and block-sparse, against 64-bit sums.

mod harness;

use harness::{GEMM_SHAPES as SHAPES, Guarded, Random, rows};
use limbeck_kernels::gemm::{
    BlocksI8, LayerI8, PackedI8, QuantizedRows, WeightsI8, blocks_i8_part, blocks_i8_parts, blocks_problem,
};
use limbeck_kernels::gemm::{pack_blocks_i8, pack_i8, packed_i8_len, packed_i8_sums};

/// int8 operands of one shape: random, or every value at one of its extremes.
fn int8_case([m, n, k]: [usize; 3], extreme_case: bool) -> (Vec<u8>, Vec<i8>) {
    let mut random = Random::new(7 + (m * 31 + n * 17 + k) as u64);
    let mut draw = |_| match (extreme_case, random.int(0, 1)) {
        (false, _) => random.int(-127, 127),
        (true, 0) => -127,
        (true, _) => 127,
    };
    let weights: Vec<i8> = (0..n * k).map(&mut draw).map(|w| w as i8).collect();
    let mut a = vec![128; m * k];
    for row in 0..m {
        // A quantized activation is never 0 (-128), but the product is right for it too.
        let extreme = |s: i32| if s < 0 { 0 } else { 255 };
        (0..k).for_each(|p| {
            let s = draw(p);
            a[row * k + p] = if extreme_case { extreme(s) } else { (s + 128) as u8 };
        });
    }
    (a, weights)
}

#[test]
fn int8_is_exact_on_every_row() {
    for &[m, n, k] in SHAPES {
        for extreme in [false, true] {
            let (a, weights) = int8_case([m, n, k], extreme);
            let mut packed = vec![1; packed_i8_len(n, k)];
            pack_i8(&weights, n, k, &mut packed);
            let mut sums = vec![1; n.next_multiple_of(16)];
            packed_i8_sums(&packed, n, k, &mut sums);
            let b = PackedI8::new(&packed, n, k, &sums);
            let dot = |i: usize, j: usize| -> i64 {
                (0..k).map(|p| (i64::from(a[i * k + p]) - 128) * i64::from(weights[j * k + p])).sum()
            };
            let expected: Vec<i64> = (0..m * n).map(|at| dot(at / n, at % n)).collect();
            let mut random = Random::new(3);
            let (a_scale, b_scale, bias) = (random.floats(m), random.floats(n), random.floats(n));
            let a_rows = QuantizedRows::from_bytes(&a, k, &a_scale);
            for kernels in rows() {
                let c_stride = n + 5;
                let len = (m * c_stride).saturating_sub(5);
                let mut c = Guarded::of(&vec![i32::MAX; len]);
                kernels.gemm_i8(a_rows.rows(0..m), b, c.inside(), c_stride);
                let c = c.checked();
                let mut floats = Guarded::of(&vec![-1.5_f32; len]);
                let layer = LayerI8 { weights: b.into(), scale: &b_scale, bias: &bias };
                kernels.gemm_i8_f32(a_rows.rows(0..m), layer, floats.inside(), c_stride);
                let floats = floats.checked();
                for at in 0..len {
                    let (i, j) = (at / c_stride, at % c_stride);
                    if j >= n {
                        assert!(c[at] == i32::MAX && floats[at] == -1.5, "wrote between the rows of c");
                        continue;
                    }
                    let sum = expected[i * n + j];
                    assert_eq!(i64::from(c[at]), sum, "{} {m}×{n}×{k} at {i}, {j}", kernels.isa());
                    let float = (sum as f32).mul_add(a_scale[i] * b_scale[j], bias[j]);
                    assert_eq!(floats[at].to_bits(), float.to_bits(), "{} at {i}, {j}", kernels.isa());
                }
            }
        }
    }
}

/// Sums that are not those of the weights, and a weight that two products of which do not fit into 16 bits.
#[test]
fn unsound_weights_are_found() {
    let (n, k) = (19, 7);
    let mut weights: Vec<i8> = (0..n * k).map(|i| (i % 255) as i8).map(|w| w.max(-127)).collect();
    let sound = |weights: &[i8], change: i32| {
        let mut packed = vec![0; packed_i8_len(n, k)];
        pack_i8(weights, n, k, &mut packed);
        let mut sums = vec![0; n.next_multiple_of(16)];
        packed_i8_sums(&packed, n, k, &mut sums);
        sums[18] += change;
        WeightsI8::from(PackedI8::new(&packed, n, k, &sums)).is_sound()
    };
    assert!(sound(&weights, 0) && !sound(&weights, 1));
    weights[130] = -128;
    assert!(!sound(&weights, 0));
}

/// Packed weights of which about one block in five is left, and their sums.
fn sparse_case(n: usize, k: usize) -> (Vec<i8>, Vec<i32>) {
    let mut random = Random::new((n * 17 + k) as u64);
    let kept: Vec<bool> = (0..n.div_ceil(16) * k.div_ceil(4)).map(|_| random.int(0, 4) == 0).collect();
    let weights: Vec<i8> = (0..n * k)
        .map(|at| {
            let w = random.int(-127, 127) as i8;
            if kept[at / k / 16 * k.div_ceil(4) + at % k / 4] { w } else { 0 }
        })
        .collect();
    let (mut packed, mut sums) = (vec![0; packed_i8_len(n, k)], vec![0; n.next_multiple_of(16)]);
    pack_i8(&weights, n, k, &mut packed);
    packed_i8_sums(&packed, n, k, &mut sums);
    (packed, sums)
}

#[test]
fn blocks_give_the_sums_of_dense_weights() {
    for &[m, n, k] in SHAPES {
        let (a, _) = int8_case([m, n, k], false);
        let (packed, sums) = sparse_case(n, k);
        let ones = vec![1.0; m];
        let rows_i8 = QuantizedRows::from_bytes(&a, k, &ones);
        let rows_i8 = rows_i8.rows(0..m);
        let blocks = pack_blocks_i8(&packed, n, k);
        assert!(blocks.blocks.len() <= packed.len() && blocks.blocks.len() == 64 * blocks.words.len());
        let sparse = BlocksI8::new(&blocks.blocks, &blocks.words, &blocks.starts, &sums, [n, k]);
        assert_eq!(blocks_problem(&blocks.words, &blocks.starts, k), None, "{n}×{k}");
        let mut rebuilt = vec![0; packed.len()];
        let parts = blocks_i8_parts(k);
        for (list, ends) in blocks.starts.windows(2).enumerate() {
            let first = list / parts * k.div_ceil(4) + blocks_i8_part(k, list % parts);
            for i in ends[0] as usize..ends[1] as usize {
                let place = first + usize::from(blocks.words[i]);
                rebuilt[64 * place..][..64].copy_from_slice(&blocks.blocks[64 * i..][..64]);
            }
        }
        assert_eq!(rebuilt, packed, "{n}×{k}: each block stands where it was");
        for kernels in rows() {
            let [mut dense_c, mut c] = [(); 2].map(|()| Guarded::of(&vec![i32::MAX; m * n]));
            kernels.gemm_i8(rows_i8, PackedI8::new(&packed, n, k, &sums), dense_c.inside(), n);
            kernels.gemm_i8(rows_i8, sparse, c.inside(), n);
            assert_eq!(c.checked(), dense_c.checked(), "{} {m}×{n}×{k}", kernels.isa());
        }
    }
}

/// Lists that are wrong are found, and a product with them reads nothing that is not there.
#[test]
fn damaged_blocks_are_found_and_do_no_harm() {
    let (n, k) = (33, 900);
    let (packed, sums) = sparse_case(n, k);
    let whole = pack_blocks_i8(&packed, n, k);
    type Damage = fn(&mut Vec<u8>, &mut Vec<i32>);
    let damages: [Damage; 6] = [
        |words, _| words[3] = 255,
        |words, _| words.swap(1, 2),
        |_, starts| starts[2] = -1,
        |_, starts| starts[2] = i32::MAX,
        |_, starts| starts[0] = 1,
        |_, starts| *starts.last_mut().unwrap() -= 1,
    ];
    let bytes = QuantizedRows::from_bytes(&vec![255; 2 * k], k, &[1.0; 2]);
    for damage in damages {
        let (mut words, mut starts) = (whole.words.clone(), whole.starts.clone());
        damage(&mut words, &mut starts);
        let blocks = BlocksI8::new(&whole.blocks, &words, &starts, &sums, [n, k]);
        assert!(blocks_problem(&words, &starts, k).is_some());
        for kernels in rows() {
            let mut c = Guarded::of(&vec![0; 2 * n]);
            kernels.gemm_i8(bytes.rows(0..2), blocks, c.inside(), n);
            c.checked();
        }
    }
}

/// x·Φ(x), with Abramowitz and Stegun's 7.1.6 for Φ.
fn gelu(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() && x.abs() < 8.0 {
        term *= x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x.abs() < 8.0 { x * (0.5 + density * sum) } else { x.max(0.0) }
}

#[test]
fn a_layer_with_gelu_ends_in_the_nearest_bytes() {
    for [m, n, k] in
        [[1, 5, 7], [47, 33, 64], [48, 64, 64], [49, 1907, 20], [100, 96, 770], [3, 0, 4], [0, 3, 4]]
    {
        let (a, weights) = int8_case([m, n, k], false);
        let (mut packed, mut sums) = (vec![0; packed_i8_len(n, k)], vec![0; n.next_multiple_of(16)]);
        pack_i8(&weights, n, k, &mut packed);
        packed_i8_sums(&packed, n, k, &mut sums);
        let mut random = Random::new(5);
        let a_scale: Vec<f32> = (0..m).map(|_| 0.02 * (1.1 + random.float())).collect();
        let (b_scale, bias) = (vec![0.02 / (k as f32).sqrt(); n], random.floats(n));
        let rows_i8 = QuantizedRows::from_bytes(&a, k, &a_scale);
        let rows_i8 = rows_i8.rows(0..m);
        let layer =
            LayerI8 { weights: PackedI8::new(&packed, n, k, &sums).into(), scale: &b_scale, bias: &bias };
        let mut results = Vec::new();
        for kernels in rows() {
            let mut floats = vec![0.0; m * n];
            kernels.gemm_i8_f32(rows_i8, layer, &mut floats, n);
            let mut out = QuantizedRows::default();
            kernels.gemm_i8_gelu(rows_i8, layer, &mut Vec::new(), &mut out);
            let bytes: Vec<Vec<u8>> = (0..m).map(|row| out.bytes(row)).collect();
            for ((floats, scale), bytes) in floats.chunks(n.max(1)).zip(out.scale()).zip(&bytes) {
                let exact: Vec<f64> = floats.iter().map(|&x| gelu(f64::from(x))).collect();
                let largest = exact.iter().fold(0.0f64, |max, y| max.max(y.abs()));
                assert!(n > 0 || *scale == 1.0, "an empty row is all zeros");
                assert!(
                    n == 0 || (f64::from(*scale) * 127.0 - largest).abs() <= 2e-5,
                    "{scale} for {largest}"
                );
                assert_eq!(bytes.len(), n);
                for (byte, y) in bytes.iter().zip(&exact) {
                    let found = (f64::from(*byte) - 128.0) * f64::from(*scale);
                    let step = f64::from(*scale) / 2.0 + 4e-5;
                    assert!((found - y).abs() <= step, "{} {found} for {y}", kernels.isa());
                }
            }
            results.push((bytes, out.scale().iter().map(|scale| scale.to_bits()).collect::<Vec<_>>()));
        }
        assert!(
            results.iter().all(|result| *result == results[0]),
            "the rows of the table differ at {m}×{n}×{k}"
        );
    }
}

/// The largest k that the layout documents: all inputs at their extremes, in either direction.
#[test]
fn int8_sums_hold_the_largest_depth() {
    let k = 1 << 17;
    let weights: Vec<i8> = [vec![127; k], vec![-127; k]].concat();
    let mut packed = vec![0; packed_i8_len(2, k)];
    pack_i8(&weights, 2, k, &mut packed);
    let mut sums = [0; 16];
    packed_i8_sums(&packed, 2, k, &mut sums);
    let a = QuantizedRows::from_bytes(&[vec![0; k], vec![255; k]].concat(), k, &[1.0; 2]);
    let (low, high) = (128 * 127 * k as i32, 127 * 127 * k as i32);
    for kernels in rows() {
        let mut c = [0; 4];
        kernels.gemm_i8(a.rows(0..2), PackedI8::new(&packed, 2, k, &sums), &mut c, 2);
        assert_eq!(c, [-low, low, high, -high], "{}", kernels.isa());
    }
}
