// Attention a row at a time, a warp a row and head: of any type and length, and of heads of up to 128. It is all there is for
// float, which is for parity; what is needed where a text has one query, its first token's; and what remains for texts so long
// that the indices of their dropout do not fit in 32 bits.
//
// A warp takes 32 keys at a time: each lane the score of its key, a whole scalar product; then, key by key, all lanes together
// add the key's share to the result, which the lanes hold. Nothing goes through shared memory. For dk and dv it takes 32
// queries at a time in the same way.
#include "attention.cuh"

// A row of a head, over a warp: a lane has four bytes of every 128.
template <class T> struct LaneRow {
    static constexpr int LEN = 128 / WARP, SPAN = 4 / sizeof(T);
    struct alignas(4) Word {
        T at[SPAN];
    };
    float at[LEN] = {};

    __device__ __forceinline__ static int column(int i) { return (i / SPAN * WARP + lane_of_thread()) * SPAN; }
    __device__ __forceinline__ void scale(float by) {
#pragma unroll
        for (int i = 0; i < LEN; i++) at[i] *= by;
    }
    __device__ __forceinline__ void add(float by, const T* row, int head_size) {
#pragma unroll
        for (int i = 0; i < LEN; i += SPAN) {
            Word word;
            if (column(i) >= head_size) continue;
            if (head_size % SPAN == 0) word = *reinterpret_cast<const Word*>(row + column(i));
            else
                for (int j = 0; j < SPAN; j++) word.at[j] = row[min(column(i) + j, head_size - 1)];
#pragma unroll
            for (int j = 0; j < SPAN; j++) at[i + j] = fmaf(by, to_float(word.at[j]), at[i + j]);
        }
    }
    __device__ __forceinline__ void store(T* row, int head_size, float by) const {
#pragma unroll
        for (int i = 0; i < LEN; i += SPAN) {
            Word word;
#pragma unroll
            for (int j = 0; j < SPAN; j++) word.at[j] = from_float<T>(at[i + j] * by);
            if (column(i) >= head_size) continue;
            if (head_size % SPAN == 0) *reinterpret_cast<Word*>(row + column(i)) = word;
            else
                for (int j = 0; j < SPAN && column(i) + j < head_size; j++) row[column(i) + j] = word.at[j];
        }
    }
};

// The scalar product of two rows, by a warp.
template <class T> __device__ __forceinline__ float warp_dot(const T* a, const T* b, int n) {
    float sum = 0.0f;
    for (int i = lane_of_thread(); i < n; i += WARP) sum = fmaf(to_float(a[i]), to_float(b[i]), sum);
    return warp_sum(sum);
}

// What a row of scores amounts to: its largest, and the sum of the exponentials of all less the largest.
struct RowSum {
    float largest, total;
    __device__ __forceinline__ float log() const { return largest + logf(total); }
};

// The context of query `i` of the text; `q` and `context` are its rows. Online: what was added is rescaled when a larger
// score is met.
template <class T>
__device__ inline RowSum row_forward(const TextHead& at, float scale, const Kept& kept, int i, const T* q, const T* k, const T* v,
                                     T* context) {
    RowSum sum{-infinity(), 0.0f};
    LaneRow<T> row;
    for (int first = 0; first < at.len; first += WARP) {
        const int key = first + lane_of_thread(), count = min(WARP, at.len - first);
        const float score = key < at.len ? dot(q, k + at.token(key), at.head_size) * scale : -infinity();
        const float largest = fmaxf(sum.largest, warp_max(score)), shrink = expf(sum.largest - largest);
        float power = expf(score - largest);
        sum.total = sum.total * shrink + warp_sum(power);
        sum.largest = largest;
        if (kept.on && key < at.len) power *= kept.factor(i, key);
        row.scale(shrink);
#pragma unroll 4
        for (int j = 0; j < count; j++) row.add(__shfl_sync(FULL_WARP, power, j), v + at.token(first + j), at.head_size);
    }
    row.store(context, at.head_size, 1.0f / sum.total);
    return sum;
}

