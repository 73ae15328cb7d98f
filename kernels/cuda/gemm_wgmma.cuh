// Tiles of products on Hopper's tensor cores: wgmma, sums in float.
//
// The schedule is CUTLASS's ping-pong: persistent blocks, warp-specialized. A block stays on its multiprocessor and works through
// tiles of 128 × 128. Of its three warpgroups one thread of the first is the producer: it loads boxes of 64 × 64 elements, by TMA,
// into a pipeline of STAGES of 64 k in shared memory. The other two warpgroups are consumers, a tile each in turn, 128 sums a
// thread: while one is in its epilogue, the other one's products keep the tensor cores busy, and the producer, which knows nothing
// of tiles' ends, is up to STAGES ahead of both. Each stage has two barriers: `full` when its boxes have come, `empty` when the four
// warps that multiplied it have. A barrier tells one phase from the next, but not from the one after that: so a consumer looks at the
// stages of its tile only when it is its `order`, which the other one hands on when all of its own have come.
//
// A row of a box is 128 bytes, of which the copies exchange chunks of 16 bytes as products expect it (128-byte swizzle: chunk c of
// row r lies at c ^ r % 8, for boxes that begin at multiples of 1024 bytes). A K-major operand has boxes of 64 m (or n) by
// 64 k, an MN-major one 64 k by 64 m: the matrix, and so its map, is the same.
#pragma once
#include "gemm_epilogue.cuh"
#include "gemm_tile.cuh"
#include "hopper.cuh"

