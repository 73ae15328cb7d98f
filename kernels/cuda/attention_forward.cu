// Attention, forward: context = dropout(softmax(scale · q·kᵀ))·v for a head of a text, and the log-sum-exp of each row.
//
// Up to 32, 64 or 128 tokens: a block takes a head of a text, which lies in shared memory as a whole ([queries | keys | values],
// each of 32, 64 or 128 rows), and a warp 16 of its queries: their scores with all keys stay in registers, become
// probabilities there and then, rounded to Real, the left operand of the second product. The context leaves through the rows
// that its queries came in, so that rows are written in pieces of 16 bytes.
//
// Longer texts: a block takes 64 queries, and keys and values pass in tiles of 64, of which the next is on its way while one is
// worked on ([queries | keys, values | keys, values]); sums are rescaled when a larger score is met (Milakov and
// Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135).
#include "attention_mma.cuh"

// What all kernels here are called with.
template <class T> struct Forward {
    const T *q, *k, *v;
    float scale;
    T* context;
    float* sums;

    // Those of a warp's 16 queries, from `query` on.
    __device__ __forceinline__ void store_sums(const TextHead& at, const RowSums& of, int query) const {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int row = query + fragment_row() + r * 8;
            if (lane_of_thread() % 4 == 0 && row < at.len) sums[at.sum(at.first + row)] = of.log(r, scale);
        }
    }
};

template <class T, int KEYS>
__device__ __forceinline__ void forward_text(const Forward<T>& of, const TextHead& at, const Kept& kept) {
    SHARED(T, shared);
    const int stride = tile_stride(at.head_size), depth = padded(at.head_size), rows = padded(at.len), width = at.width();
    T *queries = shared, *keys = queries + KEYS * stride, *values = keys + KEYS * stride;
    load_rows(queries, stride, of.q + at.token(0), width, at.len, rows, at.head_size);
    load_rows(keys, stride, of.k + at.token(0), width, at.len, rows, at.head_size);
    cp_async_commit();
    load_rows(values, stride, of.v + at.token(0), width, at.len, rows, at.head_size);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();

    const int query = warp_of_thread() * 16;
    const bool active = query < at.len;
    T* own = queries + query * stride;
    float s[KEYS / 8][4] = {};
    RowSums sums{{-infinity(), -infinity()}, {0.0f, 0.0f}};
    u32 p[KEYS / 16][4];
    if (active) {
        float shrink[2];
        multiply_rows<T>(s, own, stride, keys, stride, depth, at.len);
        sums.add(s, of.scale, at.len, shrink);
        sums.finish();
        if (kept.on) drop(s, kept, query + fragment_row(), fragment_column(), at.len);
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) to_fragment<T>(p[k], s[2 * k], s[2 * k + 1]);
    }
    cp_async_wait<0>();
    __syncthreads();
    if (!active) return;
    of.store_sums(at, sums, query);
    for (int column = 0; column < depth; column += 16) {
        float context[2][4] = {};
        multiply_columns<T>(context, p, values + column, stride, at.len);
        store_product(own + column, stride, context, 1.0f / sums.total[0], 1.0f / sums.total[1]);
    }
    store_rows(of.context + at.token(query), width, own, stride, at.len - query, at.head_size);
}

