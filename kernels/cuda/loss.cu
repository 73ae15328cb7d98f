// Losses on logits (see limbeck::ops::loss), a thread a text, in double: texts × classes are few.
//
// losses[text] = [cross-entropy, T²·KL]; dlogits is `scale` times the gradient of the mean over texts. A text whose loss is not finite makes its gradient
// NaN, so that the norm of all gradients says so. Rows of logits behind those of the texts have no loss, and no gradient.
#include "prelude.cuh"

// log Σ exp(row / temperature).
__device__ __forceinline__ double log_sum(const float* row, int classes, double temperature) {
    double highest = row[0] / temperature, sum = 0.0;
    for (int c = 1; c < classes; c++) highest = max(highest, row[c] / temperature);
    for (int c = 0; c < classes; c++) sum += exp(row[c] / temperature - highest);
    return highest + log(sum);
}

// `teacher` is null where there is none; alpha is 0 then. how = [temperature, alpha, scale].
KERNEL(128) classification_loss(const float* logits, const int* labels, const float* teacher, const double* how, int texts, int rows,
                                int classes, double* losses, float* dlogits) {
    const int text = blockIdx.x * blockDim.x + threadIdx.x;
    if (text >= rows) return;
    if (text >= texts) {
        for (int c = 0; c < classes; c++) dlogits[size_t(text) * classes + c] = 0.0f;
        return;
    }
    const double temperature = how[0], alpha = how[1], scale = how[2];
    const float* row = logits + size_t(text) * classes;
    const float* target = teacher ? teacher + size_t(text) * classes : nullptr;
    const double of_row = log_sum(row, classes, 1.0);
    const double cross_entropy = of_row - row[labels[text]];
    const double of_student = target ? log_sum(row, classes, temperature) : 0.0;
    const double of_teacher = target ? log_sum(target, classes, temperature) : 0.0;
    double divergence = 0.0;
    for (int c = 0; target && c < classes; c++) {
        const double log_p = row[c] / temperature - of_student, log_q = target[c] / temperature - of_teacher;
        divergence += temperature * temperature * exp(log_q) * (log_q - log_p);
    }
    const bool finite = isfinite(cross_entropy) && isfinite(divergence);
    for (int c = 0; c < classes; c++) {
        double slope = (1.0 - alpha) * (exp(row[c] - of_row) - (c == labels[text] ? 1.0 : 0.0));
        if (target) slope += alpha * temperature * (exp(row[c] / temperature - of_student) - exp(target[c] / temperature - of_teacher));
        dlogits[size_t(text) * classes + c] = finite ? float(scale * slope / texts) : __uint_as_float(0x7fc00000u);
    }
    losses[2 * text] = cross_entropy;
    losses[2 * text + 1] = divergence;
}
