// What a linear layer does to its sums (limbeck::models::config::Activation, limbeck_kernels::rows::activation).
#pragma once
#include "prelude.cuh"

enum Activation : int { IDENTITY = 0, GELU = 1, RELU = 2, TANH = 3 };

// GELU is the exact one, z·Φ(z) with Φ the normal distribution function, and not its tanh approximation.
__device__ __forceinline__ float activate(int activation, float z) {
    switch (activation) {
    case GELU: return z * 0.5f * (1.0f + erff(z * 0.70710678f));
    case RELU: return z < 0.0f ? 0.0f : z; // NaN stays NaN
    case TANH: return tanhf(z);
    default: return z;
    }
}
