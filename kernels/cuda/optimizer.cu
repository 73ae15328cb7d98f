// AdamW (see limbeck::ops::optimizer) over all parameters in three launches: squares of gradients, the factor that clips them, and one
// pass over weights, moments and gradients. The host learns the norm when all is done; nothing waits for it.
//
// Parameters are cut into chunks of 16,384 elements, a block each; a block finds its parameter by the numbers of their first chunks.
#include "prelude.cuh"

constexpr u64 CHUNK = 1 << 14;

struct Parameter {
    float *w, *m, *v;
    const float* g;
    const u8* mask; // null if everything is kept
    u64 len, first_chunk;
    float decay; // 1 - learning_rate · weight_decay
};

// The parameter that a block's chunk is of: the last whose first chunk is not beyond it.
__device__ __forceinline__ const Parameter& parameter_of_block(const Parameter* parameters, int count) {
    int low = 0, high = count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (parameters[middle].first_chunk <= blockIdx.x) low = middle;
        else high = middle - 1;
    }
    return parameters[low];
}

// partial[chunk] = Σ g² of what is kept.
KERNEL(256) gradient_squares(const Parameter* parameters, int count, double* partial) {
    __shared__ double of_warps[WARP];
    const Parameter& p = parameter_of_block(parameters, count);
    const u64 first = (blockIdx.x - p.first_chunk) * CHUNK, last = min(first + CHUNK, p.len);
    double sum = 0.0;
    for (u64 i = first + threadIdx.x; i < last; i += blockDim.x)
        if (!p.mask || p.mask[i]) sum += double(p.g[i]) * p.g[i];
    sum = block_sum(sum, of_warps);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// What a step is told, in memory, so that steps differ in no argument. rate = learning_rate / (1 - beta1^step), root = 1 / sqrt(1 -
// beta2^step); gradients are multiplied by `scale`, and then clipped.
struct Told {
    double scale, clip;
    float beta1, rest1, beta2, rest2, root, eps, rate;
};

// found = [norm of the gradients times `scale`, what gradients are then to be multiplied by]: one block.
KERNEL(1024) clip_factor(const double* partial, int chunks, const Told* told, double* found) {
    __shared__ double of_warps[WARP];
    double sum = 0.0;
    for (int i = threadIdx.x; i < chunks; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, of_warps);
    if (threadIdx.x > 0) return;
    const double scale = told->scale, clip = told->clip;
    const double norm = sqrt(sum) * scale;
    found[0] = norm;
    found[1] = scale * (clip > 0.0 ? min(clip / (norm + 1e-6), 1.0) : 1.0);
}

// A norm that is not finite changes nothing.
KERNEL(256) adamw(const Parameter* parameters, int count, const double* found, const Told* told) {
    if (!isfinite(found[0])) return;
    const float beta1 = told->beta1, rest1 = told->rest1, beta2 = told->beta2, rest2 = told->rest2;
    const float root = told->root, eps = told->eps, rate = told->rate;
    const float scale = float(found[1]);
    const Parameter& p = parameter_of_block(parameters, count);
    const u64 first = (blockIdx.x - p.first_chunk) * CHUNK, last = min(first + CHUNK, p.len);
    for (u64 i = first + threadIdx.x; i < last; i += blockDim.x) {
        if (p.mask && !p.mask[i]) {
            p.w[i] = p.m[i] = p.v[i] = 0.0f;
            continue;
        }
        const float g = scale * p.g[i];
        const float m = beta1 * p.m[i] + rest1 * g, v = beta2 * p.v[i] + rest2 * g * g;
        p.m[i] = m;
        p.v[i] = v;
        p.w[i] = p.decay * p.w[i] - rate * m / (sqrtf(v) * root + eps);
    }
}

// Sets to exactly zero what the mask drops.
KERNEL(256) mask_zeros(float* x, const u8* mask, u64 len) {
    const u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < len && !mask[i]) x[i] = 0.0f;
}
