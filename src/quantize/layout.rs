//! Dense or block-sparse: which layout of an int8 matrix is the faster one on this CPU.
//!
//! A block of zeros that is left out saves its multiply-adds, but the blocks that stay are multiplied one panel at
//! a time, and each has to be looked up: below a quarter of zero blocks or so the dense layout wins. Where the line is
//! depends on the CPU, so both are timed, in turns, on the matrix itself. The logits are the same bits with either.

use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::{
    BlocksI8, LayerI8, PackedBlocks, PackedI8, QuantizedRows, WeightsI8, pack_blocks_i8,
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Which matrices of whole numbers leave their zero 16×4 blocks out of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Those for which it is faster on this CPU: both layouts are timed.
    #[default]
    Faster,
    /// Those that have any, whatever it costs: files that do not depend on the CPU that wrote them.
    Blocks,
    /// None.
    Dense,
}

/// What the two layouts of a matrix with zero blocks cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayoutTimes {
    /// Fraction of the 16×4 blocks that are zero.
    pub zero_blocks: f64,
    /// The time of a dense product of [`TIMED_ROWS`] rows over that of a block-sparse one; `None` if nothing was timed.
    pub speed_up: Option<f64>,
    /// Whether the blocks were left out.
    pub blocks: bool,
}

/// Rows of the products that are timed: a text of middle length.
pub const TIMED_ROWS: usize = 64;

/// Turns of each layout; the shortest counts.
const TURNS: usize = 7;

/// The blocks of packed weights `[n, k]`, if the matrix is to be laid out so.
pub(super) fn choose(
    kernels: Kernels,
    layout: Layout,
    packed: &[i8],
    sums: &[i32],
    shape: [usize; 2],
) -> (Option<PackedBlocks>, Option<LayoutTimes>) {
    let [n, k] = shape;
    let all = packed.len() / 64;
    let blocks = pack_blocks_i8(packed, n, k);
    let zeros = all - blocks.words.len();
    if zeros == 0 || layout == Layout::Dense {
        return (None, None);
    }
    let speed_up = (layout == Layout::Faster).then(|| {
        let dense = PackedI8::new(packed, n, k, sums).into();
        let sparse = BlocksI8::new(&blocks.blocks, &blocks.words, &blocks.starts, sums, shape).into();
        let [dense, sparse] = times(kernels, [dense, sparse], shape);
        dense.as_secs_f64() / sparse.as_secs_f64()
    });
    let faster = speed_up.is_none_or(|speed_up| speed_up > 1.0);
    let times = LayoutTimes { zero_blocks: zeros as f64 / all as f64, speed_up, blocks: faster };
    (faster.then_some(blocks), Some(times))
}

/// The shortest times of both, taken in turns.
fn times(kernels: Kernels, weights: [WeightsI8<'_>; 2], [n, k]: [usize; 2]) -> [Duration; 2] {
    let bytes: Vec<u8> = (0..TIMED_ROWS * k).map(|i| (i * 91 % 255 + 1) as u8).collect();
    let (ones, mut c) = (vec![1.0; n.max(TIMED_ROWS)], vec![0.0; TIMED_ROWS * n]);
    let rows = QuantizedRows::from_bytes(&bytes, k, &ones[..TIMED_ROWS]);
    let mut best = [Duration::MAX; 2];
    for _ in 0..TURNS {
        for (weights, best) in weights.iter().zip(&mut best) {
            let layer = LayerI8 { weights: *weights, scale: &ones[..n], bias: &ones[..n] };
            let start = Instant::now();
            kernels.gemm_i8_f32(rows.rows(0..TIMED_ROWS), layer, &mut c, n);
            *best = start.elapsed().min(*best);
        }
    }
    best
}
