// What the tiles of a product have in common: its operands, and the order of its tiles.
//
// Every product is sums[m, n] = Σ over k of a(m, k)·b(n, k). An operand is K-major, each of its rows in memory
// holding the k of one m (or n), or MN-major, each row holding all m (or n) of one k:
//
//   forward          y = x·Wᵀ      a = x   K-major    b = W  K-major
//   input gradient   dx = dz·W     a = dz  K-major    b = W  MN-major
//   weight gradient  dW = dzᵀ·x    a = dz  MN-major   b = x  MN-major
#pragma once
#include "prelude.cuh"

namespace gemm {

constexpr int BLOCK = 128; // threads, whatever the tile

enum class Major { K, MN };

template <class T> struct Operand {
    const T* data;
    int width; // of a row in memory
    int count; // of its m, or n
};

template <class T> struct Product {
    Operand<T> a, b;
    int first, last; // of k
};

struct Place {
    int row, column; // in tiles
};

// Tiles in groups of a few rows, down the rows first: blocks that run at one time share rows of a and of b in the L2 cache.
__device__ __forceinline__ Place place_of_tile(int tile, int rows, int columns) {
    constexpr int GROUP = 8;
    const int group = tile / (GROUP * columns), within = tile % (GROUP * columns);
    const int height = min(rows - group * GROUP, GROUP);
    return {group * GROUP + within % height, within / height};
}

__device__ __forceinline__ int tiles_over(int count, int size) { return (count + size - 1) / size; }

} // namespace gemm
