// Attention in tiles of 16 × 16, by tensor cores (mma.m16n8k16): what the forward and the backward pass are put together from.
//
// A warp has 16 rows of the left operand. Operands lie in shared memory as they do outside, a row a token; rows are `stride`
// elements apart, head size rounded up to 16 and 8 more, so that eight consecutive rows begin in eight different groups of
// four banks and ldmatrix meets no conflict. What is beyond the text or the head is zero. In a fragment of a product, a
// lane has of rows lane / 4 and lane / 4 + 8 columns lane % 4 · 2 and the next of each tile of 8.
#pragma once
#include "attention.cuh"

__device__ __forceinline__ int padded(int head_size) { return (head_size + 15) / 16 * 16; }
__device__ __forceinline__ int tile_stride(int head_size) { return padded(head_size) + 8; }
// The row and the first column of the pair of a lane in a fragment.
__device__ __forceinline__ int fragment_row() { return lane_of_thread() / 4; }
__device__ __forceinline__ int fragment_column() { return lane_of_thread() % 4 * 2; }

// Copies rows of a head, `width` apart, to shared memory: `rows` of them, of which `valid` exist, by all threads of the block.
// Eight threads take a row. Ends with the copies under way.
template <class T>
__device__ __forceinline__ void load_rows(T* shared, int stride, const T* global, int width, int valid, int rows, int head_size) {
    const int columns = padded(head_size), share = threadIdx.x % 8;
    for (int row = threadIdx.x / 8; row < rows; row += blockDim.x / 8) {
        const T* from = global + size_t(row) * width;
        if (head_size % 8 == 0) {
            for (int column = share * 8; column < columns; column += 64) {
                const bool inside = row < valid && column < head_size;
                cp_async_16(shared + row * stride + column, inside ? from + column : global, inside ? 16 : 0);
            }
        } else {
            for (int column = share; column < columns; column += 8)
                shared[row * stride + column] = row < valid && column < head_size ? from[column] : from_float<T>(0.0f);
        }
    }
}

// Copies up to 16 rows from shared memory, by a warp.
template <class T>
__device__ __forceinline__ void store_rows(T* global, int width, const T* shared, int stride, int rows, int head_size) {
    const int share = lane_of_thread() % 8;
    __syncwarp();
    for (int row = lane_of_thread() / 8; row < min(rows, 16); row += WARP / 8) {
        T* to = global + size_t(row) * width;
        const T* from = shared + row * stride;
        if (head_size % 8 == 0) {
            for (int column = share * 8; column < head_size; column += 64) Pack<T>::load(from + column).store(to + column);
        } else {
            for (int column = share; column < head_size; column += 8) to[column] = from[column];
        }
    }
    __syncwarp();
}

template <class T> __device__ __forceinline__ u32 pair_of(float low, float high) {
    return T::HALF ? floats_to_halves(low, high) : floats_to_bf16s(low, high);
}

// A product as a left operand: two tiles of 8 columns are one of 16.
template <class T> __device__ __forceinline__ void to_fragment(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pair_of<T>(left[0], left[1]);
    a[1] = pair_of<T>(left[2], left[3]);
    a[2] = pair_of<T>(right[0], right[1]);
    a[3] = pair_of<T>(right[2], right[3]);
}

// Writes 16 × 16 of a left operand to shared memory.
template <class T> __device__ __forceinline__ void store_fragment(T* shared, int stride, const u32 (&a)[4]) {
    u32* at = reinterpret_cast<u32*>(shared + fragment_row() * stride + fragment_column());
    at[0] = a[0], at[4] = a[2];
    at += 4 * stride; // eight rows of pairs
    at[0] = a[1], at[4] = a[3];
}

// Writes 16 × 16 of a product to shared memory, its upper and its lower eight rows multiplied.
template <class T>
__device__ __forceinline__ void store_product(T* shared, int stride, const float (&d)[2][4], float upper, float lower) {
    u32 a[4];
#pragma unroll
    for (int n = 0; n < 2; n++) {
        a[2 * n] = pair_of<T>(d[n][0] * upper, d[n][1] * upper);
        a[2 * n + 1] = pair_of<T>(d[n][2] * lower, d[n][3] * lower);
    }
    store_fragment(shared, stride, a);
}

// d += a·bᵀ: 16 rows of a, 8 · N of b, of which those from `count` on are of no interest, and `depth` columns of both.
template <class T, int N>
__device__ __forceinline__ void multiply_rows(float (&d)[N][4], const T* a, int a_stride, const T* b, int b_stride, int depth,
                                              int count) {
    const int lane = lane_of_thread();
    a += (lane % 16) * a_stride + lane / 16 * 8;
    b += (lane % 8 + lane / 16 * 8) * b_stride + lane / 8 % 2 * 8;
    for (int k = 0; k < depth; k += 16) {
        u32 left[4];
        ldmatrix_x4(left, a + k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            if (n * 8 >= count) continue;
            u32 right[4];
            ldmatrix_x4(right, b + n * 8 * b_stride + k);
            const u32 first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
            mma_16816<T>(d[n], left, first);
            mma_16816<T>(d[n + 1], left, second);
        }
    }
}

