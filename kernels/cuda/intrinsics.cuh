// Everything that is inline PTX: once as PTX, and once as what it means, for the emulation (kernels/emulation).
#pragma once

#ifdef LIMBECK_EMULATED

// Dynamic shared memory, as an array of T.
#define SHARED(T, name) T* name = reinterpret_cast<T*>(emulation::dynamic_shared())

__device__ inline u16 float_to_bf16(float x) { return emulation::to_bf16(x); }
__device__ inline u16 float_to_half(float x) { return emulation::to_half(x); }
__device__ inline float half_to_float(u16 x) { return emulation::from_half(x); }
// Two at once, the first in the low half.
__device__ inline u32 floats_to_bf16s(float low, float high) { return emulation::to_bf16(low) | u32(emulation::to_bf16(high)) << 16; }
__device__ inline u32 floats_to_halves(float low, float high) { return emulation::to_half(low) | u32(emulation::to_half(high)) << 16; }

// 2^x in one instruction, to two units in the last place; what is below the smallest normal number is zero.
__device__ inline float exp2_fast(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}

// d += a·b for 16 × 8 of d: a 16 × 16 by rows, b 16 × 8 by columns (PTX ISA, mma.m16n8k16).
template <class T> __device__ inline void mma_16816(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    emulation::mma_16816(d, a, b, sizeof(T) == 2 && T::HALF);
}
__device__ inline void ldmatrix_x4(u32 (&r)[4], const void* row) { emulation::ldmatrix(r, 4, row, false); }
__device__ inline void ldmatrix_x2(u32 (&r)[2], const void* row) { emulation::ldmatrix(r, 2, row, false); }
__device__ inline void ldmatrix_x4_trans(u32 (&r)[4], const void* row) { emulation::ldmatrix(r, 4, row, true); }
__device__ inline void ldmatrix_x2_trans(u32 (&r)[2], const void* row) { emulation::ldmatrix(r, 2, row, true); }

// Copies 16 bytes to shared memory, of which the first `bytes` (0 to 16) are read and the rest are zeros.
__device__ inline void cp_async_16(void* shared, const void* global, int bytes) {
    emulation::cp_async(shared, global, bytes);
}
__device__ inline void cp_async_commit() { emulation::cp_async_commit(); }
template <int N> __device__ inline void cp_async_wait() { emulation::cp_async_wait(N); }

#else

#define SHARED(T, name)                                                                                                \
    extern __shared__ __align__(128) unsigned char name##_bytes[];                                                     \
    T* name = reinterpret_cast<T*>(name##_bytes)

__device__ __forceinline__ u16 float_to_bf16(float x) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ __forceinline__ u16 float_to_half(float x) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ __forceinline__ float half_to_float(u16 bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

__device__ __forceinline__ u32 floats_to_bf16s(float low, float high) {
    u32 bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
__device__ __forceinline__ u32 floats_to_halves(float low, float high) {
    u32 bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

template <class T> __device__ __forceinline__ void mma_16816(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]);
template <> __device__ __forceinline__ void mma_16816<Bf16>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <> __device__ __forceinline__ void mma_16816<F16>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void cp_async_16(void* shared, const void* global, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif
