// Layers with few outputs (n up to 32: classifiers): y, dy and the weight are f32 whatever activations are, so that logits
// and what the loss says of them are not rounded. Such products read x and do little else, so there are no tiles.
#include "gemm_epilogue.cuh"

constexpr int OUTPUTS = 4; // that a warp sums at a time

// y[m, n] = activation(x[m, k]·weight[n, k]ᵀ + bias), a warp for a row and four outputs; `z`, unless null, keeps what the
// activation was given. Grid: rows / 8 (a warp each), n / 4.
KERNEL(256) narrow_forward(const Real* x, const float* weight, const float* bias, int activation, int m, int n, int k, float* y,
                           float* z) {
    const int row = blockIdx.x * (blockDim.x / WARP) + warp_of_thread(), first = blockIdx.y * OUTPUTS;
    if (row >= m) return;
    float sums[OUTPUTS] = {};
    for (int i = lane_of_thread(); i < k; i += WARP) {
        const float value = to_float(x[size_t(row) * k + i]);
#pragma unroll
        for (int j = 0; j < OUTPUTS; j++)
            if (first + j < n) sums[j] = fmaf(value, weight[size_t(first + j) * k + i], sums[j]);
    }
#pragma unroll
    for (int j = 0; j < OUTPUTS; j++) {
        const float sum = warp_sum(sums[j]);
        if (lane_of_thread() != j || first + j >= n) continue;
        const size_t at = size_t(row) * n + first + j;
        const float value = sum + bias[first + j];
        if (z) z[at] = value;
        y[at] = activate(activation, value);
    }
}

// dx[m, k] (+)= dz[m, n]·weight[n, k], a thread for one of them. Grid: k / 256, rows.
KERNEL(256) narrow_input_gradient(const float* dz, const float* weight, int m, int n, int k, int accumulate, Real* dx) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= k) return;
    for (int row = blockIdx.y; row < m; row += gridDim.y) {
        const size_t at = size_t(row) * k + column;
        float sum = accumulate ? to_float(dx[at]) : 0.0f;
        for (int j = 0; j < n; j++) sum = fmaf(dz[size_t(row) * n + j], weight[size_t(j) * k + column], sum);
        dx[at] = from_float<Real>(sum);
    }
}

// partial[slice, n, k] = dz[m, n]ᵀ·x[m, k] over a slice of the rows, a thread for four outputs of a column; `sum_slices` adds
// them up. Grid: k / 256, slices, n / 4.
KERNEL(256) narrow_weight_gradient(const float* dz, const Real* x, int m, int n, int k, int slice, float* partial) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x, output = blockIdx.z * OUTPUTS;
    if (column >= k) return;
    const int first = blockIdx.y * slice, last = min(first + slice, m);
    float sums[OUTPUTS] = {};
    for (int row = first; row < last; row++) {
        const float value = to_float(x[size_t(row) * k + column]);
#pragma unroll
        for (int j = 0; j < OUTPUTS; j++)
            if (output + j < n) sums[j] = fmaf(dz[size_t(row) * n + output + j], value, sums[j]);
    }
#pragma unroll
    for (int j = 0; j < OUTPUTS; j++)
        if (output + j < n) partial[(size_t(blockIdx.y) * n + output + j) * k + column] = sums[j];
}
