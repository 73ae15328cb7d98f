// The part of CUDA C++ that the kernels use, on a CPU: put in front of a kernel by `c++ -include machine.h`.
//
// Each thread of a block is a fiber of one host thread, so shared memory is thread-local; blocks are spread over host
// threads. An operation of a warp (shuffle, vote, ldmatrix, mma) is done once, when every live lane of its mask has come
// to it. Programs that would hang or read garbage on a device end here with a message: a barrier that some threads never
// reach, a shuffle from a lane outside the mask, a load, store or copy that is not aligned, a copy to shared memory that nobody waited
// for (it is made at the wait, and shared memory begins as NaN) or that comes too early (in one order of threads it is made at once).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define LIMBECK_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static thread_local
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

namespace emulation {

// Who runs at the moment.
struct Place {
    uint3 thread, block;
    dim3 threads, blocks;
};
const Place& place();

[[noreturn]] void die(const char* what);
uint8_t* dynamic_shared();
size_t dynamic_shared_bytes();

void block_barrier();
// Meets the other lanes of `mask`; `act` is then called once, with what each lane brought (null for lanes outside).
using Meeting = void (*)(void* const (&brought)[32], unsigned mask);
void meet(unsigned mask, Meeting act, void* mine);
// Meets the block: how many threads said so.
int block_vote(bool mine);
// Meets the other threads of the warpgroup; `act` is then called once, with the number of the group and what each brought.
constexpr int WARPGROUP_THREADS = 128;
using Gathering = void (*)(int group, void* const (&brought)[WARPGROUP_THREADS]);
void gather(Gathering act, void* mine);
// Lets the block's other threads run until `come` says so of `what`; the message is for when it never does.
void wait_until(bool (*come)(const void* what), const void* what, const char* message);

// What a device does by itself, at some time after it was asked to: its tensor cores as late as can be, when no thread can
// move; copies later still, at once, or either way by chance, by the order of threads.
enum class Unit { TensorCores, Copies };
void put_off(Unit unit, std::function<void()> work);

void cp_async(void* shared, const void* global, int bytes);
void cp_async_commit();
void cp_async_wait(int pending);

inline float from_bf16(uint16_t bits) {
    uint32_t wide = uint32_t(bits) << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
}
uint16_t to_bf16(float x);
float from_half(uint16_t bits);
uint16_t to_half(float x);

// cpp/hopper.cpp: what sm_90a adds. Addresses in shared memory are as a device counts them.
uint32_t shared_address(const void* p);
void mbarrier_init(unsigned long long* barrier, unsigned arrivals);
void mbarrier_init_fence();
void mbarrier_arrive(unsigned long long* barrier, unsigned expected_bytes);
void mbarrier_wait(const unsigned long long* barrier, unsigned parity);
// cuTensorMapEncodeTiled: false for what the driver refuses.
bool encode_map(void* map, int type, unsigned rank, void* address, const uint64_t* sizes, const uint64_t* strides, const unsigned* box,
                const unsigned* element_strides, int interleave, int swizzle, int promotion, int fill);
void tma_load(void* shared, const void* map, int row, int column, unsigned long long* barrier);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int pending);
// d += a·b for 64 × columns of d and 16 of k, a and b by descriptors.
void wgmma(float* d, int columns, uint64_t a, uint64_t b, bool a_mn_major, bool b_mn_major, bool half);
// A block begins, and has ended: then nothing may be under way.
void hopper_begin();
void hopper_end();
// What this thread's launches have multiplied by wgmma.
uint64_t warpgroup_products();

void mma_16816(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], bool half);
void ldmatrix(unsigned* into, int matrices, const void* row, bool transposed);

enum class Shuffle { Xor, Down, Up, Index };
void shuffle(unsigned mask, Shuffle how, int by, int width, void* value, size_t bytes);
unsigned ballot(unsigned mask, bool mine);

