// Embedding tables: rows are gathered and summed, and gradients of rows are summed in the order of the tokens.
//
// No two blocks add to one row, and nothing is added atomically, so that a gradient is the same bits in each run. The host sorts
// the tokens by the row that they read and cuts them into chunks of at most 64; a row of one chunk is written by the chunk's
// block, the sums of other chunks are kept apart and added up in their order. There are as many chunks as that many tokens can have;
// those that are not needed have no tokens.
#include "prelude.cuh"

// Up to three tables; those that are not there are null.
KERNEL(256) gather(const float* words, const u32* word, const float* positions, const u32* position, const float* types, const u32* type,
                   int tokens, int cols, Real* y) {
    const int token = blockIdx.x * (blockDim.x / WARP) + warp_of_thread();
    if (token >= tokens) return;
    const float* first = words + size_t(word[token]) * cols;
    const float* second = positions ? positions + size_t(position[token]) * cols : nullptr;
    const float* third = types ? types + size_t(type[token]) * cols : nullptr;
    for (int i = lane_of_thread(); i < cols; i += WARP) {
        float sum = first[i];
        if (second) sum += second[i];
        if (third) sum += third[i];
        y[size_t(token) * cols + i] = from_float<Real>(sum);
    }
}

// Chunk: the row, the chunk's tokens `order[first..last]`, and the place of its sum among `partial`, or -1 to write the row.
struct Chunk {
    int row, first, last, place;
};

KERNEL(256) scatter_chunks(const Real* dy, const u32* order, const Chunk* chunks, int cols, int accumulate, float* table, float* partial) {
    const Chunk chunk = chunks[blockIdx.x];
    if (chunk.first == chunk.last) return;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
        float sum = 0.0f;
        for (int k = chunk.first; k < chunk.last; k++) sum += to_float(dy[size_t(order[k]) * cols + i]);
        if (chunk.place < 0) {
            float* to = table + size_t(chunk.row) * cols + i;
            *to = accumulate ? *to + sum : sum;
        } else {
            partial[size_t(chunk.place) * cols + i] = sum;
        }
    }
}

// Rows of several chunks: the sums `partial[first..last]` of each.
KERNEL(256) scatter_sums(const float* partial, const Chunk* rows, int cols, int accumulate, float* table) {
    const Chunk row = rows[blockIdx.x];
    if (row.first == row.last) return;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
        float* to = table + size_t(row.row) * cols + i;
        float sum = accumulate ? *to : 0.0f;
        for (int k = row.first; k < row.last; k++) sum += partial[size_t(k) * cols + i];
        *to = sum;
    }
}
