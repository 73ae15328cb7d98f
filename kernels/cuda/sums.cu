// Sums over many rows, in two parts and in an order that depends on sizes alone: slices of the rows by themselves, then what the
// slices have left. Atomics would add in the order of arrival, and no run would be like another.
#include "gemm_epilogue.cuh"

// Sums of columns over a slice of the rows: partial[slice, cols]. A lane takes 16 bytes of columns, a warp every eighth row;
// then the warps' sums are added, in order. Grid: columns / (32 · 16 bytes), slices. Shared memory: 256 floats for each of
// the 16 bytes' columns.
KERNEL(256) column_sums(const Real* x, int rows, int cols, int slice, float* partial) {
    constexpr int WIDTH = Pack<Real>::LEN, WARPS = 8;
    SHARED(float, sums);
    const int column = (blockIdx.x * WARP + lane_of_thread()) * WIDTH;
    const int first = blockIdx.y * slice, last = min(first + slice, rows);
    float mine[WIDTH] = {};
    if (column < cols) {
#pragma unroll 4
        for (int row = first + warp_of_thread(); row < last; row += WARPS) {
            float values[WIDTH];
            load_columns(x + size_t(row) * cols + column, cols - column, values);
#pragma unroll
            for (int i = 0; i < WIDTH; i++) mine[i] += values[i];
        }
    }
#pragma unroll
    for (int i = 0; i < WIDTH; i++) sums[(warp_of_thread() * WIDTH + i) * WARP + lane_of_thread()] = mine[i];
    __syncthreads();
    // Warp i adds up column i of each lane.
    const int i = warp_of_thread(), to = column + i;
    if (i >= WIDTH || to >= cols) return;
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) sum += sums[(warp * WIDTH + i) * WARP + lane_of_thread()];
    partial[size_t(blockIdx.y) * cols + to] = sum;
}

// out[i] = (accumulate ? out[i] : 0) + Σ over slices of partial[slice·stride + first + i]. `share` threads, a power of two,
// take a run of slices each, and their sums are added in order: 1 where there are many i, more where there are few and the
// slices are many. Blocks of 256 threads, for 256 / share of i each. Shared memory: a float a thread.
KERNEL(256) sum_slices(const float* partial, u64 first, int slices, u64 stride, u64 len, int share, int accumulate, float* out) {
    SHARED(float, runs);
    const int lanes = blockDim.x / share, lane = threadIdx.x % lanes, run = threadIdx.x / lanes;
    const u64 i = u64(blockIdx.x) * lanes + lane;
    const int of_run = (slices + share - 1) / share, last = min((run + 1) * of_run, slices);
    float sum = 0.0f;
    if (i < len) {
#pragma unroll 4
        for (int slice = run * of_run; slice < last; slice++) sum += partial[slice * stride + first + i];
    }
    runs[threadIdx.x] = sum;
    __syncthreads();
    if (run > 0 || i >= len) return;
    for (int other = 1; other < share; other++) sum += runs[other * lanes + lane];
    out[i] = accumulate ? out[i] + sum : sum;
}