// The probability of a query and a key, what is left of it, and what the loss changes by with its score.
struct Slope {
    float kept, score;
};
template <class T>
__device__ __forceinline__ Slope slope(const TextHead& at, float scale, const Kept& kept, int i, int j, const T* q, const T* k,
                                       const T* v, const T* dcontext, float sum, float delta) {
    const float probability = expf(fmaf(dot(q, k, at.head_size), scale, -sum));
    const float factor = kept.on ? kept.factor(i, j) : 1.0f;
    return {probability * factor, probability * (dot(dcontext, v, at.head_size) * factor - delta)};
}

// dq of query `i`, whose rows `q`, `dcontext` and `dq` are. Where `only`, there is no other query, and dk and dv come from it.
template <class T>
__device__ inline void row_dq(const TextHead& at, float scale, const Kept& kept, int i, const T* q, const T* k, const T* v,
                              const T* dcontext, float sum, float delta, T* dq, bool only, T* dk, T* dv) {
    LaneRow<T> row, query, gradient;
    query.add(1.0f, q, at.head_size);
    gradient.add(1.0f, dcontext, at.head_size);
    for (int first = 0; first < at.len; first += WARP) {
        const int key = first + lane_of_thread(), count = min(WARP, at.len - first);
        Slope mine{0.0f, 0.0f};
        if (key < at.len)
            mine = slope(at, scale, kept, i, key, q, k + at.token(key), v + at.token(key), dcontext, sum, delta);
        for (int j = 0; j < count; j++) {
            const float score = __shfl_sync(FULL_WARP, mine.score, j), left = __shfl_sync(FULL_WARP, mine.kept, j);
            const size_t token = at.token(first + j);
            row.add(score, k + token, at.head_size);
            if (!only) continue;
            query.store(dk + token, at.head_size, score * scale);
            gradient.store(dv + token, at.head_size, left);
        }
    }
    row.store(dq, at.head_size, scale);
}

// dk and dv of key `j`: the sums over all queries of the text.
template <class T>
__device__ inline void row_dk_dv(const TextHead& at, float scale, const Kept& kept, int j, const T* q, const T* k, const T* v,
                                 const T* dcontext, const float* sums, const float* deltas, T* dk, T* dv) {
    LaneRow<T> of_k, of_v;
    const T *key = k + at.token(j), *value = v + at.token(j);
    for (int first = 0; first < at.len; first += WARP) {
        const int i = first + lane_of_thread(), count = min(WARP, at.len - first);
        Slope mine{0.0f, 0.0f};
        if (i < at.len)
            mine = slope(at, scale, kept, i, j, q + at.token(i), key, value, dcontext + at.token(i), sums[at.sum(at.first + i)],
                         deltas[at.sum(at.first + i)]);
        for (int other = 0; other < count; other++) {
            const size_t token = at.token(first + other);
            of_k.add(__shfl_sync(FULL_WARP, mine.score, other), q + token, at.head_size);
            of_v.add(__shfl_sync(FULL_WARP, mine.kept, other), dcontext + token, at.head_size);
        }
    }
    of_k.store(dk + at.token(j), at.head_size, scale);
    of_v.store(dv + at.token(j), at.head_size, 1.0f);
}

// Which row and head a warp is for.
struct RowHead {
    TextHead at;
    int row, i; // among all rows, among the text's
    // `texts` are those of the rows, or null where each text has one row.
    __device__ __forceinline__ RowHead(const int* offsets, const int* texts, size_t item, int heads, int head_size)
        : at(offsets, texts ? texts[item / heads] : int(item / heads), item % heads, heads, head_size), row(item / heads),
          i(texts ? row - at.first : 0) {}
};

