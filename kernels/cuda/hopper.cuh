// What sm_90a adds: boxes of a matrix copied by the device itself, barriers that count what they bring, and products that a
// warpgroup (four warps, the first a multiple of four) makes of two matrices in shared memory. Each as PTX, and as what it means.
#pragma once
#include "prelude.cuh"

// A matrix in device memory, and in which boxes it is copied: the driver makes it (cuTensorMapEncodeTiled), nobody reads it here.
struct alignas(128) TensorMap {
    u64 opaque[16];
};

constexpr int WARPGROUP = 128;

#ifdef LIMBECK_EMULATED

__device__ inline u32 shared_address(const void* p) { return emulation::shared_address(p); }

// A barrier in shared memory: a phase ends when `arrivals` threads have arrived and all bytes that were expected have come.
__device__ inline void mbarrier_init(u64* barrier, u32 arrivals) { emulation::mbarrier_init(barrier, arrivals); }
// Barriers that this thread has begun are seen by the device's copies, too.
__device__ inline void mbarrier_init_fence() { emulation::mbarrier_init_fence(); }
__device__ inline void mbarrier_arrive(u64* barrier) { emulation::mbarrier_arrive(barrier, 0); }
// Arrives, and has the phase wait for so many bytes.
__device__ inline void mbarrier_arrive_expect_tx(u64* barrier, u32 bytes) { emulation::mbarrier_arrive(barrier, bytes); }
// Waits for the end of the phase of this parity: of the first phase it is 0.
__device__ inline void mbarrier_wait(u64* barrier, u32 parity) { emulation::mbarrier_wait(barrier, parity); }

// Begins to copy the box at (row, column), with zeros where the matrix has ended; the barrier is told of its bytes.
__device__ inline void tma_load(void* shared, const TensorMap* map, int row, int column, u64* barrier) {
    emulation::tma_load(shared, map, row, column, barrier);
}

// Before the first product, and whenever sums have been touched by anything else.
__device__ inline void wgmma_fence() { emulation::wgmma_fence(); }
__device__ inline void wgmma_commit() { emulation::wgmma_commit(); }
// Waits until at most N of the groups that were committed are under way.
template <int N> __device__ inline void wgmma_wait() { emulation::wgmma_wait(N); }
// d += a·b for 64 × 128 of d and 16 of k, by descriptors (PTX ISA, "Matrix descriptor format"), each operand K-major or MN-major.
template <class T, bool A_MN, bool B_MN> __device__ inline void wgmma_64x128x16(float (&d)[64], u64 a, u64 b) {
    emulation::wgmma(d, 128, a, b, A_MN, B_MN, T::HALF);
}

// Registers of each thread from here on, by all warps of a warpgroup.
template <int COUNT> __device__ inline void setmaxnreg_dec() {}
template <int COUNT> __device__ inline void setmaxnreg_inc() {}

#else

// Registers can be handed from one warpgroup to another only where the compiler knows how many there are.
#undef KERNEL
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)

__device__ __forceinline__ void mbarrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void mbarrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_expect_tx(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void mbarrier_wait(u64* barrier, u32 parity) {
    u32 come;
    do {
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(come) : "r"(shared_address(barrier)), "r"(parity) : "memory");
    } while (!come);
}

__device__ __forceinline__ void tma_load(void* shared, const TensorMap* map, int row, int column, u64* barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
                 ::"r"(shared_address(shared)), "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier))
                 : "memory");
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

#define SUMS_8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define SUMS_64(d)                                                                                                              \
    SUMS_8(d, 0), SUMS_8(d, 8), SUMS_8(d, 16), SUMS_8(d, 24), SUMS_8(d, 32), SUMS_8(d, 40), SUMS_8(d, 48), SUMS_8(d, 56)
#define WGMMA_64x128x16(types, d, a, b, a_mn_major, b_mn_major)                                                                     \
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, 1, 0;\n\t"                                                               \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." types " "                                                       \
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"      \
                 "%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,"     \
                 "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, %64, %65, p, 1, 1, %66, %67;\n\t}"                                  \
                 : SUMS_64(d)                                                                                                   \
                 : "l"(a), "l"(b), "n"(a_mn_major), "n"(b_mn_major))

template <class T, bool A_MN, bool B_MN> __device__ __forceinline__ void wgmma_64x128x16(float (&d)[64], u64 a, u64 b) {
    if constexpr (T::HALF)
        WGMMA_64x128x16("f16.f16", d, a, b, int(A_MN), int(B_MN));
    else
        WGMMA_64x128x16("bf16.bf16", d, a, b, int(A_MN), int(B_MN));
}

template <int COUNT> __device__ __forceinline__ void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> __device__ __forceinline__ void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

#endif
