// Operands of tensor cores on their way: from global memory to shared memory, and from there to the fragments of a warp.
//
// A step of an operand lies in shared memory as it does in global memory: K-major in lines of 32 k, 64 bytes; MN-major in lines
// of one k, 2·SIZE bytes. Lines are made of chunks of 16 bytes, and ldmatrix reads one chunk of eight lines, which must lie
// in eight different eighths of the banks' 128 bytes. So chunk c of line l lies at c ^ (l / 2 % 4) in lines of 64 bytes, two
// of which make 128, and at c ^ (l % 8) in longer ones. What is written at once, neighbouring chunks, is free of conflicts in
// either.
//
// Fragments (PTX ISA, mma.m16n8k16), of lane = 4·g + p: a holds rows g and g + 8 at k = 2p, 2p + 1 and those plus 8; b column
// g at the same k; the sums rows g and g + 8 at columns 2p, 2p + 1. One ldmatrix.x4 reads 16 × 16 of a, or of two b side by
// side; .trans where an operand is MN-major.
#pragma once
#include "gemm_tile.cuh"

namespace gemm {

constexpr int STEP = 32; // k of a stage
constexpr int CHUNK = 8; // elements of 16 bytes

// Eight elements that begin anywhere: the sixteen bytes, or twice sixteen, that they lie in. What else lies there may be
// anything, but can be read: the memory of an allocation is a multiple of 16 bytes.
template <class T> struct Straddling {
    uint4 low, high;

    // How far into sixteen bytes an element lies.
    __device__ __forceinline__ static int skip(const T* from) { return int(reinterpret_cast<size_t>(from) % 16 / sizeof(T)); }

    // The first `count` of them, or all if it is more.
    __device__ __forceinline__ static Straddling load(const T* from, int count) {
        const uint4* at = reinterpret_cast<const uint4*>(from - skip(from));
        const bool both = skip(from) + min(count, CHUNK) > CHUNK;
        return {at[0], both ? at[1] : uint4{}};
    }
    // Moved to where they belong; zeros from `count` on.
    __device__ __forceinline__ void store(T* to, int skip, int count) const {
        u32 words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (int i = 0; i < 6; i++) words[i] = skip & 4 ? words[i + 2] : words[i];
#pragma unroll
        for (int i = 0; i < 5; i++) words[i] = skip & 2 ? words[i + 1] : words[i];
#pragma unroll
        for (int i = 0; i < 4; i++) words[i] = skip & 1 ? words[i] >> 16 | words[i + 1] << 16 : words[i];
        if (count < CHUNK) {
#pragma unroll
            for (int i = 0; i < 4; i++) words[i] &= (2 * i < count ? 0xffffu : 0u) | (2 * i + 1 < count ? 0xffff0000u : 0u);
        }
        *reinterpret_cast<uint4*>(to) = {words[0], words[1], words[2], words[3]};
    }
};

// One operand's part of a stage: SIZE of its m (or n), STEP of k. PACKED: its rows in memory begin at multiples of 16 bytes,
// so that cp.async brings them; else they come by way of registers.
template <class T, Major MAJOR, int SIZE, bool PACKED> struct Staged {
    static constexpr int LENGTH = SIZE * STEP;
    static constexpr int LINE = MAJOR == Major::K ? STEP : SIZE;
    static constexpr int CHUNKS = LINE / CHUNK;  // of a line
    static constexpr int LINES = BLOCK / CHUNKS; // that the block copies at once: a multiple of 8, so that swizzles repeat
    static constexpr int ROUNDS = LENGTH / CHUNK / BLOCK;

    const T* from; // this thread's first chunk, at the next k to be copied
    int line, lines, column, columns; // its place in the operand, and where that ends
    int width;
    int to;   // its place in a stage
    int left; // columns from there on, of what is under way
    Straddling<T> under_way[PACKED ? 1 : ROUNDS];

    __device__ __forceinline__ static int place(int line, int chunk) {
        return line * LINE + (chunk ^ (CHUNKS == 4 ? line / 2 % 4 : line % 8)) * CHUNK;
    }

    __device__ __forceinline__ Staged(const Operand<T>& operand, int start, int first, int last) {
        const int own_line = threadIdx.x / CHUNKS, own_chunk = threadIdx.x % CHUNKS;
        constexpr bool k_major = MAJOR == Major::K;
        line = (k_major ? start : first) + own_line;
        lines = k_major ? operand.count : last;
        column = (k_major ? first : start) + own_chunk * CHUNK;
        columns = k_major ? last : operand.count;
        width = operand.width;
        from = operand.data + size_t(line) * width + column;
        to = place(own_line, own_chunk);
    }

    // Begins to copy the next step, with zeros where the operand has ended, and ends it: `stage` is the same.
    __device__ __forceinline__ void fetch(T* stage) {
        left = columns - column;
#pragma unroll
        for (int round = 0; round < ROUNDS; round++) {
            const bool inside = line + round * LINES < lines && left > 0;
            const T* chunk = from + size_t(round * LINES) * width;
            if constexpr (PACKED)
                cp_async_16(stage + to + round * LINES * LINE, chunk, inside ? 16 : 0);
            else
                under_way[round] = inside ? Straddling<T>::load(chunk, left) : Straddling<T>{};
        }
        if (MAJOR == Major::K) {
            from += STEP;
            column += STEP;
        } else {
            from += size_t(STEP) * width;
            line += STEP;
        }
    }
    __device__ __forceinline__ void land(T* stage) const {
        if constexpr (!PACKED) {
#pragma unroll
            for (int round = 0; round < ROUNDS; round++) {
                // A step further, elements lie as these did: a step is a multiple of 16 bytes.
                const int skip = Straddling<T>::skip(from + size_t(round * LINES) * width);
                under_way[round].store(stage + to + round * LINES * LINE, skip, left);
            }
        }
    }
};

// Sixteen m (or n) by sixteen k of a stage, from m `start` and k `depth`: as a fragment of a, or as two of b.
template <class Operand, Major MAJOR, bool A, class T>
__device__ __forceinline__ void load_fragment(u32 (&fragment)[4], const T* stage, int start, int depth) {
    const int lane = lane_of_thread();
    // Which of the four 8 × 8 this lane names a line of: two orders, (m, k) = 00 10 01 11 for a and 00 01 10 11 for b.
    const int slow = lane / 16 * 8, fast = lane / 8 % 2 * 8, m = A ? fast : slow, k = A ? slow : fast;
    if (MAJOR == Major::K)
        ldmatrix_x4(fragment, stage + Operand::place(start + m + lane % 8, (depth + k) / CHUNK));
    else
        ldmatrix_x4_trans(fragment, stage + Operand::place(depth + k + lane % 8, (start + m) / CHUNK));
}

} // namespace gemm
