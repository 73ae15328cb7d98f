// What every kernel is written with: storage types, conversions, reductions, random numbers.
//
// A source is compiled once for each type that activations are stored in, `Real`: float, Bf16 or F16. Sums are kept in
// float whatever that type is; parameters and their gradients are float always. No header but ours is needed: NVRTC alone
// suffices. `KERNEL(threads)` declares a kernel and the most threads its blocks may have: `limbeck_kernels::cuda` finds
// kernels by that word.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

struct Bf16 {
    static constexpr bool HALF = false;
    u16 bits;
};
struct F16 {
    static constexpr bool HALF = true;
    u16 bits;
};

#ifndef Real
#define Real float
#endif

constexpr u32 FULL_WARP = 0xffffffffu;
constexpr int WARP = 32;

#include "intrinsics.cuh"

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(Bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
__device__ __forceinline__ float to_float(F16 x) { return half_to_float(x.bits); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ Bf16 from_float<Bf16>(float x) { return Bf16{float_to_bf16(x)}; }
template <> __device__ __forceinline__ F16 from_float<F16>(float x) { return F16{float_to_half(x)}; }

// Sixteen bytes of elements: what a thread loads and stores at once where rows allow it.
template <class T> struct alignas(16) Pack {
    static constexpr int LEN = 16 / sizeof(T);
    T at[LEN];
    __device__ __forceinline__ static Pack load(const T* p) {
        Pack pack;
        *reinterpret_cast<uint4*>(pack.at) = *reinterpret_cast<const uint4*>(p);
        return pack;
    }
    __device__ __forceinline__ void store(T* p) const { *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(at); }
};

__device__ __forceinline__ int lane_of_thread() { return threadIdx.x % WARP; }
__device__ __forceinline__ int warp_of_thread() { return threadIdx.x / WARP; }

// Sums and maxima over a warp: every lane gets the result, in one order.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2) x += __shfl_xor_sync(FULL_WARP, x, other);
    return x;
}
__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2) x += __shfl_xor_sync(FULL_WARP, x, other);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, other));
    return x;
}

// The sum over a block of up to 1024 threads, whole warps; `partial` has a place for each warp. Every thread gets it.
template <class T> __device__ __forceinline__ T block_sum(T x, T* partial) {
    x = warp_sum(x);
    __syncthreads();
    if (lane_of_thread() == 0) partial[warp_of_thread()] = x;
    __syncthreads();
    const int warps = blockDim.x / WARP;
    return warp_sum(lane_of_thread() < warps ? partial[lane_of_thread()] : T(0));
}

// SplitMix64's words (limbeck_kernels::random) and dropout's hash (limbeck_kernels::rows::dropout): the same bits as on the CPU.
__device__ __forceinline__ u64 random_mix(u64 value) {
    u64 z = value + 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// Which elements of one text are kept at one place of the network, and by how much they are multiplied.
struct Dropout {
    u64 key;       // of the text at this place
    u32 threshold; // rate · 2³¹
    float factor;  // 1 / (1 - rate)

    // The random words of all indices whose high half this is.
    __device__ __forceinline__ u64 seeds(u32 high) const { return random_mix(key + high * 0x9e3779b97f4a7c15ull); }

    // The factor of the index with this low half, and the words of its high half.
    __device__ __forceinline__ float keep(u32 low, u64 seeds) const {
        u32 x = low ^ u32(seeds);
        x = (x ^ (x >> 17)) * 0xed5ad4bbu;
        x = (x ^ (x >> 11)) * 0xac4c1b51u;
        x += u32(seeds >> 32);
        x = (x ^ (x >> 15)) * 0x31848babu;
        return (x >> 1) < threshold ? 0.0f : factor;
    }
    __device__ __forceinline__ float keep(u64 index) const { return keep(u32(index), seeds(u32(index >> 32))); }
};
