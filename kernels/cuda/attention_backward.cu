// Attention, backward, of texts of up to 32, 64 or 128 tokens: one kernel, a block a head of a text, no workspace, no atomics.
//
//     p = e^(scale · q·kᵀ - sum)    δ = Σ dcontext∘context    ds = p∘(z∘(dcontext·vᵀ) - δ), z the dropout's factors
//     dv = (p∘z)ᵀ·dcontext    dk = scale · dsᵀ·q    dq = scale · ds·k
//
// Shared memory holds the head of the text: [queries | keys | dcontext | values], 32, 64 or 128 rows each. A warp takes 16
// queries: their p∘z and ds, over all keys, stay in registers as left operands, and dq is a product of those. For dv and dk a
// warp takes 16 keys, and needs p∘z and ds of all queries: the rows of the values, which nobody reads any more, are wide enough
// for a row of either, and first p∘z, then ds pass through them, to be read by columns. Results leave through rows that are
// free: dq through those of the values, dv and dk through those of the keys.
#include "attention_mma.cuh"

// What all kernels here are called with.
template <class T> struct Backward {
    const T *q, *k, *v;
    float scale;
    const T *context, *dcontext;
    const float* sums;
    T *dq, *dk, *dv;
};

// A head of a text in shared memory.
template <class T, int KEYS> struct Staged {
    T *queries, *keys, *dcontexts, *values;
    int stride, wide; // of the first three, of the values
    int depth;

    __device__ __forceinline__ Staged(T* shared, int head_size) : stride(tile_stride(head_size)), depth(padded(head_size)) {
        wide = max(stride, KEYS + 8);
        queries = shared, keys = queries + KEYS * stride, dcontexts = keys + KEYS * stride, values = dcontexts + KEYS * stride;
    }
};

// Of a warp's queries, from `query` on: p∘z and ds, over all keys.
template <class T, int KEYS>
__device__ __forceinline__ void slopes(u32 (&left)[KEYS / 16][4], u32 (&score)[KEYS / 16][4], const Backward<T>& of,
                                       const TextHead& at, const Kept& kept, const Staged<T, KEYS>& in, int query) {
    constexpr int STEP = 32; // keys at a time
    const T *own = in.queries + query * in.stride, *dcontext = in.dcontexts + query * in.stride;
    float sum[2], delta[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = query + fragment_row() + r * 8;
        const bool exists = row < at.len;
        // Without a query, a probability is e^-∞.
        sum[r] = exists ? of.sums[at.sum(at.first + row)] * LOG2_E : infinity();
        delta[r] = quad_dot(in.dcontexts + row * in.stride, of.context + at.token(row), exists ? at.head_size : 0);
    }
#pragma unroll
    for (int key = 0; key < KEYS; key += STEP) {
        if (key >= at.len) continue;
        float p[STEP / 8][4] = {}, ds[STEP / 8][4] = {};
        const int count = at.len - key;
        multiply_rows<T>(p, own, in.stride, in.keys + key * in.stride, in.stride, in.depth, count);
        multiply_rows<T>(ds, dcontext, in.stride, in.values + key * in.wide, in.wide, in.depth, count);
        const auto sums = [&](int n, int e) {
            return QuerySums{n * 8 + fragment_column() + e % 2 < count ? sum[e / 2] : infinity(), delta[e / 2]};
        };
        const auto factor = [&](int n, int e) {
            return kept.narrow_factor(query + fragment_row() + e / 2 * 8, key + n * 8 + fragment_column() + e % 2);
        };
        if (kept.on) to_slopes(p, ds, of.scale, sums, factor);
        else to_slopes(p, ds, of.scale, sums, NoDropout{});
#pragma unroll
        for (int k = 0; k < STEP / 16; k++) {
            to_fragment<T>(left[key / 16 + k], p[2 * k], p[2 * k + 1]);
            to_fragment<T>(score[key / 16 + k], ds[2 * k], ds[2 * k + 1]);
        }
    }
}

