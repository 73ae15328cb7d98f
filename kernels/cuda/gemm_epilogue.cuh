// What becomes of the finished sums of a product: each epilogue takes a few neighbouring columns of one row.
#pragma once
#include "activation.cuh"

// Up to WIDTH elements, of which `count` exist (any above WIDTH counts as all): 16 bytes at a time where they are aligned.
template <int WIDTH, class T> __device__ __forceinline__ bool whole(const T* p, int count) {
    return count >= WIDTH && WIDTH % Pack<T>::LEN == 0 && reinterpret_cast<size_t>(p) % 16 == 0;
}
template <int WIDTH, class T> __device__ __forceinline__ void load_columns(const T* from, int count, float (&values)[WIDTH]) {
    if (whole<WIDTH>(from, count)) {
#pragma unroll
        for (int i = 0; i < WIDTH; i += Pack<T>::LEN) {
            const Pack<T> pack = Pack<T>::load(from + i);
#pragma unroll
            for (int j = 0; j < Pack<T>::LEN && i + j < WIDTH; j++) values[i + j] = to_float(pack.at[j]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) values[i] = i < count ? to_float(from[i]) : 0.0f;
    }
}
template <int WIDTH, class T> __device__ __forceinline__ void store_columns(T* to, int count, const float (&values)[WIDTH]) {
    if (whole<WIDTH>(to, count)) {
#pragma unroll
        for (int i = 0; i < WIDTH; i += Pack<T>::LEN) {
            Pack<T> pack;
#pragma unroll
            for (int j = 0; j < Pack<T>::LEN && i + j < WIDTH; j++) pack.at[j] = from_float<T>(values[i + j]);
            pack.store(to + i);
        }
    } else {
#pragma unroll
        for (int i = 0; i < WIDTH; i++)
            if (i < count) to[i] = from_float<T>(values[i]);
    }
}

// y = activation(z) with z = sums + bias. `z`, unless null, keeps it; y is made of z before that is rounded, and so is the
// same with and without.
template <class T> struct ActivationEpilogue {
    const float* bias;
    int activation, cols;
    T *y, *z;

    template <int WIDTH> __device__ __forceinline__ void operator()(int row, int column, float (&sums)[WIDTH]) const {
        const size_t at = size_t(row) * cols + column;
        float shift[WIDTH];
        load_columns(bias + column, cols - column, shift);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) sums[i] += shift[i];
        if (z) store_columns(z + at, cols - column, sums);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) sums[i] = activate(activation, sums[i]);
        store_columns(y + at, cols - column, sums);
    }
};

// The sums, written or added to what is there.
template <class T> struct AddEpilogue {
    T* out;
    int cols;
    bool accumulate;

    template <int WIDTH> __device__ __forceinline__ void operator()(int row, int column, float (&sums)[WIDTH]) const {
        T* to = out + size_t(row) * cols + column;
        if (accumulate) {
            float before[WIDTH];
            load_columns(to, cols - column, before);
#pragma unroll
            for (int i = 0; i < WIDTH; i++) sums[i] += before[i];
        }
        store_columns(to, cols - column, sums);
    }
};
