//! The inner loops of limbeck: one complete table of functions per instruction set, and nothing else.
//!
//! Everything here runs on the calling thread and knows nothing of models. It keeps memory for each thread that calls:
//! a packed block of `a` and the edge of `c` in [`gemm`], the tiles of one head in [`rows::attention`]. Whoever calls
//! splits the work over threads (`limbeck::backend::cpu`).
//!
//! | to | touch |
//! |---|---|
//! | add a row kernel | its body in a file of [`rows`], its line in the list of `rows/mod.rs` |
//! | tune a GEMM tile | the tile in `gemm/<isa>.rs` |
//! | add a CUDA kernel | `kernels/cuda`, and the list in `cuda` (feature `cuda`) |
//! | add an instruction set | one variant in [`isa`], one `Simd` in `simd`, one row in [`table`] |
//!
//! | row | needs | int8 by |
//! |---|---|---|
//! | `avx512` | AVX-512 with VNNI and BF16 | `vpdpbusd` |
//! | `avx-vnni` | AVX2, FMA, AVX-VNNI | `vpdpbusd`, 256 bits wide |
//! | `avx2` | AVX2, FMA | `vpmaddwd` |
//! | `neon-dotprod` | NEON, dot product | `sdot` |
//! | `neon` | NEON | `smull`, `sadalp` |
//! | `scalar` | nothing | plain Rust |
//!
//! Without the default feature `train` the table has only what prediction calls: the rest would be a third of
//! an inference binary.
//!
//! Three promises hold on every row of the table:
//! * **any size works**, 0 and 1 included; outputs beyond the size are never written;
//! * **integers are exact** and equal on every row;
//! * **float steps are equal bit for bit on every row** (bf16 GEMM excepted): they run over sixteen
//!   virtual lanes in one fixed order with fused multiply-add.

#![cfg_attr(not(feature = "train"), allow(dead_code, reason = "the bodies that only training calls"))]

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod gemm;
pub mod isa;
pub mod random;
pub mod rows;
mod simd;
pub mod table;

pub use isa::{Isa, IsaError};
pub use table::Kernels;
