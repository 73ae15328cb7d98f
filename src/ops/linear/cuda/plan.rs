//! In which tiles a product runs on a GPU, and in how many slices of its long dimension.
//!
//! Every product of a linear layer is a matrix of sums, `rows × cols`, over `depth`. A block makes a tile of them, and a
//! multiprocessor works through its blocks at a rate that depends on the tile alone: large tiles read each element less often. So
//! the time of a launch is that of the multiprocessor with the most tiles, and what is chosen is the least of
//!
//! ```text
//! ceil(tiles · slices / multiprocessors) · (start + slice · area / rate)  +  slices · sums · 8 bytes / bandwidth
//! ```
//!
//! where the last term is for writing and reading the slices' sums. Rates are estimates, of instructions and of the reads of
//! shared memory that they need; what is chosen decides about time and, through the slices, about the order in which sums are
//! rounded, and depends on sizes and on the number of multiprocessors alone.

use crate::backend::cuda::Storage;

/// The sums of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    /// Of the result.
    pub rows: usize,
    /// Of the result.
    pub cols: usize,
    /// Products in each sum.
    pub depth: usize,
}

/// What a block makes, and how: as kernels/cuda/gemm.cu and gemm_wgmma.cu declare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tile {
    /// By tensor cores, `stages` steps under way.
    Mma { rows: usize, cols: usize, stages: usize },
    /// By tensor cores of sm_90, a warpgroup 128 × 128 sums, `stages` steps under way. Blocks stay and make several.
    Wgmma { stages: usize },
    /// By fused multiply-adds in f32, a thread `each[0] × each[1]` sums.
    Fma { rows: usize, cols: usize, each: [usize; 2] },
}

/// A tile for large products, one for small ones or rows that are not aligned, and that of the kernels for sm_90.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Large,
    Small,
    Hopper,
}

impl Tile {
    /// That of `size` for activations stored as `storage`.
    pub(super) const fn of(storage: Storage, size: Size) -> Tile {
        match (storage, size) {
            (Storage::F32, Size::Hopper) => panic!("the kernels for sm_90 have elements of two bytes"),
            (Storage::F32, Size::Large) => Tile::Fma { rows: 128, cols: 64, each: [8, 8] },
            (Storage::F32, Size::Small) => Tile::Fma { rows: 64, cols: 32, each: [4, 4] },
            (_, Size::Hopper) => Tile::Wgmma { stages: 6 },
            (_, Size::Large) => Tile::Mma { rows: 128, cols: 128, stages: 3 },
            (_, Size::Small) => Tile::Mma { rows: 64, cols: 64, stages: 4 },
        }
    }

    fn sides(self) -> [usize; 2] {
        match self {
            Tile::Mma { rows, cols, .. } | Tile::Fma { rows, cols, .. } => [rows, cols],
            Tile::Wgmma { .. } => [128; 2],
        }
    }

    /// Threads of a block.
    pub(super) fn threads(self) -> usize {
        match self {
            Tile::Mma { .. } | Tile::Fma { .. } => 128,
            Tile::Wgmma { .. } => 384,
        }
    }

    /// What a slice of the depth is a multiple of.
    fn step(self) -> usize {
        match self {
            // Of both kinds.
            Tile::Mma { .. } | Tile::Fma { .. } => 32,
            Tile::Wgmma { .. } => 64,
        }
    }

    /// Bytes of shared memory that a block needs.
    pub(super) fn shared(self) -> usize {
        match self {
            Tile::Mma { rows, cols, stages } => stages * (rows + cols) * 32 * 2,
            // What it takes to begin at a multiple of 1024; four boxes of 64 × 64 for a stage; 16 × 64 floats for each of eight
            // warps; two barriers of 8 bytes for each stage and one for each warpgroup that multiplies.
            Tile::Wgmma { stages } => {
                1024 + stages * 4 * 64 * 64 * 2 + 8 * 16 * 64 * 4 + 2 * (stages + 1) * 8
            }
            // Two steps of 16, lines of shared memory four floats longer than the tile.
            Tile::Fma { rows, cols, .. } => 2 * 16 * (rows + 4 + cols + 4) * 4,
        }
    }

    /// Blocks that make `rows × cols` sums.
    pub(super) fn blocks(self, rows: usize, cols: usize) -> usize {
        let [of_rows, of_cols] = self.sides();
        rows.div_ceil(of_rows) * cols.div_ceil(of_cols)
    }

