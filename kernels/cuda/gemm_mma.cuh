// A tile of a product on tensor cores: mma.sync m16n8k16, sums in float.
//
// A block of four warps, two by two, makes ROWS × COLUMNS sums, each warp a quarter, in steps of 32 k. Steps come by cp.async
// into a ring of STAGES in shared memory; a warp reads the fragments of the next 16 k while it multiplies those of these.
// Quarters of 64 × 64 need 8 ldmatrix for 32 mma: with 64 × 32 shared memory, and not the tensor cores, would set the pace.
#pragma once
#include "gemm_staged.cuh"

namespace gemm {

template <class T, int ROWS_, int COLUMNS_, int STAGES> struct MmaTile {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_;
    static constexpr int STAGE = (ROWS + COLUMNS) * STEP;           // elements
    static constexpr int SHARED_BYTES = STAGES * STAGE * sizeof(T); // that the launcher gives (limbeck::ops::linear::cuda::plan)
    static constexpr int M = ROWS / 32, N = COLUMNS / 16;           // fragments of a warp
    static_assert(ROWS / 2 * COLUMNS * sizeof(float) <= SHARED_BYTES, "half of the sums lie in the stages' memory at the end");

    struct Fragments {
        u32 a[M][4], b[N / 2][4];
    };

    template <Major A, Major B, bool PACKED, class Epilogue>
    __device__ static void run(const Product<T>& product, Place tile, const Epilogue& epilogue) {
        SHARED(T, stages);
        using StagedA = Staged<T, A, ROWS, PACKED>;
        using StagedB = Staged<T, B, COLUMNS, PACKED>;
        const int row = warp_of_thread() / 2 * (ROWS / 2), column = warp_of_thread() % 2 * (COLUMNS / 2);
        StagedA a(product.a, tile.row * ROWS, product.first, product.last);
        StagedB b(product.b, tile.column * COLUMNS, product.first, product.last);
        float sums[M][N][4] = {};
        Fragments fragments[2];

        const auto fetch = [&](int stage) {
            a.fetch(stages + stage * STAGE);
            b.fetch(stages + stage * STAGE + StagedA::LENGTH);
        };
        const auto land = [&](int stage) {
            a.land(stages + stage * STAGE);
            b.land(stages + stage * STAGE + StagedA::LENGTH);
            cp_async_commit();
        };
        const auto load = [&](Fragments& into, int stage, int depth) {
            const T* of_a = stages + stage * STAGE;
#pragma unroll
            for (int i = 0; i < M; i++) load_fragment<StagedA, A, true>(into.a[i], of_a, row + i * 16, depth);
#pragma unroll
            for (int j = 0; j < N / 2; j++)
                load_fragment<StagedB, B, false>(into.b[j], of_a + StagedA::LENGTH, column + j * 16, depth);
        };

#pragma unroll
        for (int stage = 0; stage < STAGES - 1; stage++) {
            fetch(stage);
            land(stage);
        }
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        load(fragments[0], 0, 0);
        int reading = 0, writing = STAGES - 1;
        for (int k = product.first; k < product.last; k += STEP) {
            fetch(writing); // the stage that everyone has read: of the step before
            load(fragments[1], reading, 16);
            multiply(sums, fragments[0]);
            land(writing);
            writing = reading;
            reading = reading + 1 == STAGES ? 0 : reading + 1;
            cp_async_wait<STAGES - 2>();
            __syncthreads();
            load(fragments[0], reading, 0);
            multiply(sums, fragments[1]);
        }
        cp_async_wait<0>();
        finish(sums, tile, product.a.count, product.b.count, epilogue);
    }

    __device__ __forceinline__ static void multiply(float (&sums)[M][N][4], const Fragments& by) {
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < N; j++) {
                const u32 b[2] = {by.b[j / 2][j % 2 * 2], by.b[j / 2][j % 2 * 2 + 1]};
                mma_16816<T>(sums[i][j], by.a[i], b);
            }
    }

    // Where the four sums from `column` of a row lie, when the block hands them over: again 16 bytes, again without
    // conflicts, both for the fragments' pairs and for eight neighbours.
    __device__ __forceinline__ static int place(int row, int column) {
        const int four = column / 4;
        return row * COLUMNS + (four ^ row % 4 * 2 ^ four / 8 % 2) * 4;
    }

    // Gives `epilogue` the half tile, neighbouring columns to neighbouring threads: WIDTH each.
    template <int WIDTH, class Epilogue>
    __device__ __forceinline__ static void
    hand_over(const float* half, int first_row, int first_column, int rows, int columns, const Epilogue& epilogue) {
#pragma unroll 1
        for (int i = threadIdx.x; i < ROWS / 2 * COLUMNS / WIDTH; i += BLOCK) {
            const int row = i / (COLUMNS / WIDTH), column = i % (COLUMNS / WIDTH) * WIDTH;
            if (first_row + row >= rows || first_column + column >= columns) continue;
            float sums[WIDTH];
            if constexpr (WIDTH == 1) {
                sums[0] = half[place(row, column) + column % 4];
            } else {
#pragma unroll
                for (int j = 0; j < WIDTH; j += 4) {
                    const float4 four = *reinterpret_cast<const float4*>(half + place(row, column + j));
                    sums[j] = four.x, sums[j + 1] = four.y, sums[j + 2] = four.z, sums[j + 3] = four.w;
                }
            }
            epilogue(first_row + row, first_column + column, sums);
        }
    }

    // Sums go through shared memory, half of the rows at a time, so that `epilogue` gets neighbouring columns: 16 bytes' worth, or
    // one by one where rows of the result do not begin at multiples of 16 bytes.
    template <class Epilogue>
    __device__ __forceinline__ static void
    finish(const float (&sums)[M][N][4], Place tile, int rows, int columns, const Epilogue& epilogue) {
        SHARED(float, half);
        const int warp = warp_of_thread(), lane = lane_of_thread();
#pragma unroll 1
        for (int which = 0; which < 2; which++) {
            __syncthreads();
            if (warp / 2 == which) {
#pragma unroll
                for (int i = 0; i < M * 2; i++)
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        const int column = warp % 2 * (COLUMNS / 2) + j * 8 + lane % 4 * 2;
                        float* to = half + place(i * 8 + lane / 4, column) + column % 4;
                        *reinterpret_cast<float2*>(to) = {sums[i / 2][j][i % 2 * 2], sums[i / 2][j][i % 2 * 2 + 1]};
                    }
            }
            __syncthreads();
            const int first_row = tile.row * ROWS + which * (ROWS / 2), first_column = tile.column * COLUMNS;
            if (columns % CHUNK == 0)
                hand_over<CHUNK>(half, first_row, first_column, rows, columns, epilogue);
            else
                hand_over<1>(half, first_row, first_column, rows, columns, epilogue);
        }
    }
};

} // namespace gemm
