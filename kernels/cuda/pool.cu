// One row a text, from a row a token: the first, or the mean. And some rows of many.
#include "prelude.cuh"

// A block a text. Without `offsets`, x has a row a text already.
KERNEL(256) pool_forward(const Real* x, const int* offsets, int mean, int cols, Real* y) {
    const int text = blockIdx.x;
    const int first = offsets ? offsets[text] : text, end = offsets ? offsets[text + 1] : text + 1;
    const int last = mean ? end : first + 1;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
        float sum = 0.0f;
        for (int row = first; row < last; row++) sum += to_float(x[size_t(row) * cols + i]);
        y[size_t(text) * cols + i] = from_float<Real>(sum / (last - first));
    }
}

// A warp a token.
KERNEL(256) pool_backward(const Real* dy, const int* offsets, const int* text_of_token, int mean, int tokens, int cols, Real* dx) {
    const int token = blockIdx.x * (blockDim.x / WARP) + warp_of_thread();
    if (token >= tokens) return;
    const int text = text_of_token[token], first = offsets[text];
    const float share = mean ? 1.0f / (offsets[text + 1] - first) : (token == first ? 1.0f : 0.0f);
    for (int i = lane_of_thread(); i < cols; i += WARP)
        dx[size_t(token) * cols + i] = from_float<Real>(share * to_float(dy[size_t(text) * cols + i]));
}

// y[i] = x[rows[i]]: a warp a row.
KERNEL(256) select_rows(const Real* x, const int* rows, int count, int cols, Real* y) {
    const int row = blockIdx.x * (blockDim.x / WARP) + warp_of_thread();
    if (row >= count) return;
    const Real* from = x + size_t(rows[row]) * cols;
    for (int i = lane_of_thread(); i < cols; i += WARP) y[size_t(row) * cols + i] = from[i];
}

// x[rows[i]] = y[i]: a warp a row, no two of which are one.
KERNEL(256) put_rows(const Real* y, const int* rows, int count, int cols, Real* x) {
    const int row = blockIdx.x * (blockDim.x / WARP) + warp_of_thread();
    if (row >= count) return;
    Real* to = x + size_t(rows[row]) * cols;
    for (int i = lane_of_thread(); i < cols; i += WARP) to[i] = y[size_t(row) * cols + i];
}