// Of a warp's 16 keys, from `key` on: what all queries have in the rows of the values, transposed, times `b`; written to `to`
// by way of the keys' own rows.
template <class T, int KEYS>
__device__ __forceinline__ void key_gradients(const TextHead& at, const Staged<T, KEYS>& in, int key, const T* b, float factor,
                                              T* to) {
    const int lane = lane_of_thread();
    const T* from = in.values + (lane % 8 + lane / 16 * 8) * in.wide + key + lane / 8 % 2 * 8;
    T* own = in.keys + key * in.stride;
    u32 a[KEYS / 16][4];
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++)
        if (k * 16 < at.len) ldmatrix_x4_trans(a[k], from + k * 16 * in.wide);
    for (int column = 0; column < in.depth; column += 16) {
        float d[2][4] = {};
        multiply_columns<T>(d, a, b + column, in.stride, at.len);
        store_product(own + column, in.stride, d, factor, factor);
    }
    store_rows(to + at.token(key), at.width(), own, in.stride, at.len - key, at.head_size);
}

template <class T, int KEYS>
__device__ __forceinline__ void backward_text(const Backward<T>& of, const TextHead& at, const Kept& kept) {
    SHARED(T, shared);
    const Staged<T, KEYS> in(shared, at.head_size);
    const int rows = padded(at.len), width = at.width(), first = warp_of_thread() * 16;
    load_rows(in.queries, in.stride, of.q + at.token(0), width, at.len, rows, at.head_size);
    load_rows(in.keys, in.stride, of.k + at.token(0), width, at.len, rows, at.head_size);
    load_rows(in.dcontexts, in.stride, of.dcontext + at.token(0), width, at.len, rows, at.head_size);
    load_rows(in.values, in.wide, of.v + at.token(0), width, at.len, rows, at.head_size);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    const bool active = first < at.len;
    T* own = in.values + first * in.wide;
    u32 left[KEYS / 16][4], score[KEYS / 16][4];
    if (active) slopes(left, score, of, at, kept, in, first);
    const auto pass = [&](const u32(&a)[KEYS / 16][4]) {
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++)
            if (k * 16 < at.len) store_fragment(own + k * 16, in.wide, a[k]);
    };
    __syncthreads(); // The values are free.
    if (active) {
        for (int column = 0; column < in.depth; column += 16) {
            float d[2][4] = {};
            multiply_columns<T>(d, score, in.keys + column, in.stride, at.len);
            store_product(own + column, in.wide, d, of.scale, of.scale);
        }
        store_rows(of.dq + at.token(first), width, own, in.wide, at.len - first, at.head_size);
        pass(left);
    }
    __syncthreads(); // The keys are free too.
    if (active) key_gradients(at, in, first, in.dcontexts, 1.0f, of.dv);
    __syncthreads();
    if (active) pass(score);
    __syncthreads();
    if (active) key_gradients(at, in, first, in.queries, of.scale, of.dk);
}

// `texts` are those of up to 32 tokens; a block for each and each head. `keys` is null where nothing is dropped.
KERNEL(64) attention_backward_32(const Real* q, const Real* k, const Real* v, const int* offsets, const int* texts, int first,
                                 int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                 const Real* context, const float* sums, const Real* dcontext, Real* dq, Real* dk, Real* dv) {
    const TextHead at(offsets, texts[first + blockIdx.x / heads], blockIdx.x % heads, heads, head_size);
    backward_text<Real, 32>({q, k, v, scale, context, dcontext, sums, dq, dk, dv}, at, {keys, threshold, factor, at});
}

// The same for up to 64 tokens.
KERNEL(128) attention_backward_64(const Real* q, const Real* k, const Real* v, const int* offsets, const int* texts, int first,
                                  int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                  const Real* context, const float* sums, const Real* dcontext, Real* dq, Real* dk, Real* dv) {
    const TextHead at(offsets, texts[first + blockIdx.x / heads], blockIdx.x % heads, heads, head_size);
    backward_text<Real, 64>({q, k, v, scale, context, dcontext, sums, dq, dk, dv}, at, {keys, threshold, factor, at});
}

// The same for up to 128 tokens.
KERNEL(256) attention_backward_128(const Real* q, const Real* k, const Real* v, const int* offsets, const int* texts, int first,
                                   int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                   const Real* context, const float* sums, const Real* dcontext, Real* dq, Real* dk, Real* dv) {
    const TextHead at(offsets, texts[first + blockIdx.x / heads], blockIdx.x % heads, heads, head_size);
    backward_text<Real, 128>({q, k, v, scale, context, dcontext, sums, dq, dk, dv}, at, {keys, threshold, factor, at});
}