// The number of a warp among all.
__device__ __forceinline__ size_t warp_of_grid() { return size_t(blockIdx.x) * (blockDim.x / WARP) + warp_of_thread(); }

// `texts` are those of the rows of q, or null where q has a row for each text. `keys` is null where nothing is dropped.
KERNEL(128) attention_rows_forward(const Real* q, const Real* k, const Real* v, const int* offsets, const int* texts, int rows,
                                   int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                   Real* context, float* sums) {
    const size_t item = warp_of_grid();
    if (item >= size_t(rows) * heads) return;
    const RowHead mine(offsets, texts, item, heads, head_size);
    const Kept kept(keys, threshold, factor, mine.at);
    const size_t row = mine.at.at(mine.row);
    const RowSum sum = row_forward(mine.at, scale, kept, mine.i, q + row, k, v, context + row);
    if (lane_of_thread() == 0) sums[item] = sum.log();
}

// dq, and `deltas` (Σ dcontext∘context) as `sums` are; dk and dv too where q has a row for each text.
KERNEL(128) attention_rows_queries(const Real* q, const Real* k, const Real* v, const int* offsets, const int* texts, int rows,
                                   int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                   const Real* context, const float* sums, const Real* dcontext, float* deltas, Real* dq,
                                   Real* dk, Real* dv) {
    const size_t item = warp_of_grid();
    if (item >= size_t(rows) * heads) return;
    const RowHead mine(offsets, texts, item, heads, head_size);
    const Kept kept(keys, threshold, factor, mine.at);
    const size_t row = mine.at.at(mine.row);
    const float delta = warp_dot(dcontext + row, context + row, head_size);
    row_dq(mine.at, scale, kept, mine.i, q + row, k, v, dcontext + row, sums[item], delta, dq + row, !texts, dk, dv);
    if (lane_of_thread() == 0) deltas[item] = delta;
}

// dk and dv where each token has a query.
KERNEL(128) attention_rows_keys(const Real* q, const Real* k, const Real* v, const int* offsets, const int* texts, int rows,
                                int heads, int head_size, float scale, const u64* keys, u32 threshold, float factor,
                                const float* sums, const float* deltas, const Real* dcontext, Real* dk, Real* dv) {
    const size_t item = warp_of_grid();
    if (item >= size_t(rows) * heads) return;
    const RowHead mine(offsets, texts, item, heads, head_size);
    const Kept kept(keys, threshold, factor, mine.at);
    row_dk_dv(mine.at, scale, kept, mine.i, q, k, v, dcontext, sums, deltas, dk, dv);
}

// means[text, head]: the mean of the head's probabilities in the text, a block for each. `first` is not 0 where q has a row for
// each text.
KERNEL(128) attention_mean(const Real* q, const Real* k, const int* offsets, int heads, int head_size, float scale, int first,
                           double* means) {
    __shared__ double of_warps[WARP];
    const TextHead at(offsets, blockIdx.x / heads, blockIdx.x % heads, heads, head_size);
    const int queries = first ? 1 : at.len;
    double sum = 0.0;
    for (int i = warp_of_thread(); i < queries; i += blockDim.x / WARP) {
        const Real* query = q + (first ? at.at(at.text) : at.token(i));
        const auto score = [&](int key) { return dot(query, k + at.token(key), head_size) * scale; };
        float largest = -infinity(), total = 0.0f;
        for (int key = lane_of_thread(); key < at.len; key += WARP) largest = fmaxf(largest, score(key));
        largest = warp_max(largest);
        for (int key = lane_of_thread(); key < at.len; key += WARP) total += expf(score(key) - largest);
        total = warp_sum(total);
        for (int key = lane_of_thread(); key < at.len; key += WARP) sum += expf(score(key) - largest) / total;
    }
    sum = block_sum(sum, of_warps);
    if (threadIdx.x == 0) means[blockIdx.x] = sum / (double(queries) * at.len);
}