    /// Multiply-adds of a multiprocessor in a clock.
    fn rate(self) -> f64 {
        match self {
            // Warps of 64 × 64 keep the tensor cores busy; warps of 32 × 32 read twice as much shared memory for as many
            // products.
            Tile::Mma { rows, .. } if rows >= 128 => 1024.0,
            Tile::Mma { .. } => 560.0,
            // Half of what the tensor cores can: more than 128 × 128 sums for each element read would take more registers.
            Tile::Wgmma { .. } => 1200.0,
            Tile::Fma { each: [8, _], .. } => 110.0,
            Tile::Fma { .. } => 64.0,
        }
    }
}

/// Clocks of a block before its first product and after its last.
const START: f64 = 2000.0;
/// Bytes that all multiprocessors read or write in a clock.
const BANDWIDTH: f64 = 2000.0;
/// Clocks of one more launch.
const LAUNCH: f64 = 4000.0;
/// The fewest rows worth a slice of their own.
const LEAST_SLICE: usize = 256;

/// How products run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Which of the kernels.
    pub size: Size,
    /// What its blocks make.
    pub tile: Tile,
    /// Of the depth, that a block takes.
    pub slice: usize,
}

impl Plan {
    /// How `products` run in one launch. `aligned`: whether rows of both operands begin at multiples of 16 bytes; `sliced`:
    /// whether the depth may be cut.
    pub(super) fn of(
        products: &[Sums],
        storage: Storage,
        aligned: bool,
        sliced: bool,
        multiprocessors: usize,
    ) -> Plan {
        let sizes: &[Size] = match storage {
            Storage::F32 => &[Size::Large, Size::Small],
            _ if aligned => &[Size::Large, Size::Small],
            _ => &[Size::Small],
        };
        Plan::best(products, storage, sizes, sliced, multiprocessors)
    }

    /// How `products` run in one launch of the kernels for sm_90, which they suit.
    pub(super) fn hopper(products: &[Sums], storage: Storage, sliced: bool, multiprocessors: usize) -> Plan {
        Plan::best(products, storage, &[Size::Hopper], sliced, multiprocessors)
    }

    fn best(
        products: &[Sums],
        storage: Storage,
        sizes: &[Size],
        sliced: bool,
        multiprocessors: usize,
    ) -> Plan {
        let depth = products.iter().map(|sums| sums.depth).max().unwrap_or(0);
        let most = if sliced { (depth / LEAST_SLICE).clamp(1, 64) } else { 1 };
        let plans = sizes.iter().flat_map(|&size| {
            let tile = Tile::of(storage, size);
            let slice = move |slices| depth.div_ceil(slices).next_multiple_of(tile.step());
            (1..=most).map(move |slices| Plan { size, tile, slice: slice(slices) })
        });
        plans
            .map(|plan| (plan.clocks(products, multiprocessors), plan))
            .min_by(|(one, _), (other, _)| one.total_cmp(other))
            .map(|(_, plan)| plan)
            .expect("a plan for each size")
    }

    /// Slices of a product.
    pub(super) fn slices(self, sums: Sums) -> usize {
        sums.depth.div_ceil(self.slice.max(1)).max(1)
    }

    /// Blocks of a product.
    pub(super) fn blocks(self, sums: Sums) -> usize {
        self.tile.blocks(sums.rows, sums.cols) * self.slices(sums)
    }