// Calls a kernel with arguments as cuLaunchKernel takes them: a pointer to each.
using Entry = void (*)(void** arguments);
template <class F> struct Arguments;
template <class... A> struct Arguments<void (*)(A...)> {
    using Types = std::tuple<std::remove_cv_t<A>...>;
};
// Wherever it lies: a launch that was written down has its arguments at multiples of 8 bytes.
template <class T> T argument(const void* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}
template <auto KERNEL, size_t... I> void call(void** arguments, std::index_sequence<I...>) {
    using Types = typename Arguments<decltype(KERNEL)>::Types;
    KERNEL(argument<std::tuple_element_t<I, Types>>(arguments[I])...);
}
// What a device takes of arguments.
constexpr size_t MOST_ARGUMENT_BYTES = 4096;
template <auto KERNEL> void entry(void** arguments) {
    using Types = typename Arguments<decltype(KERNEL)>::Types;
    static_assert(sizeof(Types) <= MOST_ARGUMENT_BYTES, "a kernel's arguments are at most 4 KiB");
    call<KERNEL>(arguments, std::make_index_sequence<std::tuple_size_v<Types>>{});
}

// A copy of a launch's arguments: the driver has read them when a launch returns, and the kernel runs later.
struct Kept {
    std::vector<void*> at;
    std::shared_ptr<void> values;
};
template <auto KERNEL, size_t... I> Kept copy(void** arguments, std::index_sequence<I...>) {
    using Types = typename Arguments<decltype(KERNEL)>::Types;
    auto values = std::make_shared<Types>(argument<std::tuple_element_t<I, Types>>(arguments[I])...);
    return {{static_cast<void*>(&std::get<I>(*values))...}, values};
}
template <auto KERNEL> Kept keep(void** arguments) {
    using Types = typename Arguments<decltype(KERNEL)>::Types;
    return copy<KERNEL>(arguments, std::make_index_sequence<std::tuple_size_v<Types>>{});
}

// A kernel of one source, compiled for one type of activations.
struct Kernel {
    const char *source, *type, *name;
    Entry entry;
    Kept (*keep)(void** arguments);
};
// Adds to the list that the driver looks kernels up in.
struct Listed {
    explicit Listed(Kernel kernel);
};
const Kernel* find(const char* source, const char* type, const char* name);

// Order in which threads run: 0 ascending, 1 descending, else the seed of a shuffled one.
void launch(const Kernel& kernel, void** arguments, dim3 blocks, dim3 threads, unsigned shared_bytes, int workers, int order);

// Kernels that this process has not launched in each kind of order, a line each: source, type, name, the kinds that lack.
std::string not_launched();

} // namespace emulation

#define threadIdx (emulation::place().thread)
#define blockIdx (emulation::place().block)
#define blockDim (emulation::place().threads)
#define gridDim (emulation::place().blocks)

inline void __syncthreads() { emulation::block_barrier(); }
inline int __syncthreads_or(int mine) { return emulation::block_vote(mine != 0) > 0; }
inline int __syncthreads_count(int mine) { return emulation::block_vote(mine != 0); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulation::meet(mask, [](void* const (&)[32], unsigned) {}, nullptr);
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32) {
    emulation::shuffle(mask, emulation::Shuffle::Xor, by, width, &value, sizeof value);
    return value;
}
template <class T> T __shfl_down_sync(unsigned mask, T value, int by, int width = 32) {
    emulation::shuffle(mask, emulation::Shuffle::Down, by, width, &value, sizeof value);
    return value;
}
template <class T> T __shfl_up_sync(unsigned mask, T value, int by, int width = 32) {
    emulation::shuffle(mask, emulation::Shuffle::Up, by, width, &value, sizeof value);
    return value;
}
template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    emulation::shuffle(mask, emulation::Shuffle::Index, from, width, &value, sizeof value);
    return value;
}
inline unsigned __ballot_sync(unsigned mask, int mine) { return emulation::ballot(mask, mine != 0); }
inline int __any_sync(unsigned mask, int mine) { return emulation::ballot(mask, mine != 0) != 0; }
inline int __all_sync(unsigned mask, int mine) { return emulation::ballot(mask, mine == 0) == 0; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __uint_as_float(unsigned x) {
    float f;
    std::memcpy(&f, &x, 4);
    return f;
}
inline unsigned __float_as_uint(float x) {
    unsigned u;
    std::memcpy(&u, &x, 4);
    return u;
}
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline float __int_as_float(int x) { return __uint_as_float(unsigned(x)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
using std::exp;
using std::fma;
using std::isfinite;
using std::log;
using std::sqrt;

inline int atomicAdd(int* p, int v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
inline unsigned atomicAdd(unsigned* p, unsigned v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
inline unsigned atomicMax(unsigned* p, unsigned v) {
    unsigned old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (old < v && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
