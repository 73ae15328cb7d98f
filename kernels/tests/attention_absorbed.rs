//! Attention with absorbed projections on every row of the table, against projections and softmax in f64.

mod harness;

use harness::{Guarded, Random, rows};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{BlocksI8, LayerI8, PackedBlocks, PackedI8, WeightsI8};
use limbeck_kernels::gemm::{pack_blocks_i8, pack_i8, packed_i8_len, packed_i8_sums};
use limbeck_kernels::rows::AbsorbedArgs;

/// Weights as they are and as they are packed, dense and in blocks.
struct Projection {
    weights: Vec<i8>,
    packed: Vec<i8>,
    blocks: PackedBlocks,
    sums: Vec<i32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    shape: [usize; 2],
}

impl Projection {
    /// Of every other word a block of sixteen outputs is zero.
    fn new(random: &mut Random, [n, k]: [usize; 2]) -> Projection {
        let weight = |i: usize| {
            let (output, input) = (i / k, i % k);
            let kept = (output / 16 + input / 4).is_multiple_of(2);
            if kept { random.int(-127, 127) as i8 } else { 0 }
        };
        let weights: Vec<i8> = (0..n * k).map(weight).collect();
        let (mut packed, mut sums) = (vec![0; packed_i8_len(n, k)], vec![0; n.next_multiple_of(16)]);
        pack_i8(&weights, n, k, &mut packed);
        packed_i8_sums(&packed, n, k, &mut sums);
        let blocks = pack_blocks_i8(&packed, n, k);
        let spread = 1.0 / (40.0 * (k as f32).sqrt());
        let scale = (0..n).map(|_| spread * (1.0 + random.float().abs())).collect();
        Projection { weights, packed, blocks, sums, scale, bias: random.normals(n), shape: [n, k] }
    }

    fn layer(&self, in_blocks: bool) -> LayerI8<'_> {
        let ([n, k], blocks) = (self.shape, &self.blocks);
        let weights: WeightsI8<'_> = if in_blocks {
            BlocksI8::new(&blocks.blocks, &blocks.words, &blocks.starts, &self.sums, self.shape).into()
        } else {
            PackedI8::new(&self.packed, n, k, &self.sums).into()
        };
        LayerI8 { weights, scale: &self.scale, bias: &self.bias }
    }

    /// One output of one row.
    fn apply(&self, output: usize, x: &[f32]) -> f64 {
        let weights = &self.weights[output * x.len()..][..x.len()];
        let sum: f64 = x.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        sum * f64::from(self.scale[output]) + f64::from(self.bias[output])
    }
}

struct Case {
    len: usize,
    hidden: usize,
    heads: usize,
    head_size: usize,
    x: Vec<f32>,
    query: Vec<f32>,
    key: Projection,
    value: Projection,
}

impl Case {
    fn new(len: usize, hidden: usize, heads: usize, head_size: usize) -> Case {
        let mut random = Random::new((len * 7919 + hidden * 101 + heads * 11 + head_size) as u64);
        let shape = [heads * head_size, hidden];
        let x = random.normals(len * hidden);
        let query = random.normals(heads * head_size).iter().map(|q| 1.5 * q).collect();
        let [key, value] = [(); 2].map(|()| Projection::new(&mut random, shape));
        Case { len, hidden, heads, head_size, x, query, key, value }
    }

    fn context(&self, kernels: Kernels, in_blocks: bool) -> Vec<f32> {
        let args = AbsorbedArgs {
            x: &self.x,
            len: self.len,
            hidden: self.hidden,
            query: &self.query,
            key: self.key.layer(in_blocks),
            value: self.value.layer(in_blocks),
            heads: self.heads,
            head_size: self.head_size,
            scale: 1.0 / (self.head_size as f32).sqrt(),
        };
        let mut context = Guarded::new(self.query.len());
        kernels.attention_absorbed(&args, context.inside());
        context.checked()
    }

    /// By the definition: keys and values first, key biases and all.
    fn exact(&self) -> Vec<f64> {
        let mut context = Vec::new();
        for head in 0..self.heads {
            let outputs = head * self.head_size..(head + 1) * self.head_size;
            let score = |x: &[f32]| -> f64 {
                let products = outputs.clone().map(|j| f64::from(self.query[j]) * self.key.apply(j, x));
                products.sum::<f64>() / (self.head_size as f64).sqrt()
            };
            let scores: Vec<f64> = self.x.chunks(self.hidden).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for j in outputs {
                let values = self.x.chunks(self.hidden).map(|x| self.value.apply(j, x));
                context.push(weights.iter().zip(values).map(|(w, v)| w * v).sum::<f64>() / total);
            }
        }
        context
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        [1, 768, 12, 64],
        [64, 768, 12, 64],
        [130, 384, 12, 32],
        [17, 768, 5, 64],
        [3, 36, 4, 9],
        [40, 21, 3, 7],
        [16, 900, 1, 16],
        [5, 1, 1, 1],
    ];
    sizes.map(|[len, hidden, heads, head_size]| Case::new(len, hidden, heads, head_size)).into()
}

#[test]
fn contexts_are_those_of_keys_and_values() {
    for case in cases() {
        let exact = case.exact();
        let largest = exact.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
        for kernels in rows() {
            for in_blocks in [false, true] {
                let context = case.context(kernels, in_blocks);
                let errors = context.iter().zip(&exact).map(|(c, exact)| (f64::from(*c) - exact).abs());
                let worst = errors.fold(0.0, f64::max) / largest;
                // Sums of up to 900 terms in f32, and scores of deviation 2 or so on the way.
                assert!(worst <= 1e-5, "{} len {} hidden {}: {worst}", kernels.isa(), case.len, case.hidden);
            }
        }
    }
}

#[test]
fn every_row_gives_the_same_bits() {
    for case in cases() {
        let bits = |kernels: Kernels, in_blocks: bool| -> Vec<u32> {
            case.context(kernels, in_blocks).iter().map(|x| x.to_bits()).collect()
        };
        let rows = rows();
        let first = bits(rows[0], false);
        for row in rows {
            for in_blocks in [false, true] {
                assert_eq!(bits(row, in_blocks), first, "{} len {}", row.isa(), case.len);
            }
        }
    }
}

#[test]
fn nan_is_not_lost_and_no_head_is_no_work() {
    for kernels in rows() {
        assert!(Case::new(5, 32, 0, 16).context(kernels, false).is_empty());
        for spoil in
            [|case: &mut Case| case.query[3] = f32::NAN, |case: &mut Case| case.x[5 * 48 + 7] = f32::NAN]
        {
            let mut case = Case::new(20, 48, 1, 32);
            spoil(&mut case);
            assert!(case.context(kernels, false).iter().all(|x| x.is_nan()), "{}", kernels.isa());
        }
    }
}
