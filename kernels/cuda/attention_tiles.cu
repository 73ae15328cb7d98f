// Attention, backward, of texts of any length, in two passes that each write what no other block writes.
//
// Queries first: a block takes 64 of them and computes their deltas and dq, while keys and values pass in tiles of 32
// ([queries | dcontext | two stages of keys, values]). Then keys: a block takes 64 and computes their dk and dv, while queries
// pass with their log-sum-exps and deltas ([keys | values | two stages of queries, dcontext | two stages of sums, deltas]);
// scores are computed transposed there, a warp 16 keys, so that p∘z and ds are left operands as they are. A tile is on its way
// while another is worked on. Probabilities are computed twice, and nothing is added up in memory: the result does not depend
// on the order of blocks. See attention_backward.cu for the formulas.
#include "attention_mma.cuh"

// Rows of a block, rows of a tile that passes.
constexpr int ROWS = 64, STEP = 32;

// What the kernels here are called with.
template <class T> struct Operands {
    const T *q, *k, *v;
    float scale;
    const float* sums;
    const T* dcontext;
};

// Two matrices of a text of which a block has rows, and two of which tiles pass; in shared memory.
template <class T> struct Passing {
    T *first, *second; // the block's rows
    T* stages;         // two of STEP rows of either matrix
    int stride;

    __device__ __forceinline__ Passing(T* shared, int head_size)
        : first(shared), second(shared + ROWS * tile_stride(head_size)), stages(shared + 2 * ROWS * tile_stride(head_size)),
          stride(tile_stride(head_size)) {}
    // The tile that begins with that row; the other matrix's is STEP rows further.
    __device__ __forceinline__ T* tile(int row) const { return stages + row / STEP % 2 * 2 * STEP * stride; }
    // Behind all of it.
    __device__ __forceinline__ float* behind() const { return reinterpret_cast<float*>(stages + 4 * STEP * stride); }

    __device__ __forceinline__ void load_own(const TextHead& at, const T* a, const T* b, int row) const {
        load_rows(first, stride, a + at.token(row), at.width(), at.len - row, ROWS, at.head_size);
        load_rows(second, stride, b + at.token(row), at.width(), at.len - row, ROWS, at.head_size);
    }
    // The last of a thread's copies; there is one to wait for even where there is no tile.
    __device__ __forceinline__ void load_tile(const TextHead& at, const T* a, const T* b, int row) const {
        if (row < at.len) {
            load_rows(tile(row), stride, a + at.token(row), at.width(), at.len - row, STEP, at.head_size);
            load_rows(tile(row) + STEP * stride, stride, b + at.token(row), at.width(), at.len - row, STEP, at.head_size);
        }
        cp_async_commit();
    }
};

// d += a·b for all columns of a head.
template <class T, int HEAD>
__device__ __forceinline__ void accumulate(float (&d)[HEAD / 16][2][4], const u32 (&a)[STEP / 16][4], const T* b, int stride,
                                           int depth) {
#pragma unroll
    for (int c = 0; c < HEAD / 16; c++)
        if (c * 16 < depth) multiply_columns<T>(d[c], a, b + c * 16, stride, STEP);
}

// Writes a warp's 16 rows, which are tokens from `row` on, by way of `own`.
template <class T, int HEAD>
__device__ __forceinline__ void leave(T* to, const TextHead& at, int row, const float (&d)[HEAD / 16][2][4], float factor, T* own,
                                      int stride) {
    if (row >= at.len) return;
#pragma unroll
    for (int c = 0; c < HEAD / 16; c++)
        if (c * 16 < at.head_size) store_product(own + c * 16, stride, d[c], factor, factor);
    store_rows(to + at.token(row), at.width(), own, stride, at.len - row, at.head_size);
}

