// What is done to each element by itself, eight neighbours a thread, and the sum of squares.
//
// Such a kernel does nothing but read and write: its time is that of its bytes if enough of them are under way at once. So a thread
// reads sixteen bytes at a time, all that it needs, before it writes any.
#include "gemm_epilogue.cuh"

constexpr int EACH = 8;

// Calls `with(first, count)` for the elements of this thread; of EACH elements from `first` on there are `count`.
template <class F> __device__ __forceinline__ void each(u64 len, F with) {
    const u64 i = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * EACH;
    if (i < len) with(i, int(min(len - i, u64(EACH))));
}

// y = of(a), element by element; y may be a.
template <class A, class Y, class F> __device__ __forceinline__ void map(const A* a, Y* y, u64 len, F of) {
    each(len, [&](u64 i, int count) {
        float values[EACH];
        load_columns(a + i, count, values);
#pragma unroll
        for (int j = 0; j < EACH; j++) values[j] = of(values[j]);
        store_columns(y + i, count, values);
    });
}

// y = of(a, b), element by element; y may be either.
template <class A, class B, class Y, class F>
__device__ __forceinline__ void map(const A* a, const B* b, Y* y, u64 len, F of) {
    each(len, [&](u64 i, int count) {
        float values[EACH], others[EACH];
        load_columns(a + i, count, values);
        load_columns(b + i, count, others);
#pragma unroll
        for (int j = 0; j < EACH; j++) values[j] = of(values[j], others[j]);
        store_columns(y + i, count, values);
    });
}

KERNEL(256) cast_from_float(const float* x, Real* y, u64 len) {
    map(x, y, len, [](float x) { return x; });
}

KERNEL(256) cast_to_float(const Real* x, float* y, u64 len) {
    map(x, y, len, [](float x) { return x; });
}

// y += x.
KERNEL(256) add(const Real* x, Real* y, u64 len) {
    map(y, x, y, len, [](float y, float x) { return y + x; });
}

KERNEL(256) add_to_float(const Real* x, float* y, u64 len) {
    map(y, x, y, len, [](float y, float x) { return y + x; });
}

KERNEL(256) add_float(const float* x, Real* y, u64 len) {
    map(y, x, y, len, [](float y, float x) { return y + x; });
}

// y = activation(z), where z was summed by a library; y may be z.
KERNEL(256) activation_forward(const Real* z, int activation, Real* y, u64 len) {
    map(z, y, len, [&](float z) { return activate(activation, z); });
}

// dx = dy·gelu'(z) with gelu(z) = z·Φ(z), Φ the normal distribution function.
KERNEL(256) gelu_backward(const Real* dy, const Real* z, Real* dx, u64 len) {
    map(dy, z, dx, len, [](float dy, float z) {
        const float distribution = 0.5f * (1.0f + erff(z * 0.70710678f)), density = 0.39894228f * __expf(-0.5f * z * z);
        return dy * (distribution + z * density);
    });
}

// Of the next two, y is what the forward pass gave.
KERNEL(256) relu_backward(const Real* dy, const Real* y, Real* dx, u64 len) {
    map(dy, y, dx, len, [](float dy, float y) { return y > 0.0f ? dy : 0.0f; });
}

KERNEL(256) tanh_backward(const Real* dy, const Real* y, Real* dx, u64 len) {
    map(dy, y, dx, len, [](float dy, float y) { return dy * (1.0f - y * y); });
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
