// Layer norm, a warp a row: y = (z - mean)·rstd·gamma + beta with z = dropout(x) + residual (see limbeck::ops::norm).
//
// Lanes take eight neighbouring columns at a time, sixteen bytes of them where rows allow it: reading and writing is all the time there
// is. What a lane reads again it has read or written itself.
#include "gemm_epilogue.cuh"

constexpr int EACH = 8;

// Calls `with(column, count)` for the columns of this lane; of EACH columns from there on there are `count`, or all if it is more.
template <class F> __device__ __forceinline__ void each(int cols, F with) {
    for (int i = lane_of_thread() * EACH; i < cols; i += WARP * EACH) with(i, cols - i);
}

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
    each(cols, [&](int i, int count) {
        float values[EACH];
        load_columns(x + start + i, count, values);
        if (residual) {
            float more[EACH];
            load_columns(residual + start + i, count, more);
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                if (keys) values[j] *= dropout.keep(first + u32(i + j));
                // As it is stored: what the backward pass reads is what was normalized.
                values[j] = to_float(from_float<Real>(values[j] + more[j]));
            }
            store_columns(z + start + i, count, values);
        }
#pragma unroll
        for (int j = 0; j < EACH; j++) sum += values[j]; // those that do not exist are zeros
    });
    const Real* read = residual ? z : x;
    const float average = warp_sum(sum) / cols;
    float squares = 0.0f;
    each(cols, [&](int i, int count) {
        float values[EACH];
        load_columns(read + start + i, count, values);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const float d = j < count ? values[j] - average : 0.0f;
            squares += d * d;
        }
    });
    const float scale = rsqrtf(warp_sum(squares) / cols + eps);
    each(cols, [&](int i, int count) {
        float values[EACH], factors[EACH], shifts[EACH];
        load_columns(read + start + i, count, values);
        load_columns(gamma + i, count, factors);
        load_columns(beta + i, count, shifts);
#pragma unroll
        for (int j = 0; j < EACH; j++) values[j] = (values[j] - average) * scale * factors[j] + shifts[j];
        store_columns(y + start + i, count, values);
    });
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
    // Gradients of what was normalized, and that itself.
    const auto load = [&](int i, int count, float(&g)[EACH], float(&n)[EACH]) {
        float factors[EACH];
        load_columns(dy + start + i, count, g);
        load_columns(z + start + i, count, n);
        load_columns(gamma + i, count, factors);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            g[j] *= factors[j]; // zero where there is no column
            n[j] = (n[j] - average) * scale;
        }
    };
    float sum = 0.0f, product = 0.0f;
    each(cols, [&](int i, int count) {
        float g[EACH], n[EACH];
        load(i, count, g, n);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            sum += g[j];
            product += g[j] * n[j];
        }
    });
    const float of_g = warp_sum(sum) / cols, of_gn = warp_sum(product) / cols;
    each(cols, [&](int i, int count) {
        float slopes[EACH], n[EACH];
        load(i, count, slopes, n);
#pragma unroll
        for (int j = 0; j < EACH; j++) slopes[j] = scale * (slopes[j] - of_g - n[j] * of_gn);
        store_columns(dz + start + i, count, slopes);
        if (!keys) return;
#pragma unroll
        for (int j = 0; j < EACH; j++) slopes[j] *= dropout.keep(first + u32(i + j));
        store_columns(dx + start + i, count, slopes);
    });
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
