// One row a text, from a row a token: the first, or the mean.
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
