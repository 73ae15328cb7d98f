//! Row kernels: everything between two matrix products, each written once over sixteen virtual lanes.
//!
//! A file holds one kernel or a few that belong together: first the safe methods on [`Kernels`], which
//! state the contract and check every length, then the body, generic over the instruction set. The
//! list below turns the bodies into one table per instruction set.
//!
//! [`Kernels`]: crate::Kernels

mod activation;
mod adamw;
pub mod attention;
mod dequantize;
mod dropout;
mod elementwise;
mod embedding;
mod exponential;
mod map;
mod norm;
mod quantize;
mod softmax;

pub use adamw::{AdamW, AdamWStep};
pub use attention::{AbsorbedArgs, AttentionArgs, AttentionDropout, AttentionGradients, INT8_KEYS};
pub use dropout::Dropout;
pub use norm::{LayerNormGradients, LayerNormSaved};

use crate::gemm::{Int8Kernels, RowMut, Scales};
#[cfg(target_arch = "x86_64")]
use crate::isa::{avx2, avx512};

#[cfg(target_arch = "aarch64")]
use crate::isa::neon;

/// From the list of bodies, `module::name(arguments)`: the type of the table, and a table for each
/// instruction set, whose functions are the bodies compiled for that set. What only training, tests and reports call
/// stands behind the feature `train`.
macro_rules! row_kernels {
    ($($(#[$when:meta])? $module:ident::$name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {
        /// The row kernels of one instruction set. They may be called where its instructions may run,
        /// and expect lengths that the methods on `Kernels` have checked.
        #[derive(Debug)]
        pub(crate) struct RowKernels {
            $($(#[$when])? pub(crate) $name: unsafe fn($($type),*) $(-> $out)?,)*
        }

        #[cfg(target_arch = "x86_64")]
        pub(crate) const AVX512: RowKernels = {
            avx512! { $($(#[$when])? fn $name($($arg: $type),*) $(-> $out)? {
                $module::$name(crate::simd::avx512::token(), $($arg),*)
            })* }
            RowKernels { $($(#[$when])? $name),* }
        };

        #[cfg(target_arch = "x86_64")]
        pub(crate) const AVX2: RowKernels = {
            avx2! { $($(#[$when])? fn $name($($arg: $type),*) $(-> $out)? {
                $module::$name(crate::simd::avx2::token(), $($arg),*)
            })* }
            RowKernels { $($(#[$when])? $name),* }
        };

        #[cfg(target_arch = "aarch64")]
        pub(crate) const NEON: RowKernels = {
            neon! { $($(#[$when])? fn $name($($arg: $type),*) $(-> $out)? {
                $module::$name(crate::simd::neon::token(), $($arg),*)
            })* }
            RowKernels { $($(#[$when])? $name),* }
        };

        pub(crate) const SCALAR: RowKernels = {
            $($(#[$when])? fn $name($($arg: $type),*) $(-> $out)? {
                $module::$name(crate::simd::scalar::Scalar, $($arg),*)
            })*
            RowKernels { $($(#[$when])? $name),* }
        };
    };
}

row_kernels! {
    #[cfg(feature = "train")]
    exponential::exp(x: &[f32], y: &mut [f32]);
    activation::gelu_forward(x: &[f32], y: &mut [f32]);
    #[cfg(feature = "train")]
    activation::gelu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]);
    activation::relu_forward(x: &[f32], y: &mut [f32]);
    #[cfg(feature = "train")]
    activation::relu_backward(y: &[f32], dy: &[f32], dx: &mut [f32]);
    activation::tanh_forward(x: &[f32], y: &mut [f32]);
    #[cfg(feature = "train")]
    activation::tanh_backward(y: &[f32], dy: &[f32], dx: &mut [f32]);
    #[cfg(feature = "train")]
    softmax::softmax_row(row: &mut [f32]);
    norm::layer_norm_forward(
        x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32], saved: Option<LayerNormSaved<'_>>
    );
    #[cfg(feature = "train")]
    norm::layer_norm_backward(
        dy: &[f32], x: &[f32], gamma: &[f32], mean: &[f32], rstd: &[f32], into: &mut LayerNormGradients<'_>
    );
    elementwise::add(x: &[f32], y: &mut [f32]);
    elementwise::sum(x: &[f32], y: &[f32], z: &mut [f32]);
    elementwise::scale(x: &mut [f32], factor: f32);
    elementwise::column_sums(dy: &[f32], db: &mut [f32]);
    #[cfg(feature = "train")]
    elementwise::sum_squares(x: &[f32]) -> f64;
    #[cfg(feature = "train")]
    dropout::dropout(x: &mut [f32], dropout: &Dropout);
    embedding::dequantize_row(q: &[i8], scale: f32, out: &mut [f32], accumulate: bool);
    quantize::quantize_row(x: &[f32], out: RowMut<'_>) -> f32;
    quantize::quantize_row_by(x: &[f32], largest: &[f32; 16], out: RowMut<'_>) -> f32;
    dequantize::dequantize(sums: &[[i32; 32]], scales: Scales<'_>, c: &mut [f32], c_stride: usize);
    dequantize::dequantize_gelu(
        sums: &[[i32; 32]], scales: Scales<'_>, c: &mut [f32], c_stride: usize, largest: &mut [[f32; 16]]
    );
    #[cfg(feature = "train")]
    adamw::adamw(tensors: &mut AdamW<'_>, step: &AdamWStep);
    attention::attention_forward(args: &AttentionArgs<'_>, context: &mut [f32], stride: usize, lse: &mut [f32]);
    #[cfg(feature = "train")]
    attention::attention_backward(
        args: &AttentionArgs<'_>, context: &[f32], dcontext: &[f32], stride: usize, lse: &[f32],
        into: &mut AttentionGradients<'_>
    );
    attention::attention_absorbed(args: &AbsorbedArgs<'_>, context: &mut [f32]);
    attention::attention_int8(args: &AttentionArgs<'_>, int8: &Int8Kernels, context: &mut [f32], stride: usize);
    #[cfg(feature = "train")]
    attention::attention_probabilities(args: &AttentionArgs<'_>, head: usize, out: &mut [f32]);
}
