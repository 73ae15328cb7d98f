// A tile of a product in f32, for parity with the CPU: every sum is one chain of fused multiply-adds in the order of k.
//
// A block makes ROWS × COLUMNS sums, a thread M × N of them, in steps of 16 k that lie in shared memory in lines of one k.
// The next step is on its way in registers while one is multiplied. A thread's rows and columns come in fours that lie
// 4·(threads of that side) apart, so that a warp reads neighbouring fours.
#pragma once
#include "gemm_tile.cuh"

namespace gemm {

// One operand's part of a step: SIZE of its m (or n). Any size, any alignment: neighbouring threads load neighbouring elements.
template <Major MAJOR, int SIZE> struct Gathered {
    static constexpr int STEP = 16;
    static constexpr int PITCH = SIZE + 4; // of shared memory's lines: keeps fours aligned, and spreads one m over the banks
    static constexpr int LENGTH = STEP * PITCH;
    static constexpr int LINE = MAJOR == Major::K ? STEP : SIZE;
    static constexpr int LINES = BLOCK / LINE, ROUNDS = SIZE * STEP / BLOCK;

    const float* from; // this thread's first element, at the next k to be loaded
    int line, lines, column, columns; // its place in the operand, and where that ends
    int width;
    float values[ROUNDS];

    __device__ __forceinline__ Gathered(const Operand<float>& operand, int start, int first, int last) {
        constexpr bool k_major = MAJOR == Major::K;
        line = (k_major ? start : first) + threadIdx.x / LINE;
        lines = k_major ? operand.count : last;
        column = (k_major ? first : start) + threadIdx.x % LINE;
        columns = k_major ? last : operand.count;
        width = operand.width;
        from = operand.data + size_t(line) * width + column;
    }
    __device__ __forceinline__ void load() {
#pragma unroll
        for (int round = 0; round < ROUNDS; round++) {
            const bool inside = line + round * LINES < lines && column < columns;
            values[round] = inside ? from[round * LINES * width] : 0.0f;
        }
        if (MAJOR == Major::K) {
            from += STEP;
            column += STEP;
        } else {
            from += size_t(STEP) * width;
            line += STEP;
        }
    }
    __device__ __forceinline__ void store(float* stage) const {
        const int own_line = threadIdx.x / LINE, own_column = threadIdx.x % LINE;
#pragma unroll
        for (int round = 0; round < ROUNDS; round++) {
            const int in_memory = own_line + round * LINES;
            stage[MAJOR == Major::K ? own_column * PITCH + in_memory : in_memory * PITCH + own_column] = values[round];
        }
    }
};

template <int ROWS_, int COLUMNS_, int M, int N> struct FmaTile {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, STEP = 16;
    static constexpr int ACROSS = COLUMNS / N, DOWN = ROWS / M; // threads
    static constexpr int STAGE = Gathered<Major::K, ROWS>::LENGTH + Gathered<Major::K, COLUMNS>::LENGTH;
    static constexpr int SHARED_BYTES = 2 * STAGE * sizeof(float); // that the launcher gives (limbeck::ops::linear::cuda::plan)
    static_assert(ACROSS * DOWN == BLOCK && M % 4 == 0 && N % 4 == 0, "a thread for every M × N sums");

    template <Major A, Major B, bool PACKED, class Epilogue>
    __device__ static void run(const Product<float>& product, Place tile, const Epilogue& epilogue) {
        SHARED(float, stages);
        Gathered<A, ROWS> a(product.a, tile.row * ROWS, product.first, product.last);
        Gathered<B, COLUMNS> b(product.b, tile.column * COLUMNS, product.first, product.last);
        const int row = threadIdx.x / ACROSS * 4, column = threadIdx.x % ACROSS * 4;
        float sums[M][N] = {};
        a.load();
        b.load();
        int stage = 0;
        for (int k = product.first; k < product.last; k += STEP) {
            float *of_a = stages + stage * STAGE, *of_b = of_a + a.LENGTH;
            a.store(of_a);
            b.store(of_b);
            __syncthreads(); // this stage is complete, and the other has been read
            a.load();
            b.load();
#pragma unroll
            for (int depth = 0; depth < STEP; depth++) {
                float left[M], right[N];
                fours<M, DOWN>(left, of_a + depth * a.PITCH + row);
                fours<N, ACROSS>(right, of_b + depth * b.PITCH + column);
#pragma unroll
                for (int i = 0; i < M; i++)
#pragma unroll
                    for (int j = 0; j < N; j++) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
            }
            stage ^= 1;
        }
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < N; j += 4) {
                const int to_row = tile.row * ROWS + row + i / 4 * DOWN * 4 + i % 4;
                const int to_column = tile.column * COLUMNS + column + j * ACROSS;
                float four[4] = {sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]};
                if (to_row < product.a.count && to_column < product.b.count) epilogue(to_row, to_column, four);
            }
    }

    template <int COUNT, int THREADS> __device__ __forceinline__ static void fours(float (&into)[COUNT], const float* stage) {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4) {
            const float4 four = *reinterpret_cast<const float4*>(stage + i * THREADS);
            into[i] = four.x, into[i + 1] = four.y, into[i + 2] = four.z, into[i + 3] = four.w;
        }
    }
};

} // namespace gemm
