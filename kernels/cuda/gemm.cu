// The products of linear layers (limbeck::ops::linear): forward, input gradient, weight gradient, of any size.
//
// Each comes with a large tile and a small one; the launcher chooses (limbeck::ops::linear::cuda::plan). What a large tile reads has to
// begin, row by row, at multiples of 16 bytes; a small one takes any rows. gemm_mma.cuh is how 16-bit activations are multiplied,
// gemm_fma.cuh how f32 is; sums are float in both, and in an order that depends on sizes alone.
#include "gemm_epilogue.cuh"
#include "gemm_fma.cuh"
#include "gemm_mma.cuh"

using namespace gemm;

template <class T> struct Tiles {
    using Large = MmaTile<T, 128, 128, 3>;
    using Small = MmaTile<T, 64, 64, 4>;
};
template <> struct Tiles<float> {
    using Large = FmaTile<128, 64, 8, 8>;
    using Small = FmaTile<64, 32, 4, 4>;
};
using Large = Tiles<Real>::Large;
using Small = Tiles<Real>::Small;

// The tile that is this block's.
template <class Tile> __device__ __forceinline__ Place place_of_block(int rows, int columns, int block) {
    return place_of_tile(block, tiles_over(rows, Tile::ROWS), tiles_over(columns, Tile::COLUMNS));
}

// A large tile for rows that begin at multiples of 16 bytes, as the launcher knows.
template <Major A, Major B, class Epilogue>
__device__ __forceinline__ void multiply_large(const Product<Real>& product, const Epilogue& epilogue, int block) {
    Large::run<A, B, true>(product, place_of_block<Large>(product.a.count, product.b.count, block), epilogue);
}

template <class T> __device__ __forceinline__ bool packed(const Operand<T>& operand) {
    return operand.width % Pack<T>::LEN == 0 && reinterpret_cast<size_t>(operand.data) % 16 == 0;
}

template <Major A, Major B, class Epilogue>
__device__ __forceinline__ void multiply_small(const Product<Real>& product, const Epilogue& epilogue, int block) {
    const Place tile = place_of_block<Small>(product.a.count, product.b.count, block);
    if (packed(product.a) && packed(product.b))
        Small::run<A, B, true>(product, tile, epilogue);
    else
        Small::run<A, B, false>(product, tile, epilogue);
}

// y[m, n] = activation(x[m, k]·weight[n, k]ᵀ + bias); `z`, unless null, keeps what the activation was given.
__device__ __forceinline__ Product<Real> forward_product(const Real* x, const Real* weight, int m, int n, int k) {
    return {{x, k, m}, {weight, k, n}, 0, k};
}
KERNEL(128) linear_forward_large(const Real* x, const Real* weight, const float* bias, int activation, int m, int n, int k,
                                 Real* y, Real* z) {
    const ActivationEpilogue<Real> epilogue{bias, activation, n, y, z};
    multiply_large<Major::K, Major::K>(forward_product(x, weight, m, n, k), epilogue, blockIdx.x);
}
KERNEL(128) linear_forward_small(const Real* x, const Real* weight, const float* bias, int activation, int m, int n, int k,
                                 Real* y, Real* z) {
    const ActivationEpilogue<Real> epilogue{bias, activation, n, y, z};
    multiply_small<Major::K, Major::K>(forward_product(x, weight, m, n, k), epilogue, blockIdx.x);
}

// dx[m, k] (+)= dz[m, n]·weight[n, k].
__device__ __forceinline__ Product<Real> input_product(const Real* dz, const Real* weight, int m, int n, int k) {
    return {{dz, n, m}, {weight, k, k}, 0, n};
}
KERNEL(128) input_gradient_large(const Real* dz, const Real* weight, int m, int n, int k, int accumulate, Real* dx) {
    const AddEpilogue<Real> epilogue{dx, k, accumulate != 0};
    multiply_large<Major::K, Major::MN>(input_product(dz, weight, m, n, k), epilogue, blockIdx.x);
}
KERNEL(128) input_gradient_small(const Real* dz, const Real* weight, int m, int n, int k, int accumulate, Real* dx) {
    const AddEpilogue<Real> epilogue{dx, k, accumulate != 0};
    multiply_small<Major::K, Major::MN>(input_product(dz, weight, m, n, k), epilogue, blockIdx.x);
}

// dw[n, k] (+)= dz[m, n]ᵀ·x[m, k]. There are few tiles in one, and m is long: so one launch can make a group of them, and m
// can be cut into slices. Where there is more than one, slice s is written to dw[s, n, k], and `sum_slices` (sums.cu) adds
// them up in order.
struct WeightGradient {
    const Real *dz, *x;
    float* dw;
    int m, n, k;
    int slice;      // rows of dz and x that a block takes
    int accumulate; // only with a single slice
    int blocks;     // of this product and all before it in the group: tiles · slices
};
// An argument, so that no table has to be copied to the device: an argument may have 4 KiB.
struct WeightGradients {
    WeightGradient at[48];
};

template <class Tile> struct Slice {
    Product<Real> product;
    AddEpilogue<float> epilogue;
    int tile;

    // What block `block` of the group makes.
    __device__ __forceinline__ static Slice find(const WeightGradients& group, int block) {
        int i = 0;
        while (group.at[i].blocks <= block) i++;
        const WeightGradient& of = group.at[i];
        block -= i ? group.at[i - 1].blocks : 0;
        const int tiles = tiles_over(of.n, Tile::ROWS) * tiles_over(of.k, Tile::COLUMNS), slice = block / tiles;
        const int first = slice * of.slice, last = min(first + of.slice, of.m);
        float* to = of.dw + size_t(slice) * of.n * of.k;
        return {{{of.dz, of.n, of.n}, {of.x, of.k, of.k}, first, last}, {to, of.k, of.accumulate != 0}, block % tiles};
    }
};
KERNEL(128) weight_gradients_large(const __grid_constant__ WeightGradients group) {
    const auto slice = Slice<Large>::find(group, blockIdx.x);
    multiply_large<Major::MN, Major::MN>(slice.product, slice.epilogue, slice.tile);
}
KERNEL(128) weight_gradients_small(const __grid_constant__ WeightGradients group) {
    const auto slice = Slice<Small>::find(group, blockIdx.x);
    multiply_small<Major::MN, Major::MN>(slice.product, slice.epilogue, slice.tile);
}
