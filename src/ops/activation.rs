//! The functions behind linear layers, on the CPU.

use crate::models::config::Activation;
use limbeck_kernels::Kernels;

/// Applies `activation` in place, by way of a buffer on the stack.
pub(in crate::ops) fn activate(kernels: Kernels, activation: Activation, values: &mut [f32]) {
    if activation == Activation::Identity {
        return;
    }
    let mut z = [0.0; 1024];
    for values in values.chunks_mut(z.len()) {
        let z = &mut z[..values.len()];
        z.copy_from_slice(values);
        match activation {
            Activation::Identity => (),
            Activation::Gelu => kernels.gelu_forward(z, values),
            Activation::Relu => kernels.relu_forward(z, values),
            Activation::Tanh => kernels.tanh_forward(z, values),
        }
    }
}
