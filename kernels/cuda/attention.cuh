// What the kernels of attention share: where a head of a text lies, and which of its probabilities are dropped.
//
// Operands are row-major, [rows, heads · head_size]; the rows of one text follow each other from `offsets[text]` on. See
// limbeck::ops::attention for what is computed, attention_mma.cuh for how tensor cores do it.
#pragma once
#include "prelude.cuh"

constexpr float LOG2_E = 1.4426950408889634f;

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }

// One head of one text.
struct TextHead {
    int text, head, heads, head_size;
    int first, len; // its rows in keys and values, and in queries where every token has one

    __device__ __forceinline__ TextHead(const int* offsets, int text, int head, int heads, int head_size)
        : text(text), head(head), heads(heads), head_size(head_size), first(offsets[text]), len(offsets[text + 1] - first) {}
    // Elements from one row to the next.
    __device__ __forceinline__ int width() const { return heads * head_size; }
    // Where the head begins in a row of all rows.
    __device__ __forceinline__ size_t at(int row) const { return size_t(row) * width() + head * head_size; }
    __device__ __forceinline__ size_t token(int i) const { return at(first + i); }
    // Where the log-sum-exp of a query is.
    __device__ __forceinline__ size_t sum(int row) const { return size_t(row) * heads + head; }
};

// Dropout on the probabilities of one head of one text: that of query i and key j has the index (head · len + i) · len + j.
struct Kept {
    Dropout dropout;
    u64 first; // index of the head's first probability
    u64 seeds; // of indices below 2³²
    int len;
    bool on; // whether there is any

    // `keys`, one for each text, is null where nothing is dropped.
    __device__ __forceinline__ Kept(const u64* keys, u32 threshold, float factor, const TextHead& at) : len(at.len), on(keys) {
        dropout = Dropout{on ? keys[at.text] : 0, threshold, factor};
        first = u64(at.head) * len * len;
        seeds = dropout.seeds(0);
    }
    __device__ __forceinline__ float factor(int query, int key) const { return dropout.keep(first + u64(query) * len + key); }
    // The same where heads · len² is below 2³².
    __device__ __forceinline__ float narrow_factor(int query, int key) const {
        return dropout.keep(u32(first) + u32(query) * u32(len) + u32(key), seeds);
    }
};

// The scalar product of two rows of n elements.
template <class T> __device__ __forceinline__ float dot(const T* a, const T* b, int n) {
    constexpr int LEN = Pack<T>::LEN;
    float sum = 0.0f;
    if (n % LEN == 0) {
        for (int i = 0; i < n; i += LEN) {
            const Pack<T> left = Pack<T>::load(a + i), right = Pack<T>::load(b + i);
#pragma unroll
            for (int j = 0; j < LEN; j++) sum = fmaf(to_float(left.at[j]), to_float(right.at[j]), sum);
        }
    } else {
        for (int i = 0; i < n; i++) sum = fmaf(to_float(a[i]), to_float(b[i]), sum);
    }
    return sum;
}
