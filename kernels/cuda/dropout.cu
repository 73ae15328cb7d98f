// Dropout by rows, a warp a row: kept or not is a hash of the text, the place and the index within the text, as on the CPU.
#include "prelude.cuh"

// The key of a text at one place of the network (limbeck::ops::dropout::DropoutSite::key), `step` being the part that the step has. Kernels
// read it from memory, so that steps differ in no argument.
__device__ __forceinline__ u64 key_of(u64 step, u64 sample, u64 place) { return random_mix(random_mix(step ^ sample) ^ place); }

KERNEL(256) dropout_keys(const u64* samples, const u64* step, u64 place, int texts, u64* keys) {
    const int text = blockIdx.x * blockDim.x + threadIdx.x;
    if (text < texts) keys[text] = key_of(*step, samples[text], place);
}

// Rows are tokens, or texts where `text_of_token` is null.
KERNEL(256) dropout(const Real* x, const int* text_of_token, const int* offsets, const u64* samples, const u64* step, u64 place,
                    u32 threshold, float factor, int rows, int cols, Real* y) {
    const int row = blockIdx.x * (blockDim.x / WARP) + warp_of_thread();
    if (row >= rows) return;
    const int text = text_of_token ? text_of_token[row] : row;
    const Dropout dropout{key_of(*step, samples[text], place), threshold, factor};
    const u32 first = text_of_token ? u32(row - offsets[text]) * u32(cols) : 0;
    const size_t start = size_t(row) * cols;
    for (int i = lane_of_thread(); i < cols; i += WARP)
        y[start + i] = from_float<Real>(to_float(x[start + i]) * dropout.keep(first + u32(i)));
}