namespace gemm {

// What is to be made of a tile.
template <class Epilogue> struct Part {
    const TensorMap *a, *b;
    int row, column;   // of its first sum
    int rows, columns; // where sums end
    int first, steps;  // of k: where it begins, and how many times 64 it takes
    Epilogue epilogue;
};

template <class T, int STAGES_> struct WgmmaTile {
    static constexpr int ROWS = 128, COLUMNS = 128, STAGES = STAGES_;
    static constexpr int THREADS = 3 * WARPGROUP;
    static constexpr int SIDE = 64; // of a box, and the k of a stage
    static constexpr int BOX = SIDE * SIDE * sizeof(T), STAGE = (ROWS + COLUMNS) / SIDE * BOX; // bytes
    static constexpr int ALIGNED = 1024;                                                      // where a swizzle begins anew
    static constexpr int WARPS = WARPGROUP / WARP;                                            // of a warpgroup
    static constexpr int HANDED = 16 * SIDE;                                                  // sums that a warp hands over at once
    static constexpr int SHARED_BYTES =
        ALIGNED + STAGES * STAGE + 2 * WARPS * HANDED * sizeof(float) + 2 * (STAGES + 1) * sizeof(u64); // that the launcher gives

    // A place in the pipeline, and the parity of the phase that its barriers are in.
    struct PipelineState {
        int stage = 0;
        u32 parity = 0;

        __device__ __forceinline__ void skip(int steps) {
            stage += steps;
            parity ^= stage / STAGES & 1;
            stage %= STAGES;
        }
        __device__ __forceinline__ void next() {
            if (++stage == STAGES) stage = 0, parity ^= 1;
        }
    };

    struct Pipeline {
        unsigned char* stages;
        float* handed; // of all warps that multiply
        u64 *full, *empty; // of each stage
        u64* order;        // of each warpgroup that multiplies

        __device__ __forceinline__ explicit Pipeline(unsigned char* memory) {
            stages = memory + (0u - shared_address(memory)) % ALIGNED;
            handed = reinterpret_cast<float*>(stages + STAGES * STAGE);
            full = reinterpret_cast<u64*>(handed + 2 * WARPS * HANDED);
            empty = full + STAGES;
            order = empty + STAGES;
        }
        __device__ __forceinline__ void init() const {
#pragma unroll 1
            for (int stage = 0; stage < STAGES; stage++) {
                mbarrier_init(full + stage, 1);
                mbarrier_init(empty + stage, WARPS);
            }
            for (int group = 0; group < 2; group++) mbarrier_init(order + group, 1);
            mbarrier_init_fence();
        }
    };

    // Makes parts blockIdx.x, blockIdx.x + gridDim.x, … of `parts`, as `work` tells each. All threads of the block.
    template <Major A, Major B, class Work> __device__ __forceinline__ static void run(const Work& work, int parts) {
        SHARED(unsigned char, memory);
        const Pipeline pipeline(memory);
        if (threadIdx.x == 0) pipeline.init();
        __syncthreads();
        // The same for all lanes, as the compiler can see.
        const int group = __shfl_sync(FULL_WARP, int(threadIdx.x) / WARPGROUP, 0);
        if (group == 0) {
            setmaxnreg_dec<40>();
            if (threadIdx.x == 0) produce<A, B>(pipeline, work, parts);
        } else {
            setmaxnreg_inc<232>();
            consume<A, B>(pipeline, work, parts, group - 1);
        }
    }

    template <Major A, Major B, class Work>
    __device__ __forceinline__ static void produce(const Pipeline& pipeline, const Work& work, int parts) {
        PipelineState state;
#pragma unroll 1
        for (int i = blockIdx.x; i < parts; i += gridDim.x) {
            const auto part = work.part(i);
#pragma unroll 1
            for (int step = 0; step < part.steps; step++, state.next()) {
                const int k = part.first + step * SIDE;
                unsigned char* stage = pipeline.stages + state.stage * STAGE;
                u64* full = pipeline.full + state.stage;
                mbarrier_wait(pipeline.empty + state.stage, state.parity ^ 1); // the first time round nothing has to be emptied
                mbarrier_arrive_expect_tx(full, STAGE);
                load_operand<A>(stage, part.a, part.row, k, full);
                load_operand<B>(stage + ROWS / SIDE * BOX, part.b, part.column, k, full);
            }
        }
    }

    template <Major MAJOR>
    __device__ __forceinline__ static void load_operand(unsigned char* to, const TensorMap* map, int m, int k, u64* full) {
        static_assert(ROWS == COLUMNS, "as many boxes of either operand");
#pragma unroll
        for (int box = 0; box < ROWS / SIDE; box++) {
            const int at = m + box * SIDE;
            tma_load(to + box * BOX, map, MAJOR == Major::K ? at : k, MAJOR == Major::K ? k : at, full);
        }
    }

    // A matrix of 16 k in shared memory. Eight rows of its boxes are 1024 bytes, the next eight of m or of k behind them; MN-major,
    // the next 64 m are the next box, and K-major that field is not read.
    template <Major MAJOR> __device__ __forceinline__ static u64 descriptor(u32 box, int k) {
        const u32 start = box + (MAJOR == Major::K ? k * sizeof(T) : k * SIDE * sizeof(T));
        constexpr u64 leading = MAJOR == Major::K ? 1 : BOX >> 4, stride = 1024 >> 4, swizzle_128 = 1;
        return u64((start & 0x3ffff) >> 4) | leading << 16 | stride << 32 | swizzle_128 << 62;
    }

    template <Major A, Major B, class Work>
    __device__ __forceinline__ static void consume(const Pipeline& pipeline, const Work& work, int parts, int group) {
        constexpr bool A_MN = A == Major::MN, B_MN = B == Major::MN;
        PipelineState state;
        int count = 0; // of parts: every other one is this warpgroup's
#pragma unroll 1
        for (int i = blockIdx.x; i < parts; i += gridDim.x, count++) {
            const auto part = work.part(i);
            if (count % 2 != group) {
                state.skip(part.steps);
                continue;
            }
            mbarrier_wait(pipeline.order + group, count / 2 % 2 ^ group ^ 1); // the first part's order nobody hands on
            float sums[2][SIDE] = {};
            int before = 0;
#pragma unroll 1
            for (int step = 0; step < part.steps; step++) {
                mbarrier_wait(pipeline.full + state.stage, state.parity);
                const u32 a = shared_address(pipeline.stages) + state.stage * STAGE, b = a + ROWS / SIDE * BOX;
                wgmma_fence();
#pragma unroll
                for (int k = 0; k < SIDE; k += 16)
#pragma unroll
                    for (int half = 0; half < 2; half++)
                        wgmma_64x128x16<T, A_MN, B_MN>(sums[half], descriptor<A>(a + half * BOX, k), descriptor<B>(b, k));
                wgmma_commit();
                wgmma_wait<1>();
                if (step > 0) release(pipeline.empty + before); // whose products are done
                before = state.stage;
                state.next();
            }
            if (threadIdx.x % WARPGROUP == 0) mbarrier_arrive(pipeline.order + (group ^ 1));
            wgmma_wait<0>();
            if (part.steps > 0) release(pipeline.empty + before);
            finish(sums, part, pipeline.handed + (warp_of_thread() - WARPS) * HANDED);
        }
    }

    __device__ __forceinline__ static void release(u64* empty) {
        if (lane_of_thread() == 0) mbarrier_arrive(empty);
    }

    // Where the four sums from `column` of a row lie, when a warp hands them over: free of conflicts both for the pairs of
    // columns that threads have and for eight neighbours.
    __device__ __forceinline__ static int place(int row, int column) {
        const int four = column / 4;
        return row * SIDE + (four ^ row % 4 * 2 ^ four / 8) * 4;
    }

    // 16 rows of 64 columns: of each eight columns a thread has two, of rows g and g + 8 (lane = 4·g + p).
    __device__ __forceinline__ static void hand_over(float* to, const float* sums) {
        const int g = lane_of_thread() / 4, p = lane_of_thread() % 4;
#pragma unroll
        for (int eight = 0; eight < SIDE / 8; eight++)
#pragma unroll
            for (int below = 0; below < 2; below++) {
                const int column = eight * 8 + p * 2;
                float* at = to + place(g + below * 8, column) + column % 4;
                *reinterpret_cast<float2*>(at) = {sums[eight * 4 + below * 2], sums[eight * 4 + below * 2 + 1]};
            }
    }

    // Each warp's sums go through shared memory of its own, a quarter at a time, so that `epilogue` gets eight neighbouring columns,
    // and stands in the code once.
    template <class Epilogue>
    __device__ __forceinline__ static void finish(const float (&sums)[2][SIDE], const Part<Epilogue>& part, float* handed) {
        const int first = part.row + warp_of_thread() % WARPS * 16;
#pragma unroll 1
        for (int quarter = 0; quarter < 4; quarter++) {
            __syncwarp();
#pragma unroll
            for (int which = 0; which < 4; which++)
                if (which == quarter) hand_over(handed, sums[which / 2] + which % 2 * (SIDE / 2));
            __syncwarp();
#pragma unroll 1
            for (int i = lane_of_thread(); i < HANDED / 8; i += WARP) {
                const int row = i / (SIDE / 8), column = i % (SIDE / 8) * 8;
                const int to_row = first + quarter / 2 * SIDE + row, to_column = part.column + quarter % 2 * SIDE + column;
                if (to_row >= part.rows || to_column >= part.columns) continue;
                const float4 low = *reinterpret_cast<const float4*>(handed + place(row, column));
                const float4 high = *reinterpret_cast<const float4*>(handed + place(row, column + 4));
                float eight[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
                part.epilogue(to_row, to_column, eight);
            }
        }
    }
};

} // namespace gemm
