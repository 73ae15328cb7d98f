// Relations (see limbeck::ops::relation): how far a student's distributions over the tokens of a text are from its teacher's.
//
// For one map at a time, distributions stand in memory, a row of `stride` floats for each of the student's rows: each of the
// student's (which becomes its gradient by the scores in place), the sum of them, and the sum of the teacher's. Every kernel but
// the cost's takes a warp a row and adds up in one order. Simple rather than fast: it is a term of distillation, in few layers.
#include "attention.cuh"

// A row of the student's, the text it is of, and where it stands among the text's queries.
struct RelationRow {
    int row, text, first, len, i;
    // `texts` are those of the rows, or null where each text has one row.
    __device__ __forceinline__ RelationRow(const int* offsets, const int* texts, int row)
        : row(row), text(texts ? texts[row] : row), first(offsets[text]), len(offsets[text + 1] - first),
          i(texts ? row - first : 0) {}
};

__device__ __forceinline__ int row_of_warp() { return blockIdx.x * (blockDim.x / WARP) + warp_of_thread(); }

// p = softmax(scale · a·bᵀ) over the text, from `columns` columns, of which a and b have `width`; uniform if there are none.
// `sum` is p, or has it added. `tokens` is not 0 where `a` has a row for each token, whatever the student has.
KERNEL(128) relation_probabilities(const Real* a, const Real* b, const int* offsets, const int* texts, int rows, int tokens,
                                   int width, int column, int columns, float scale, int stride, int accumulate, float* p,
                                   float* sum) {
    if (row_of_warp() >= rows) return;
    const RelationRow mine(offsets, texts, row_of_warp());
    const Real* query = a + size_t(tokens ? mine.first + mine.i : mine.text) * width + column;
    const Real* keys = b + size_t(mine.first) * width + column;
    float *own = p + size_t(mine.row) * stride, *added = sum + size_t(mine.row) * stride;
    const bool packs = (width | column | columns) % Pack<Real>::LEN == 0;
    float largest = -infinity(), total = 0.0f;
    for (int j = lane_of_thread(); j < mine.len; j += WARP) {
        const Real* key = keys + size_t(j) * width;
        float score = 0.0f;
        if (packs) score = dot(query, key, columns);
        else for (int c = 0; c < columns; c++) score = fmaf(to_float(query[c]), to_float(key[c]), score);
        own[j] = score * scale;
        largest = fmaxf(largest, own[j]);
    }
    largest = warp_max(largest);
    for (int j = lane_of_thread(); j < mine.len; j += WARP) total += own[j] = expf(own[j] - largest);
    total = warp_sum(total);
    for (int j = lane_of_thread(); j < mine.len; j += WARP) {
        own[j] /= total;
        added[j] = accumulate ? added[j] + own[j] : own[j];
    }
}

// costs[text], or what is added to it: Σ target·log(target / mean) over the text's rows, a block a text. What is given are sums,
// to be multiplied by the shares. A probability that underflows is the smallest number there is: what it costs stays finite.
KERNEL(128) relation_cost(const float* means, float share, const float* targets, float target_share, const int* offsets,
                          int tokens, int stride, int accumulate, double* costs) {
    __shared__ double of_warps[WARP];
    const int text = blockIdx.x, first = offsets[text], len = offsets[text + 1] - first;
    const size_t row = tokens ? first : text;
    const float least = __uint_as_float(0x00800000u);
    double cost = 0.0;
    for (int k = threadIdx.x; k < (tokens ? len : 1) * len; k += blockDim.x) {
        const size_t at = (row + k / len) * stride + k % len;
        const float target = targets[at] * target_share, mean = means[at] * share;
        cost += double(target) * (log(double(fmaxf(target, least))) - log(double(fmaxf(mean, least))));
    }
    cost = block_sum(cost, of_warps);
    if (threadIdx.x == 0) costs[text] = accumulate ? costs[text] + cost : cost;
}

// From p to slope · ds in place: ds = g - p·Σ g, with g = -target·p / mean.
KERNEL(128) relation_slopes(float* p, const float* means, float share, const float* targets, float target_share,
                            const int* offsets, const int* texts, int rows, int stride, float slope) {
    if (row_of_warp() >= rows) return;
    const RelationRow mine(offsets, texts, row_of_warp());
    const size_t start = size_t(mine.row) * stride;
    const auto gradient = [&](int j) {
        const float mean = means[start + j] * share;
        // p / mean first: it is a small number, whatever has underflowed.
        return -(targets[start + j] * target_share) * (mean > 0.0f ? p[start + j] / mean : 1.0f);
    };
    float sum = 0.0f;
    for (int j = lane_of_thread(); j < mine.len; j += WARP) sum += gradient(j);
    sum = warp_sum(sum);
    for (int j = lane_of_thread(); j < mine.len; j += WARP) p[start + j] = slope * (gradient(j) - p[start + j] * sum);
}

// da += ds·b, for the map's columns of a row.
KERNEL(128) relation_queries(const float* ds, const Real* b, const int* offsets, const int* texts, int rows, int width,
                             int column, int columns, int stride, float* da) {
    if (row_of_warp() >= rows) return;
    const RelationRow mine(offsets, texts, row_of_warp());
    const float* own = ds + size_t(mine.row) * stride;
    for (int c = column + lane_of_thread(); c < column + columns; c += WARP) {
        float sum = 0.0f;
        for (int j = 0; j < mine.len; j++) sum = fmaf(own[j], to_float(b[size_t(mine.first + j) * width + c]), sum);
        da[size_t(mine.row) * width + c] += sum;
    }
}

// db += dsᵀ·a, for the map's columns of a token: `texts` are those of the tokens, and a has a row for each token where `tokens`
// is not 0, else for each text.
KERNEL(128) relation_keys(const float* ds, const Real* a, const int* offsets, const int* texts, int rows, int tokens, int width,
                          int column, int columns, int stride, float* db) {
    if (row_of_warp() >= rows) return;
    const RelationRow mine(offsets, texts, row_of_warp());
    const size_t first = tokens ? mine.first : mine.text;
    for (int c = column + lane_of_thread(); c < column + columns; c += WARP) {
        float sum = 0.0f;
        for (int i = 0; i < (tokens ? mine.len : 1); i++)
            sum = fmaf(ds[(first + i) * stride + mine.i], to_float(a[(first + i) * width + c]), sum);
        db[size_t(mine.row) * width + c] += sum;
    }
}
