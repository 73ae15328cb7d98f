// What is done to each element by itself, a pack of eight a thread, and the sum of squares.
#include "activation.cuh"

constexpr int EACH = 8;

// Calls `with(i)` for the elements of this thread: consecutive threads take consecutive elements, eight rounds of a block.
template <class F> __device__ __forceinline__ void each(u64 len, F with) {
    u64 i = u64(blockIdx.x) * EACH * blockDim.x + threadIdx.x;
#pragma unroll
    for (int round = 0; round < EACH; round++, i += blockDim.x)
        if (i < len) with(i);
}

KERNEL(256) cast_from_float(const float* x, Real* y, u64 len) {
    each(len, [&](u64 i) { y[i] = from_float<Real>(x[i]); });
}

KERNEL(256) cast_to_float(const Real* x, float* y, u64 len) {
    each(len, [&](u64 i) { y[i] = to_float(x[i]); });
}

// y += x.
KERNEL(256) add(const Real* x, Real* y, u64 len) {
    each(len, [&](u64 i) { y[i] = from_float<Real>(to_float(y[i]) + to_float(x[i])); });
}

KERNEL(256) add_to_float(const Real* x, float* y, u64 len) {
    each(len, [&](u64 i) { y[i] += to_float(x[i]); });
}

KERNEL(256) add_float(const float* x, Real* y, u64 len) {
    each(len, [&](u64 i) { y[i] = from_float<Real>(to_float(y[i]) + x[i]); });
}

// y = activation(z), where z was summed by a library; y may be z.
KERNEL(256) activation_forward(const Real* z, int activation, Real* y, u64 len) {
    each(len, [&](u64 i) { y[i] = from_float<Real>(activate(activation, to_float(z[i]))); });
}

// dx = dy·gelu'(z) with gelu(z) = z·Φ(z), Φ the normal distribution function.
KERNEL(256) gelu_backward(const Real* dy, const Real* z, Real* dx, u64 len) {
    each(len, [&](u64 i) {
        const float x = to_float(z[i]);
        const float distribution = 0.5f * (1.0f + erff(x * 0.70710678f)), density = 0.39894228f * __expf(-0.5f * x * x);
        dx[i] = from_float<Real>(to_float(dy[i]) * (distribution + x * density));
    });
}

// Of the next two, y is what the forward pass gave.
KERNEL(256) relu_backward(const Real* dy, const Real* y, Real* dx, u64 len) {
    each(len, [&](u64 i) { dx[i] = to_float(y[i]) > 0.0f ? dy[i] : from_float<Real>(0.0f); });
}

KERNEL(256) tanh_backward(const Real* dy, const Real* y, Real* dx, u64 len) {
    each(len, [&](u64 i) {
        const float of_y = to_float(y[i]);
        dx[i] = from_float<Real>(to_float(dy[i]) * (1.0f - of_y * of_y));
    });
}

// Σ x² over 16,384 elements a block, in one order; the host adds up the blocks.
KERNEL(256) sum_squares(const Real* x, u64 len, double* partial) {
    __shared__ double of_warps[WARP];
    const u64 first = u64(blockIdx.x) << 14, last = min(first + (u64(1) << 14), len);
    double sum = 0.0;
    for (u64 i = first + threadIdx.x; i < last; i += blockDim.x) {
        const double value = to_float(x[i]);
        sum += value * value;
    }
    sum = block_sum(sum, of_warps);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