template <class T, int HEAD>
__device__ __forceinline__ void forward_tile(const Forward<T>& of, const TextHead& at, const Kept& kept, int first) {
    constexpr int TILE = 64, STEP = 32; // keys in shared memory, and in registers
    SHARED(T, shared);
    if (first >= at.len) return; // one of those that fill up the list
    const int stride = tile_stride(at.head_size), depth = padded(at.head_size), width = at.width();
    T *queries = shared, *own = queries + warp_of_thread() * 16 * stride;
    const auto stage = [&](int key) { return shared + (1 + key / TILE % 2 * 2) * TILE * stride; };
    const auto load = [&](int key) {
        if (key < at.len) {
            load_rows(stage(key), stride, of.k + at.token(key), width, at.len - key, TILE, at.head_size);
            load_rows(stage(key) + TILE * stride, stride, of.v + at.token(key), width, at.len - key, TILE, at.head_size);
        }
        cp_async_commit();
    };
    load_rows(queries, stride, of.q + at.token(first), width, at.len - first, TILE, at.head_size);
    load(0);
    const int query = first + warp_of_thread() * 16;
    RowSums sums{{-infinity(), -infinity()}, {0.0f, 0.0f}};
    float context[HEAD / 16][2][4] = {};
    for (int key = 0; key < at.len; key += TILE) {
        load(key + TILE);
        cp_async_wait<1>();
        __syncthreads();
#pragma unroll 1
        for (int step = 0; step < min(TILE, at.len - key); step += STEP) {
            const T *keys = stage(key) + step * stride, *values = keys + TILE * stride;
            float s[STEP / 8][4] = {}, shrink[2];
            u32 p[STEP / 16][4];
            const int count = at.len - key - step;
            multiply_rows<T>(s, own, stride, keys, stride, depth, STEP);
            sums.add(s, of.scale, count, shrink);
            if (kept.on) drop(s, kept, query + fragment_row(), key + step + fragment_column(), count);
#pragma unroll
            for (int k = 0; k < STEP / 16; k++) to_fragment<T>(p[k], s[2 * k], s[2 * k + 1]);
#pragma unroll
            for (int c = 0; c < HEAD / 16; c++) {
                if (c * 16 >= depth) continue;
#pragma unroll
                for (int e = 0; e < 8; e++) context[c][e / 4][e % 4] *= shrink[e / 2 % 2];
                multiply_columns<T>(context[c], p, values + c * 16, stride, STEP);
            }
        }
        __syncthreads();
    }
    if (query >= at.len) return;
    sums.finish();
    of.store_sums(at, sums, query);
#pragma unroll
    for (int c = 0; c < HEAD / 16; c++)
        if (c * 16 < depth) store_product(own + c * 16, stride, context[c], 1.0f / sums.total[0], 1.0f / sums.total[1]);
    store_rows(of.context + at.token(query), width, own, stride, at.len - query, at.head_size);
}

// `texts` are those of up to 32 tokens; a block for each and each head. `keys` is null where nothing is dropped.
KERNEL(64) attention_forward_32(const Real* q, const Real* k, const Real* v, const int* offsets, const int* texts, int first,
                                int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                Real* context, float* sums) {
    const TextHead at(offsets, texts[first + blockIdx.x / heads], blockIdx.x % heads, heads, head_size);
    forward_text<Real, 32>({q, k, v, scale, context, sums}, at, {keys, threshold, factor, at});
}

// The same for up to 64 tokens.
KERNEL(128) attention_forward_64(const Real* q, const Real* k, const Real* v, const int* offsets, const int* texts, int first,
                                 int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                 Real* context, float* sums) {
    const TextHead at(offsets, texts[first + blockIdx.x / heads], blockIdx.x % heads, heads, head_size);
    forward_text<Real, 64>({q, k, v, scale, context, sums}, at, {keys, threshold, factor, at});
}

// The same for up to 128 tokens.
KERNEL(256) attention_forward_128(const Real* q, const Real* k, const Real* v, const int* offsets, const int* texts, int first,
                                  int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                  Real* context, float* sums) {
    const TextHead at(offsets, texts[first + blockIdx.x / heads], blockIdx.x % heads, heads, head_size);
    forward_text<Real, 128>({q, k, v, scale, context, sums}, at, {keys, threshold, factor, at});
}

// Texts of any length and heads of up to 64: `tiles` are pairs of a text and the first of 64 of its queries.
KERNEL(128) attention_forward_tiles_64(const Real* q, const Real* k, const Real* v, const int* offsets, const int* tiles,
                                       int first, int heads, int head_size, float scale, const u64* keys, u32 threshold,
                                       float factor, Real* context, float* sums) {
    const int* tile = tiles + first + blockIdx.x / heads * 2;
    const TextHead at(offsets, tile[0], blockIdx.x % heads, heads, head_size);
    forward_tile<Real, 64>({q, k, v, scale, context, sums}, at, {keys, threshold, factor, at}, tile[1]);
}

// The same for heads of up to 128.
KERNEL(128) attention_forward_tiles_128(const Real* q, const Real* k, const Real* v, const int* offsets, const int* tiles,
                                        int first, int heads, int head_size, float scale, const u64* keys, u32 threshold,
                                        float factor, Real* context, float* sums) {
    const int* tile = tiles + first + blockIdx.x / heads * 2;
    const TextHead at(offsets, tile[0], blockIdx.x % heads, heads, head_size);
    forward_tile<Real, 128>({q, k, v, scale, context, sums}, at, {keys, threshold, factor, at}, tile[1]);
}
