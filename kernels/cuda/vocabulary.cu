// The loss of a head over a vocabulary (see limbeck::ops::vocabulary): logits of some rows become their gradient, in place.
#include "prelude.cuh"

// Below any logit, and finite: what a thread without logits has seen.
constexpr float LOWEST = -3.402823466e38f;

// Σ e^x of what a thread sees, as a multiple of e^highest.
struct Powers {
    float highest = LOWEST, sum = 0.0f;
    __device__ __forceinline__ void add(float x) {
        if (x > highest) {
            sum = sum * expf(highest - x) + 1.0f;
            highest = x;
        } else {
            sum += expf(x - highest);
        }
    }
};

// A softmax: e^(x - highest)·share is x's probability, log its log Σ e^x. Not numbers where the sum is none.
struct Softmax {
    float highest, share;
    double log;
    __device__ __forceinline__ float operator()(float x) const { return expf(x - highest) * share; }
};

__device__ __forceinline__ Softmax softmax(Powers mine, float* maxima, double* sums) {
    const float of_warp = warp_max(mine.highest);
    __syncthreads();
    if (lane_of_thread() == 0) maxima[warp_of_thread()] = of_warp;
    __syncthreads();
    const int warps = blockDim.x / WARP;
    const float highest = warp_max(lane_of_thread() < warps ? maxima[lane_of_thread()] : LOWEST);
    const double sum = block_sum(double(mine.sum) * expf(mine.highest - highest), sums);
    const double log_sum = highest + log(sum);
    return {highest, isfinite(log_sum) ? float(1.0 / sum) : __uint_as_float(0x7fc00000u), log_sum};
}

// A block a row of `logits`, which is row `first + blockIdx.x` of all. terms[row] = [cross-entropy, T²·KL]; the gradient is `scale`
// times that of (1 - alpha)·cross-entropy + alpha·T²·KL. how = [T, alpha, scale]. `teacher` is null where there is none; alpha is 0 then.
KERNEL(256) vocabulary_loss(Real* logits, const Real* teacher, const int* targets, const double* how, int first, int vocabulary, double* terms) {
    __shared__ float maxima[WARP];
    __shared__ double sums[WARP];
    const double temperature = how[0], alpha = how[1], scale = how[2];
    const int row = first + blockIdx.x, target = targets[row];
    Real* s = logits + size_t(blockIdx.x) * vocabulary;
    const Real* t = teacher ? teacher + size_t(blockIdx.x) * vocabulary : nullptr;
    const float cold = float(1.0 / temperature), wanted = to_float(s[target]);
    Powers plain, of_student, of_teacher;
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
        const float x = to_float(s[i]);
        plain.add(x);
        if (!t) continue;
        of_student.add(x * cold);
        of_teacher.add(to_float(t[i]) * cold);
    }
    const Softmax likely = softmax(plain, maxima, sums);
    const double cross_entropy = likely.log - wanted;
    const float of_target = float(scale * (1.0 - alpha));
    if (!t) {
        for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
            const float slope = of_target * (likely(to_float(s[i])) - (i == target ? 1.0f : 0.0f));
            s[i] = from_float<Real>(isfinite(cross_entropy) ? slope : __uint_as_float(0x7fc00000u));
        }
        if (threadIdx.x == 0) terms[2 * row] = cross_entropy, terms[2 * row + 1] = 0.0;
        return;
    }
    const Softmax p = softmax(of_student, maxima, sums), q = softmax(of_teacher, maxima, sums);
    const float apart = float(q.log - p.log), of_teaching = float(scale * alpha * temperature);
    float divergence = 0.0f;
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
        const float x = to_float(s[i]), cold_x = x * cold, cold_y = to_float(t[i]) * cold, theirs = q(cold_y);
        divergence += theirs * (cold_y - cold_x - apart);
        const float slope = of_target * (likely(x) - (i == target ? 1.0f : 0.0f)) + of_teaching * (p(cold_x) - theirs);
        s[i] = from_float<Real>(isfinite(cross_entropy) ? slope : __uint_as_float(0x7fc00000u));
    }
    const double sum = temperature * temperature * block_sum(double(divergence), sums);
    if (threadIdx.x == 0) terms[2 * row] = cross_entropy, terms[2 * row + 1] = sum;
}