// As to_slopes, and into left operands; `query` and `key` are those of element (n, e).
template <class T, class Of, class Query, class Key>
__device__ __forceinline__ void to_operands(u32 (&left)[STEP / 16][4], u32 (&score)[STEP / 16][4], float (&p)[STEP / 8][4],
                                            float (&ds)[STEP / 8][4], float scale, const Kept& kept, Of of, Query query,
                                            Key key) {
    if (!kept.on) to_slopes(p, ds, scale, of, NoDropout{});
    else to_slopes(p, ds, scale, of, [&](int n, int e) { return kept.narrow_factor(query(n, e), key(n, e)); });
#pragma unroll
    for (int k = 0; k < STEP / 16; k++) {
        to_fragment<T>(left[k], p[2 * k], p[2 * k + 1]);
        to_fragment<T>(score[k], ds[2 * k], ds[2 * k + 1]);
    }
}

template <class T, int HEAD>
__device__ __forceinline__ void queries_pass(const Operands<T>& of, const TextHead& at, const Kept& kept, const T* context,
                                             int first, float* deltas, T* dq) {
    SHARED(T, shared);
    if (first >= at.len) return; // one of those that fill up the list
    const Passing<T> in(shared, at.head_size);
    const int stride = in.stride, depth = padded(at.head_size), own = warp_of_thread() * 16 * stride;
    const int row = first + warp_of_thread() * 16 + fragment_row();
    in.load_own(at, of.q, of.dcontext, first);
    in.load_tile(at, of.k, of.v, 0);
    float sum[2], delta[2], d[HEAD / 16][2][4] = {};
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const bool exists = row + r * 8 < at.len;
        const size_t token = at.token(row + r * 8);
        sum[r] = exists ? of.sums[at.sum(at.first + row + r * 8)] * LOG2_E : infinity();
        delta[r] = quad_dot(of.dcontext + token, context + token, exists ? at.head_size : 0);
        if (exists && lane_of_thread() % 4 == 0) deltas[at.sum(at.first + row + r * 8)] = delta[r];
    }
    for (int key = 0; key < at.len; key += STEP) {
        in.load_tile(at, of.k, of.v, key + STEP);
        cp_async_wait<1>();
        __syncthreads();
        const T *keys = in.tile(key), *values = keys + STEP * stride;
        const int count = at.len - key;
        float p[STEP / 8][4] = {}, ds[STEP / 8][4] = {};
        multiply_rows<T>(p, in.first + own, stride, keys, stride, depth, STEP);
        multiply_rows<T>(ds, in.second + own, stride, values, stride, depth, STEP);
        const auto sums = [&](int n, int e) {
            return QuerySums{n * 8 + fragment_column() + e % 2 < count ? sum[e / 2] : infinity(), delta[e / 2]};
        };
        const auto query = [&](int, int e) { return row + e / 2 * 8; };
        const auto column = [&](int n, int e) { return key + n * 8 + fragment_column() + e % 2; };
        u32 left[STEP / 16][4], score[STEP / 16][4];
        to_operands<T>(left, score, p, ds, of.scale, kept, sums, query, column);
        accumulate<T, HEAD>(d, score, keys, stride, depth);
        __syncthreads();
    }
    leave<T, HEAD>(dq, at, first + warp_of_thread() * 16, d, of.scale, in.first + own, stride);
}

