// That the emulation of sm_90a sees faults: a small product, right or with one of them. `faults FAULT ORDER` ends with 0 for right
// sums, 3 for wrong ones, and is aborted with a message where a device would hang.
#include "machine.h"

#include "hopper.cuh"

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr int M = 64, N = 128, SIDE = 64, STEPS = 3, BOX = SIDE * SIDE * 2;

// What is wrong.
const char* const FAULTS[] = {"none", "swizzle", "stride", "leading", "major", "aligned", "expect", "expect_more", "unwaited", "released",
                              "unfinished", "unfenced", "unseen", "uncommitted"};
int fault = 0;
bool is(const char* name) { return !std::strcmp(FAULTS[fault], name); }

u64 descriptor(u32 start, u32 leading, u32 stride) { return u64(start >> 4) | u64(leading >> 4) << 16 | u64(stride >> 4) << 32 | 1ull << 62; }

// out[64, 128] = a[64, k]·b[k, 128] by one warpgroup, with another's first thread fetching, through a ring of one stage.
void product(const TensorMap a, const TensorMap b, float* out) {
    SHARED(unsigned char, memory);
    unsigned char* stage = memory + (0u - shared_address(memory)) % 1024 + (is("aligned") ? 128 : 0);
    u64 *full = reinterpret_cast<u64*>(memory + 4 * BOX + 1024), *empty = full + 1;
    if (threadIdx.x == 0) {
        mbarrier_init(full, 1);
        mbarrier_init(empty, 4);
        if (!is("unseen")) mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        for (int step = 0; step < STEPS && threadIdx.x == 0; step++) {
            mbarrier_wait(empty, u32(step & 1) ^ 1);
            if (is("expect"))
                mbarrier_arrive(full);
            else
                mbarrier_arrive_expect_tx(full, 3 * BOX + (is("expect_more") ? 16 : 0));
            tma_load(stage, &a, 0, step * SIDE, full);
            for (int box = 0; box < 2; box++) tma_load(stage + (box + 1) * BOX, &b, step * SIDE, box * SIDE, full);
        }
        return;
    }
    float sums[64] = {};
    for (int step = 0; step < STEPS; step++) {
        if (!is("unwaited")) mbarrier_wait(full, step & 1);
        if (!is("unfenced")) wgmma_fence();
        for (int k = 0; k < SIDE; k += 16) {
            const u64 of_a = descriptor(shared_address(stage) + k * 2, 16, is("stride") ? 512 : 1024);
            const u64 of_b = descriptor(shared_address(stage) + BOX + k * 128, is("leading") ? 1024 : BOX, 1024);
            if (is("major"))
                wgmma_64x128x16<Bf16, false, false>(sums, of_a, of_b);
            else
                wgmma_64x128x16<Bf16, false, true>(sums, of_a, of_b);
        }
        if (!is("uncommitted")) wgmma_commit();
        if (is("released") && lane_of_thread() == 0) mbarrier_arrive(empty);
        if (!is("unfinished")) wgmma_wait<0>();
        if (!is("released") && lane_of_thread() == 0) mbarrier_arrive(empty);
    }
    for (int i = 0; i < 64; i++) {
        const int row = warp_of_thread() % 4 * 16 + lane_of_thread() / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane_of_thread() % 4 * 2 + i % 2;
        out[row * N + column] = sums[i];
    }
}

TensorMap map_of(std::vector<u16>& matrix, int rows, int columns) {
    TensorMap map;
    const uint64_t sizes[2] = {u64(columns), u64(rows)}, stride = columns * 2;
    const unsigned box[2] = {SIDE, SIDE}, ones[2] = {1, 1};
    if (!emulation::encode_map(&map, 9, 2, matrix.data(), sizes, &stride, box, ones, 0, is("swizzle") ? 0 : 3, 2, 0)) std::abort();
    return map;
}

} // namespace

int main(int count, char** words) {
    for (fault = 0; count == 3 && fault < int(std::size(FAULTS)) && std::strcmp(FAULTS[fault], words[1]); fault++) {}
    if (count != 3 || fault == int(std::size(FAULTS))) return 2;
    const int depth = STEPS * SIDE - 8; // the last box goes beyond the matrix
    std::vector<u16> a(M * depth), b(depth * N);
    std::vector<float> out(M * N);
    const auto value = [](int i) { return float(i * 37 % 17 - 8); };
    for (int i = 0; i < M * depth; i++) a[i] = emulation::to_bf16(value(i));
    for (int i = 0; i < depth * N; i++) b[i] = emulation::to_bf16(value(3 * i + 1));
    const TensorMap of_a = map_of(a, M, depth), of_b = map_of(b, depth, N);
    float* to = out.data();
    void* arguments[] = {const_cast<TensorMap*>(&of_a), const_cast<TensorMap*>(&of_b), &to};
    const emulation::Kernel kernel{"faults", "Bf16", FAULTS[fault], emulation::entry<product>, emulation::keep<product>};
    emulation::launch(kernel, arguments, {1}, {2 * WARPGROUP}, 4 * BOX + 2048, 1, std::atoi(words[2]));
    for (int row = 0; row < M; row++)
        for (int column = 0; column < N; column++) {
            float sum = 0; // of whole numbers: exact
            for (int k = 0; k < depth; k++) sum += value(row * depth + k) * value(3 * (k * N + column) + 1);
            if (out[row * N + column] != sum) return 3;
        }
    return 0;
}
