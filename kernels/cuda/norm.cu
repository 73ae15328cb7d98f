// Layer norm, a warp a row: y = (z - mean)·rstd·gamma + beta with z = dropout(x) + residual (see limbeck::ops::norm).
#include "prelude.cuh"

// The rows' place of dropout, if there is one: rows are tokens, or texts where `text_of_token` is null.
__device__ __forceinline__ Dropout dropout_of(const u64* keys, const int* text_of_token, u32 threshold, float factor, int row) {
    return Dropout{keys ? keys[text_of_token ? text_of_token[row] : row] : 0, threshold, factor};
}

// The index within its text of a row's first element.
__device__ __forceinline__ u32 first_index(const int* text_of_token, const int* offsets, int row, int cols) {
    return text_of_token ? u32(row - offsets[text_of_token[row]]) * u32(cols) : 0;
}

// z = dropout(x) + residual. `residual` and `z` are null together: then z is x. `keys` is null where nothing is dropped.
KERNEL(256) norm_forward(const Real* x, const u64* keys, const int* text_of_token, const int* offsets, u32 threshold, float factor,
                         const Real* residual, const float* gamma, const float* beta, float eps, int rows, int cols, Real* z, Real* y,
                         float* mean, float* rstd) {
    const int row = blockIdx.x * (blockDim.x / WARP) + warp_of_thread();
    if (row >= rows) return;
    const Dropout dropout = dropout_of(keys, text_of_token, threshold, factor, row);
    const u32 first = first_index(text_of_token, offsets, row, cols);
    const size_t start = size_t(row) * cols;
    float sum = 0.0f;
    for (int i = lane_of_thread(); i < cols; i += WARP) {
        float value = to_float(x[start + i]);
        if (residual) {
            if (keys) value *= dropout.keep(first + u32(i));
            // As it is stored: what the backward pass reads is what was normalized.
            const Real stored = from_float<Real>(value + to_float(residual[start + i]));
            z[start + i] = stored;
            value = to_float(stored);
        }
        sum += value;
    }
    const Real* read = residual ? z : x;
    const float average = warp_sum(sum) / cols;
    float squares = 0.0f;
    for (int i = lane_of_thread(); i < cols; i += WARP) {
        const float d = to_float(read[start + i]) - average;
        squares += d * d;
    }
    const float scale = rsqrtf(warp_sum(squares) / cols + eps);
    for (int i = lane_of_thread(); i < cols; i += WARP)
        y[start + i] = from_float<Real>((to_float(read[start + i]) - average) * scale * gamma[i] + beta[i]);
    if (lane_of_thread() == 0) mean[row] = average, rstd[row] = scale;
}

// dz = rstd·(g - mean(g) - n·mean(g·n)) with n = (z - mean)·rstd and g = dy·gamma; dx = dropout(dz), null where nothing was dropped.
KERNEL(256) norm_backward(const Real* dy, const Real* z, const u64* keys, const int* text_of_token, const int* offsets, u32 threshold,
                          float factor, const float* gamma, const float* mean, const float* rstd, int rows, int cols, Real* dx, Real* dz) {
    const int row = blockIdx.x * (blockDim.x / WARP) + warp_of_thread();
    if (row >= rows) return;
    const Dropout dropout = dropout_of(keys, text_of_token, threshold, factor, row);
    const u32 first = first_index(text_of_token, offsets, row, cols);
    const size_t start = size_t(row) * cols;
    const float average = mean[row], scale = rstd[row];
    float sum = 0.0f, product = 0.0f;
    for (int i = lane_of_thread(); i < cols; i += WARP) {
        const float g = to_float(dy[start + i]) * gamma[i];
        sum += g;
        product += g * (to_float(z[start + i]) - average) * scale;
    }
    const float of_g = warp_sum(sum) / cols, of_gn = warp_sum(product) / cols;
    for (int i = lane_of_thread(); i < cols; i += WARP) {
        const float n = (to_float(z[start + i]) - average) * scale;
        const float slope = scale * (to_float(dy[start + i]) * gamma[i] - of_g - n * of_gn);
        dz[start + i] = from_float<Real>(slope);
        if (keys) dx[start + i] = from_float<Real>(slope * dropout.keep(first + u32(i)));
    }
}

// Sums over a slice of the rows, of dy·n and of dy, a thread a column: partial[slice] = [dgamma, dbeta]. `sum_slices` adds them up.
KERNEL(256) norm_parameters(const Real* dy, const Real* z, const float* mean, const float* rstd, int rows, int cols, int slice_rows,
                            float* partial) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= cols) return;
    const int first = blockIdx.y * slice_rows, last = min(first + slice_rows, rows);
    float of_gamma = 0.0f, of_beta = 0.0f;
    for (int row = first; row < last; row++) {
        const size_t i = size_t(row) * cols + column;
        const float d = to_float(dy[i]);
        of_gamma += d * (to_float(z[i]) - mean[row]) * rstd[row];
        of_beta += d;
    }
    float* sums = partial + size_t(blockIdx.y) * 2 * cols;
    sums[column] = of_gamma;
    sums[cols + column] = of_beta;
}
