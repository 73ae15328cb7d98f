//! AVX-VNNI: int8 by `vpdpbusd` on `ymm` registers, in tiles of six rows by one panel. All else is [`avx2`](super::avx2)'s.
//!
//! ```text
//!              b: 2 loads a step
//!              ymm         ymm
//!  a: 6       ┌───────────┬───────────┐
//!  broadcasts │ sum 0,0   │ sum 0,1   │   12 registers of sums, 2 of b, 1 of a: 15 of 16;
//!  a step     │   ⋮       │   ⋮       │   12 steps of latency 5 keep two units busy,
//!             │ sum 5,0   │ sum 5,1   │   and 8 loads feed 12 products
//!             └───────────┴───────────┘
//! ```
//!
//! It has been developed on a CPU that lacks AVX-VNNI, and qemu does not emulate it. But AVX-512 has the same
//! instruction in another encoding (EVEX for VEX): the tests below run the same tile with that one, so that everything
//! but the encoding is tested there too.

use super::avx2::{self, by_rows, prefetch};
use super::blocks::BLOCKS_AHEAD;
use super::{GemmKernels, Int8Kernels, KC, Line, PANEL, Panels, Start, tiles};
use crate::isa::{avx_vnni, avx2 as on_avx2};
use std::arch::x86_64::*;

pub(crate) const GEMM: GemmKernels = GemmKernels {
    i8: Int8Kernels { offset: 128, widen: None, strip: strip_i8, blocks: strip_blocks },
    ..avx2::GEMM
};

/// Rows of a tile.
const ROWS: usize = 6;

on_avx2! {
    #[inline]
    fn load_i8(from: &[i8; 4 * PANEL]) -> [__m256i; 2] {
        // SAFETY: 64 bytes are borrowed.
        unsafe { [_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from[32..].as_ptr().cast())] }
    }

    #[inline]
    fn load_i32(from: &[i32; PANEL]) -> [__m256i; 2] {
        // SAFETY: 64 bytes are borrowed.
        unsafe { [_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from[8..].as_ptr().cast())] }
    }

    #[inline]
    fn store_i32(to: &mut [i32; PANEL], x: [__m256i; 2]) {
        // SAFETY: 64 bytes are borrowed.
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), x[0]);
            _mm256_storeu_si256(to[8..].as_mut_ptr().cast(), x[1]);
        }
    }
}

/// The strip and its tile for one instruction set, over the name that it has for `vpdpbusd`: sums, four unsigned
/// bytes, four signed ones.
macro_rules! int8 {
    ($isa:ident, $dot:ident: $strip:ident, $tile:ident, $blocks:ident, $block_tile:ident) => {
        $isa! {
            fn $strip(a: &[Line], b: Panels<'_, [i8; 4 * PANEL]>, start: Start<'_, i32>, c: &mut [i32], c_stride: usize) {
                let ahead = b.ahead;
                for (panel, b) in b.each().enumerate() {
                    let start = start.map(|start| &start[panel * PANEL..]);
                    tiles(a.len(), ROWS, |first, rows| {
                        let (a, c) = (&a[first..first + rows], &mut c[first * c_stride + panel * PANEL..]);
                        by_rows!($tile, rows, a, b, ahead, start, c, c_stride)
                    });
                }
            }

            fn $tile<const M: usize>(
                a: &[Line],
                b: &[[i8; 4 * PANEL]],
                ahead: usize,
                start: Option<&[i32]>,
                c: &mut [i32],
                c_stride: usize,
            ) {
                let a: &[Line; M] = a.try_into().expect("a tile of M rows");
                assert!(b.len() <= KC);
                let mut sums = [[_mm256_setzero_si256(); 2]; M];
                for (i, sums) in sums.iter_mut().enumerate() {
                    *sums = load_i32(start.unwrap_or(&c[i * c_stride..]).first_chunk().expect("a whole panel"));
                }
                for (p, b) in b.iter().enumerate() {
                    prefetch(b, ahead);
                    let b = load_i8(b);
                    for (sums, a) in sums.iter_mut().zip(a) {
                        let a = _mm256_set1_epi32(a[p].cast_signed());
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = $dot(*sum, a, b);
                        }
                    }
                }
                for (i, &sums) in sums.iter().enumerate() {
                    store_i32(c[i * c_stride..].first_chunk_mut().expect("a whole panel"), sums);
                }
            }

            fn $blocks(
                a: &[Line],
                words: &[u8],
                b: &[[i8; 4 * PANEL]],
                start: Option<&[i32; PANEL]>,
                c: &mut [i32],
                c_stride: usize,
            ) {
                tiles(a.len(), ROWS, |first, rows| {
                    let (a, c) = (&a[first..first + rows], &mut c[first * c_stride..]);
                    by_rows!($block_tile, rows, a, words, b, start, c, c_stride)
                });
            }

            fn $block_tile<const M: usize>(
                a: &[Line],
                words: &[u8],
                b: &[[i8; 4 * PANEL]],
                start: Option<&[i32; PANEL]>,
                c: &mut [i32],
                c_stride: usize,
            ) {
                let a: &[Line; M] = a.try_into().expect("a tile of M rows");
                let mut sums = [[_mm256_setzero_si256(); 2]; M];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let c = &c[i * c_stride..];
                    *sums = load_i32(start.unwrap_or_else(|| c.first_chunk().expect("a whole panel")));
                }
                for (&word, b) in words.iter().zip(b) {
                    prefetch(b, BLOCKS_AHEAD);
                    // No word is beyond a line; saying so here spares a check in each row.
                    let (word, b) = (usize::from(word).min(KC - 1), load_i8(b));
                    for (sums, a) in sums.iter_mut().zip(a) {
                        let a = _mm256_set1_epi32(a[word].cast_signed());
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = $dot(*sum, a, b);
                        }
                    }
                }
                for (i, &sums) in sums.iter().enumerate() {
                    store_i32(c[i * c_stride..].first_chunk_mut().expect("a whole panel"), sums);
                }
            }
        }
    };
}