// d += a·b for 16 columns of b, which has 16 · N rows; those from `count` on are zero in a.
template <class T, int N>
__device__ __forceinline__ void multiply_columns(float (&d)[2][4], const u32 (&a)[N][4], const T* b, int stride, int count) {
    const int lane = lane_of_thread();
    b += (lane % 16) * stride + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < N; k++) {
        if (k * 16 >= count) continue;
        u32 right[4];
        ldmatrix_x4_trans(right, b + k * 16 * stride);
        const u32 first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
        mma_16816<T>(d[0], a[k], first);
        mma_16816<T>(d[1], a[k], second);
    }
}

// The scalar product of two rows, by the four lanes that share a row of a fragment.
template <class T> __device__ __forceinline__ float quad_dot(const T* a, const T* b, int n) {
    const int share = lane_of_thread() % 4;
    float sum = 0.0f;
    if (n % 8 == 0) {
        for (int i = share * 8; i < n; i += 32) sum += dot(a + i, b + i, 8);
    } else {
        for (int i = share; i < n; i += 4) sum = fmaf(to_float(a[i]), to_float(b[i]), sum);
    }
    sum += __shfl_xor_sync(FULL_WARP, sum, 1);
    return sum + __shfl_xor_sync(FULL_WARP, sum, 2);
}

// Multiplies probabilities of a fragment by their factors; `query` and `key` are those of the lane's first element.
template <int N> __device__ __forceinline__ void drop(float (&p)[N][4], const Kept& kept, int query, int key, int count) {
#pragma unroll
    for (int n = 0; n < N; n++) {
        if (n / 2 * 16 >= count) continue;
#pragma unroll
        for (int e = 0; e < 4; e++) p[n][e] *= kept.narrow_factor(query + e / 2 * 8, key + n * 8 + e % 2);
    }
}

// What the two rows of a lane amount to so far; `largest` is of scores before they are scaled, and `total` the lane's share.
struct RowSums {
    float largest[2], total[2];

    // Makes scores powers of the largest one so far; `shrink` is what goes before is to be multiplied by. Keys from `count` on
    // do not exist.
    template <int N> __device__ __forceinline__ void add(float (&s)[N][4], float scale, int count, float (&shrink)[2]) {
        const float scale_2 = scale * LOG2_E;
        float top[2] = {largest[0], largest[1]};
#pragma unroll
        for (int n = 0; n < N; n++) {
            if (n / 2 * 16 >= count) continue;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                if (n * 8 + fragment_column() + e % 2 >= count) s[n][e] = -infinity();
                top[e / 2] = fmaxf(top[e / 2], s[n][e]);
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            top[r] = fmaxf(top[r], __shfl_xor_sync(FULL_WARP, top[r], 1));
            top[r] = fmaxf(top[r], __shfl_xor_sync(FULL_WARP, top[r], 2));
            shrink[r] = exp2_fast((largest[r] - top[r]) * scale_2);
            largest[r] = top[r];
            total[r] *= shrink[r];
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            if (n / 2 * 16 >= count) continue;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[n][e] = exp2_fast(fmaf(s[n][e], scale_2, -top[e / 2] * scale_2));
                total[e / 2] += s[n][e];
            }
        }
    }
    // Adds up the shares.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            total[r] += __shfl_xor_sync(FULL_WARP, total[r], 1);
            total[r] += __shfl_xor_sync(FULL_WARP, total[r], 2);
        }
    }
    __device__ __forceinline__ float log(int r, float scale) const { return largest[r] * scale + logf(total[r]); }
};

// A query in the backward pass: its log-sum-exp in powers of two, infinite where there is no query or no key, and its delta.
struct QuerySums {
    float sum, delta;
};

// From q·kᵀ and dcontext·vᵀ to p∘z and ds, in place. `of` and `factor` give what belongs to element e of tile n.
template <int N, class Of, class Factor>
__device__ __forceinline__ void to_slopes(float (&p)[N][4], float (&ds)[N][4], float scale, Of of, Factor factor) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const QuerySums query = of(n, e);
            const float power = exp2_fast(fmaf(p[n][e], scale * LOG2_E, -query.sum)), kept = factor(n, e);
            p[n][e] = power * kept;
            ds[n][e] = power * (ds[n][e] * kept - query.delta);
        }
}

// The factor of what is not dropped out of.
struct NoDropout {
    __device__ __forceinline__ float operator()(int, int) const { return 1.0f; }
};