    fn clocks(self, products: &[Sums], multiprocessors: usize) -> f64 {
        let [rows, cols] = self.tile.sides();
        let blocks: usize = products.iter().map(|sums| self.blocks(*sums)).sum();
        let depth = products.iter().map(|sums| sums.depth.min(self.slice)).max().unwrap_or(0);
        let of_block = START + depth as f64 * (rows * cols) as f64 / self.tile.rate();
        let of_slices = |sums: &Sums| match self.slices(*sums) {
            1 => 0.0,
            slices => LAUNCH + (slices * sums.rows * sums.cols * 8) as f64 / BANDWIDTH,
        };
        blocks.div_ceil(multiprocessors.max(1)) as f64 * of_block
            + products.iter().map(of_slices).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck_kernels::cuda::Source;

    #[test]
    fn tiles_are_what_the_source_declares() {
        let hopper = Source::find("gemm_wgmma").unwrap();
        let Tile::Wgmma { stages } = Tile::of(Storage::Bf16, Size::Hopper) else { unreachable!() };
        assert!(hopper.text.contains(&format!("using Tile = WgmmaTile<Real, {stages}>;")));
        for kernel in hopper.kernels() {
            assert_eq!(kernel.threads as usize, Tile::Wgmma { stages }.threads(), "{}", kernel.name);
        }
        let text = Source::find("gemm").unwrap().text;
        for storage in Storage::ALL {
            for (size, name) in [(Size::Large, "Large"), (Size::Small, "Small")] {
                let tile = match Tile::of(storage, size) {
                    Tile::Wgmma { .. } => unreachable!("of its own source"),
                    Tile::Mma { rows, cols, stages } => format!("MmaTile<T, {rows}, {cols}, {stages}>"),
                    Tile::Fma { rows, cols, each: [m, n] } => format!("FmaTile<{rows}, {cols}, {m}, {n}>"),
                };
                assert!(text.contains(&format!("using {name} = {tile};")), "{name} = {tile}");
            }
        }
    }

    fn plan(rows: usize, cols: usize, depth: usize, sliced: bool) -> Plan {
        Plan::of(&[Sums { rows, cols, depth }], Storage::Bf16, true, sliced, 132)
    }

    #[test]
    fn large_tiles_where_they_fill_the_gpu_and_small_ones_where_they_do_not() {
        assert_eq!(plan(12_800, 768, 768, false).size, Size::Large);
        assert_eq!(plan(12_800, 3072, 768, false).size, Size::Large);
        assert_eq!(plan(256, 768, 768, false).size, Size::Small);
        let odd = [Sums { rows: 12_800, cols: 768, depth: 771 }];
        assert_eq!(Plan::of(&odd, Storage::Bf16, false, false, 132).size, Size::Small);
        assert_eq!(Plan::of(&odd, Storage::F32, false, false, 132).size, Size::Large);
    }

    #[test]
    fn tests_run_both_sizes() {
        // Some of the sizes of tests/cuda/linear.rs: in the emulation, which has 4 multiprocessors, and on GPUs.
        let products = |multiprocessors, [m, n, k]: [usize; 3]| {
            [([m, n, k], false), ([m, k, n], false), ([n, k, m], true)].map(
                |([rows, cols, depth], sliced)| {
                    let sums = [Sums { rows, cols, depth }];
                    Plan::of(&sums, Storage::Bf16, true, sliced, multiprocessors).size
                },
            )
        };
        assert_eq!(products(4, [200, 256, 72]), [Size::Large; 3]);
        assert_eq!(products(4, [60, 48, 24]), [Size::Small; 3]);
        for multiprocessors in [108, 114, 128, 132, 144] {
            assert_eq!(products(multiprocessors, [1500, 1160, 1048]), [Size::Large; 3], "{multiprocessors}");
        }
    }

    #[test]
    fn slices_for_sm_90_are_whole_boxes() {
        let sums = Sums { rows: 768, cols: 768, depth: 12_800 };
        for multiprocessors in [4, 78, 114, 132] {
            let plan = Plan::hopper(&[sums], Storage::Bf16, true, multiprocessors);
            assert!(
                plan.slice.is_multiple_of(64) && plan.slices(sums) * plan.slice >= sums.depth,
                "{plan:?}"
            );
            assert!(plan.tile.shared() <= 232_448);
        }
        assert_eq!(Plan::hopper(&[sums], Storage::F16, false, 132).slices(sums), 1);
    }

    #[test]
    fn slices_fill_the_gpu_and_are_not_made_without_need() {
        let sums = Sums { rows: 768, cols: 768, depth: 12_800 };
        let sliced = plan(768, 768, 12_800, true);
        let blocks = sliced.blocks(sums);
        // 36 tiles, 132 multiprocessors: at least two thirds of them work in every wave.
        assert!(blocks * 3 >= blocks.div_ceil(132) * 132 * 2, "{sliced:?}");
        assert!(sliced.slices(sums) > 1);
        assert_eq!(sliced.slices(sums) * sliced.slice / sums.depth, 1);
        // Those of six layers at once need none.
        let group: Vec<Sums> = [768, 768, 768, 768, 3072, 3072]
            .into_iter()
            .cycle()
            .take(36)
            .map(|rows| Sums { rows, ..sums })
            .collect();
        let group_plan = Plan::of(&group, Storage::Bf16, true, true, 132);
        assert!(group.iter().all(|sums| group_plan.slices(*sums) <= 2), "{group_plan:?}");
        // A batch of one text.
        assert_eq!(plan(768, 768, 40, true).slices(Sums { depth: 40, ..sums }), 1);
        assert_eq!(plan(768, 768, 0, true).slices(Sums { depth: 0, ..sums }), 1);
    }
}