int8!(avx_vnni, _mm256_dpbusd_avx_epi32: strip_i8, tile_i8, strip_blocks, tile_blocks);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::{BlocksI8, PackedI8, QuantizedRows};
    use crate::gemm::{pack_blocks_i8, pack_i8, packed_i8_len, packed_i8_sums};
    use crate::isa::avx512;
    use crate::random::SplitMix64;
    use crate::table::KernelTable;
    use crate::{Isa, Kernels, rows};
    use std::io::Write;

    int8!(avx512, _mm256_dpbusd_epi32: strip_evex, tile_evex, blocks_evex, block_tile_evex);

    static EVEX: KernelTable = KernelTable {
        isa: Isa::Avx512,
        gemm: GemmKernels { i8: Int8Kernels { strip: strip_evex, blocks: blocks_evex, ..GEMM.i8 }, ..GEMM },
        rows: rows::AVX2,
    };

    /// Every number of rows of a tile, one panel and two, and depths on both sides of a block; bytes anywhere in
    /// their range.
    #[test]
    fn the_tile_is_exact_with_the_other_encoding() {
        if !Isa::Avx512.is_available() {
            // Not by println!, which the test harness keeps to itself when a test passes.
            let said = "SKIPPED: this CPU lacks AVX-512, so the tile of avx-vnni was NOT tested by its instruction\n";
            std::io::stderr().write_all(said.as_bytes()).unwrap();
            return;
        }
        let kernels = Kernels(&EVEX);
        let mut random = SplitMix64::new(5);
        for (n, k) in [(1, 1), (16, 4), (17, 30_usize), (33, 767), (48, 769), (5, 1540)] {
            for m in (1..=13).chain([97]) {
                let a: Vec<u8> = (0..m * k).map(|_| random.next_word() as u8).collect();
                let weights: Vec<i8> =
                    (0..n * k).map(|_| ((random.next_word() % 255) as i16 - 127) as i8).collect();
                let (mut packed, mut sums) = (vec![0; packed_i8_len(n, k)], vec![0; n.next_multiple_of(16)]);
                pack_i8(&weights, n, k, &mut packed);
                packed_i8_sums(&packed, n, k, &mut sums);
                let mut c = vec![0; m * n];
                let rows = QuantizedRows::from_bytes(&a, k, &vec![1.0; m]);
                kernels.gemm_i8(rows.rows(0..m), PackedI8::new(&packed, n, k, &sums), &mut c, n);
                let blocks = pack_blocks_i8(&packed, n, k);
                let blocks = BlocksI8::new(&blocks.blocks, &blocks.words, &blocks.starts, &sums, [n, k]);
                let mut again = vec![0; m * n];
                kernels.gemm_i8(rows.rows(0..m), blocks, &mut again, n);
                assert_eq!(again, c, "blocks, {m}×{n}×{k}");
                for (at, &c) in c.iter().enumerate() {
                    let (a, weights) = (&a[at / n * k..][..k], &weights[at % n * k..][..k]);
                    let dot = |(&a, &w): (&u8, &i8)| (i64::from(a) - 128) * i64::from(w);
                    let expected: i64 = a.iter().zip(weights).map(dot).sum();
                    assert_eq!(i64::from(c), expected, "{m}×{n}×{k} at {at}");
                }
            }
        }
    }
}
