// The products of linear layers (gemm.cu) by wgmma, for sm_90a alone: forward, input gradient, weight gradient, of 16-bit
// operands whose rows begin at multiples of 16 bytes. Others, and other GPUs, have gemm.cu; sums end as they do there.
#include "gemm_wgmma.cuh"

using namespace gemm;
using Tile = WgmmaTile<Real, 6>;

// A product, of which each part is one tile.
template <class Epilogue> struct Whole {
    const TensorMap *a, *b;
    int rows, columns, depth;
    Epilogue epilogue;

    __device__ __forceinline__ int parts() const { return tiles_over(rows, Tile::ROWS) * tiles_over(columns, Tile::COLUMNS); }
    __device__ __forceinline__ Part<Epilogue> part(int i) const {
        const Place at = place_of_tile(i, tiles_over(rows, Tile::ROWS), tiles_over(columns, Tile::COLUMNS));
        return {a, b, at.row * Tile::ROWS, at.column * Tile::COLUMNS, rows, columns, 0, tiles_over(depth, Tile::SIDE), epilogue};
    }
};

// y[m, n] = activation(x[m, k]·weight[n, k]ᵀ + bias); `z`, unless null, keeps what the activation was given.
KERNEL(384) linear_forward_wgmma(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weight, const float* bias,
                                 int activation, int m, int n, int k, Real* y, Real* z) {
    const Whole<ActivationEpilogue<Real>> whole{&x, &weight, m, n, k, {bias, activation, n, y, z}};
    Tile::run<Major::K, Major::K>(whole, whole.parts());
}

// dx[m, k] (+)= dz[m, n]·weight[n, k].
KERNEL(384) input_gradient_wgmma(const __grid_constant__ TensorMap dz, const __grid_constant__ TensorMap weight, int m, int n, int k,
                                 int accumulate, Real* dx) {
    const Whole<AddEpilogue<Real>> whole{&dz, &weight, m, k, n, {dx, k, accumulate != 0}};
    Tile::run<Major::K, Major::MN>(whole, whole.parts());
}

// dw[n, k] (+)= dz[m, n]ᵀ·x[m, k], a group of them, each in slices of m (gemm.cu): with more than one, slice s is written to
// dw[s, n, k]. Slices are multiples of 64, since boxes know no other end than the matrix's.
struct WgmmaGradient {
    float* dw;
    int m, n, k;
    int slice;
    int accumulate;
    int blocks; // of this product and all before it in the group: tiles · slices
};
// An argument, which may have 4 KiB.
struct WgmmaGradients {
    TensorMap dz[13], x[13];
    WgmmaGradient at[13];
};

struct Grouped {
    const WgmmaGradients* group;

    __device__ __forceinline__ Part<AddEpilogue<float>> part(int block) const {
        int i = 0;
        while (group->at[i].blocks <= block) i++;
        const WgmmaGradient& of = group->at[i];
        block -= i ? group->at[i - 1].blocks : 0;
        const int rows = tiles_over(of.n, Tile::ROWS), columns = tiles_over(of.k, Tile::COLUMNS);
        const int slice = block / (rows * columns), first = slice * of.slice;
        const Place at = place_of_tile(block % (rows * columns), rows, columns);
        const int steps = tiles_over(min(of.slice, of.m - first), Tile::SIDE);
        return {group->dz + i, group->x + i, at.row * Tile::ROWS, at.column * Tile::COLUMNS, of.n, of.k, first, steps,
                {of.dw + size_t(slice) * of.n * of.k, of.k, of.accumulate != 0}};
    }
};
KERNEL(384) weight_gradients_wgmma(const __grid_constant__ WgmmaGradients group, int blocks) {
    Tile::run<Major::MN, Major::MN>(Grouped{&group}, blocks);
}