template <class T, int HEAD>
__device__ __forceinline__ void keys_pass(const Operands<T>& of, const TextHead& at, const Kept& kept, const float* deltas,
                                          int first, T* dk, T* dv) {
    SHARED(T, shared);
    if (first >= at.len) return;
    const Passing<T> in(shared, at.head_size);
    float* const numbers = in.behind();
    const int stride = in.stride, depth = padded(at.head_size), own = warp_of_thread() * 16 * stride;
    const int row = first + warp_of_thread() * 16 + fragment_row();
    const auto numbers_of = [&](int query) { return numbers + query / STEP % 2 * 2 * STEP; };
    const auto load = [&](int query) {
        const int i = query + threadIdx.x;
        if (threadIdx.x < STEP && query < at.len) {
            numbers_of(query)[threadIdx.x] = i < at.len ? of.sums[at.sum(at.first + i)] * LOG2_E : infinity();
            numbers_of(query)[threadIdx.x + STEP] = i < at.len ? deltas[at.sum(at.first + i)] : 0.0f;
        }
        in.load_tile(at, of.q, of.dcontext, query);
    };
    in.load_own(at, of.k, of.v, first);
    load(0);
    float of_k[HEAD / 16][2][4] = {}, of_v[HEAD / 16][2][4] = {};
    for (int query = 0; query < at.len; query += STEP) {
        load(query + STEP);
        cp_async_wait<1>();
        __syncthreads();
        const T *queries = in.tile(query), *dcontexts = queries + STEP * stride;
        const float* mine = numbers_of(query) + fragment_column();
        float p[STEP / 8][4] = {}, ds[STEP / 8][4] = {};
        multiply_rows<T>(p, in.first + own, stride, queries, stride, depth, STEP);
        multiply_rows<T>(ds, in.second + own, stride, dcontexts, stride, depth, STEP);
        const auto sums = [&](int n, int e) { return QuerySums{mine[n * 8 + e % 2], mine[STEP + n * 8 + e % 2]}; };
        const auto column = [&](int n, int e) { return query + n * 8 + fragment_column() + e % 2; };
        const auto key = [&](int, int e) { return row + e / 2 * 8; };
        u32 left[STEP / 16][4], score[STEP / 16][4];
        to_operands<T>(left, score, p, ds, of.scale, kept, sums, column, key);
        accumulate<T, HEAD>(of_v, left, dcontexts, stride, depth);
        accumulate<T, HEAD>(of_k, score, queries, stride, depth);
        __syncthreads();
    }
    leave<T, HEAD>(dk, at, first + warp_of_thread() * 16, of_k, of.scale, in.first + own, stride);
    leave<T, HEAD>(dv, at, first + warp_of_thread() * 16, of_v, 1.0f, in.second + own, stride);
}

// dq of heads of up to 64, and `deltas`, [query rows, heads]: `tiles` are pairs of a text and the first of 64 of its queries.
KERNEL(128) attention_queries_64(const Real* q, const Real* k, const Real* v, const int* offsets, const int* tiles, int first,
                                 int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                 const Real* context, const float* sums, const Real* dcontext, float* deltas, Real* dq) {
    const int* tile = tiles + first + blockIdx.x / heads * 2;
    const TextHead at(offsets, tile[0], blockIdx.x % heads, heads, head_size);
    queries_pass<Real, 64>({q, k, v, scale, sums, dcontext}, at, {keys, threshold, factor, at}, context, tile[1], deltas, dq);
}

// The same for heads of up to 128.
KERNEL(128) attention_queries_128(const Real* q, const Real* k, const Real* v, const int* offsets, const int* tiles, int first,
                                  int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                  const Real* context, const float* sums, const Real* dcontext, float* deltas, Real* dq) {
    const int* tile = tiles + first + blockIdx.x / heads * 2;
    const TextHead at(offsets, tile[0], blockIdx.x % heads, heads, head_size);
    queries_pass<Real, 128>({q, k, v, scale, sums, dcontext}, at, {keys, threshold, factor, at}, context, tile[1], deltas, dq);
}

// dk and dv of heads of up to 64, after `attention_queries_64`: `tiles` are pairs of a text and the first of 64 of its keys.
KERNEL(128) attention_keys_64(const Real* q, const Real* k, const Real* v, const int* offsets, const int* tiles, int first,
                              int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                              const float* sums, const float* deltas, const Real* dcontext, Real* dk, Real* dv) {
    const int* tile = tiles + first + blockIdx.x / heads * 2;
    const TextHead at(offsets, tile[0], blockIdx.x % heads, heads, head_size);
    keys_pass<Real, 64>({q, k, v, scale, sums, dcontext}, at, {keys, threshold, factor, at}, deltas, tile[1], dk, dv);
}

// The same for heads of up to 128.
KERNEL(128) attention_keys_128(const Real* q, const Real* k, const Real* v, const int* offsets, const int* tiles, int first,
                               int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                               const float* sums, const float* deltas, const Real* dcontext, Real* dk, Real* dv) {
    const int* tile = tiles + first + blockIdx.x / heads * 2;
    const TextHead at(offsets, tile[0], blockIdx.x % heads, heads, head_size);
    keys_pass<Real, 128>({q, k, v, scale, sums, dcontext}, at, {keys, threshold, factor, at}, deltas, tile[1], dk, dv);
}
