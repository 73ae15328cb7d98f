// What the instructions of a warp mean. Fragments are laid out as the PTX ISA says.
#include "machine.h"

#include <algorithm>

namespace emulation {

namespace {

struct Product {
    float* d;
    const unsigned *a, *b;
    bool half;
};

float element(unsigned pair, int which, bool half) {
    const uint16_t bits = uint16_t(pair >> (16 * which));
    return half ? from_half(bits) : from_bf16(bits);
}

void multiply(void* const (&brought)[32], unsigned mask) {
    if (mask != 0xffffffffu) die("mma needs the whole warp");
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const Product& p = *static_cast<Product*>(brought[lane]);
        const int group = lane / 4, place = lane % 4;
        for (int h = 0; h < 2; h++) {
            for (int r = 0; r < 4; r++) a[group + r % 2 * 8][place * 2 + h + r / 2 * 8] = element(p.a[r], h, p.half);
            for (int r = 0; r < 2; r++) b[place * 2 + h + r * 8][group] = element(p.b[r], h, p.half);
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        float* d = static_cast<Product*>(brought[lane])->d;
        const int group = lane / 4, place = lane % 4;
        for (int r = 0; r < 4; r++) {
            const int row = group + r / 2 * 8, column = place * 2 + r % 2;
            for (int k = 0; k < 16; k++) d[r] += a[row][k] * b[k][column];
        }
    }
}

struct Matrices {
    unsigned* into;
    const uint8_t* row;
    int count;
    bool transposed;
};

void load_matrices(void* const (&brought)[32], unsigned mask) {
    if (mask != 0xffffffffu) die("ldmatrix needs the whole warp");
    const int count = static_cast<Matrices*>(brought[0])->count;
    for (int m = 0; m < count; m++) {
        const uint8_t* rows[8];
        for (int r = 0; r < 8; r++) {
            rows[r] = static_cast<Matrices*>(brought[m * 8 + r])->row;
            if (reinterpret_cast<uintptr_t>(rows[r]) & 15) die("a row of ldmatrix is not aligned to 16 bytes");
        }
        for (int lane = 0; lane < 32; lane++) {
            const Matrices& mine = *static_cast<Matrices*>(brought[lane]);
            uint16_t pair[2];
            for (int h = 0; h < 2; h++) {
                const int row = mine.transposed ? lane % 4 * 2 + h : lane / 4;
                const int column = mine.transposed ? lane / 4 : lane % 4 * 2 + h;
                std::memcpy(&pair[h], rows[row] + column * 2, 2);
            }
            std::memcpy(mine.into + m, pair, 4);
        }
    }
}

struct Exchange {
    Shuffle how;
    int by, width;
    size_t bytes;
    uint8_t* value;
    uint8_t before[16];
};

int source(const Exchange& e, int lane) {
    const int first = lane & ~(e.width - 1), last = first + e.width - 1;
    switch (e.how) {
    case Shuffle::Xor: return (lane ^ e.by) <= last ? lane ^ e.by : lane;
    case Shuffle::Down: return lane + e.by <= last ? lane + e.by : lane;
    case Shuffle::Up: return lane - e.by >= first ? lane - e.by : lane;
    default: return first + (e.by & (e.width - 1));
    }
}

void exchange(void* const (&brought)[32], unsigned) {
    for (int lane = 0; lane < 32; lane++) {
        if (!brought[lane]) continue;
        const Exchange& mine = *static_cast<Exchange*>(brought[lane]);
        const int from = source(mine, lane);
        if (!brought[from]) die("a shuffle reads a lane outside its mask or the block");
        std::memcpy(mine.value, static_cast<Exchange*>(brought[from])->before, mine.bytes);
    }
}

struct Vote {
    bool mine;
    unsigned all;
};

void count(void* const (&brought)[32], unsigned) {
    unsigned all = 0;
    for (int lane = 0; lane < 32; lane++)
        if (brought[lane] && static_cast<Vote*>(brought[lane])->mine) all |= 1u << lane;
    for (int lane = 0; lane < 32; lane++)
        if (brought[lane]) static_cast<Vote*>(brought[lane])->all = all;
}

} // namespace

void mma_16816(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], bool half) {
    Product product{d, a, b, half};
    meet(0xffffffffu, multiply, &product);
}

void ldmatrix(unsigned* into, int matrices, const void* row, bool transposed) {
    Matrices mine{into, static_cast<const uint8_t*>(row), matrices, transposed};
    meet(0xffffffffu, load_matrices, &mine);
}

void shuffle(unsigned mask, Shuffle how, int by, int width, void* value, size_t bytes) {
    Exchange mine{how, by, width, bytes, static_cast<uint8_t*>(value), {}};
    if (bytes > sizeof mine.before) die("a shuffle of more than 16 bytes");
    std::memcpy(mine.before, value, bytes);
    meet(mask, exchange, &mine);
}

unsigned ballot(unsigned mask, bool mine) {
    Vote vote{mine, 0};
    meet(mask, count, &vote);
    return vote.all;
}

} // namespace emulation
