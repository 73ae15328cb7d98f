// What looks at the inside of a network: how far states are from a teacher's, and how the loss would change with a part. Sums are
// in double, in one order: per block, row or text, which the host adds up.
#include "prelude.cuh"

// dx = slope·(x - y); partial[block] = Σ (x - y)² over 4,096 elements.
KERNEL(256) mean_square(const Real* x, const Real* y, float slope, u64 len, Real* dx, double* partial) {
    __shared__ double of_warps[WARP];
    const u64 first = u64(blockIdx.x) << 12, last = min(first + (u64(1) << 12), len);
    double sum = 0.0;
    for (u64 i = first + threadIdx.x; i < last; i += blockDim.x) {
        const float difference = to_float(x[i]) - to_float(y[i]);
        dx[i] = from_float<Real>(slope * difference);
        sum += double(difference) * difference;
    }
    sum = block_sum(sum, of_warps);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// The cosine of each row, and slope times its derivative by x: a warp a row. A row of zeros has cosine 0 and no derivative.
KERNEL(256) cosine(const Real* x, const Real* y, double slope, int rows, int cols, Real* dx, double* cosines) {
    const int row = blockIdx.x * (blockDim.x / WARP) + warp_of_thread();
    if (row >= rows) return;
    const size_t start = size_t(row) * cols;
    double xx = 0.0, yy = 0.0, xy = 0.0;
    for (int i = lane_of_thread(); i < cols; i += WARP) {
        const double a = to_float(x[start + i]), b = to_float(y[start + i]);
        xx += a * a;
        yy += b * b;
        xy += a * b;
    }
    xx = warp_sum(xx), yy = warp_sum(yy), xy = warp_sum(xy);
    const bool directed = xx > 0.0 && yy > 0.0;
    const double norms = sqrt(xx * yy), value = directed ? xy / norms : 0.0;
    const float of_y = directed ? float(slope / norms) : 0.0f, of_x = directed ? float(slope * value / xx) : 0.0f;
    for (int i = lane_of_thread(); i < cols; i += WARP)
        dx[start + i] = from_float<Real>(of_y * to_float(y[start + i]) - of_x * to_float(x[start + i]));
    if (lane_of_thread() == 0) cosines[row] = value;
}

// Σ x·dx over a text's rows and a group of `width` columns: a block a (group, text). Without `offsets` a text is a row.
KERNEL(256) gate_gradients(const Real* x, const Real* dx, const int* offsets, int cols, int width, double* gradients) {
    __shared__ double of_warps[WARP];
    const int group = blockIdx.x, text = blockIdx.y;
    const int first = offsets ? offsets[text] : text, last = offsets ? offsets[text + 1] : text + 1;
    double sum = 0.0;
    for (int k = threadIdx.x; k < (last - first) * width; k += blockDim.x) {
        const size_t i = size_t(first + k / width) * cols + group * width + k % width;
        sum += double(to_float(x[i])) * to_float(dx[i]);
    }
    sum = block_sum(sum, of_warps);
    if (threadIdx.x == 0) gradients[size_t(text) * gridDim.x + group] = sum;
}

// Σ x·y, or Σ (x·y)², over each block of `outputs` × `inputs` of a matrix: a thread a block.
KERNEL(256) block_sums(const Real* x, const Real* y, int squares, int rows, int cols, int outputs, int inputs, double* sums) {
    const int across = (cols + inputs - 1) / inputs, down = (rows + outputs - 1) / outputs;
    const int block = blockIdx.x * blockDim.x + threadIdx.x;
    if (block >= across * down) return;
    const int top = block / across * outputs, left = block % across * inputs;
    double sum = 0.0;
    for (int row = top; row < min(top + outputs, rows); row++)
        for (int col = left; col < min(left + inputs, cols); col++) {
            const size_t i = size_t(row) * cols + col;
            const double product = double(to_float(x[i])) * to_float(y[i]);
            sum += squares ? product * product : product;
        }
    sums[block] = sum;
}
