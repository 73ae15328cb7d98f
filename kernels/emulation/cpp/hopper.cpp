// What sm_90a adds to a block, as the PTX ISA describes it: barriers in shared memory that count bytes, copies of boxes
// (cp.async.bulk.tensor), products of warpgroups (wgmma).
//
// A copy is made at once or as late as can be, by the order of threads, and products when no thread can move: a stage that is
// read before its barrier was waited for, or filled again before its products were, gives wrong sums in one of the orders.
#include "machine.h"

#include <deque>
#include <vector>

namespace emulation {

namespace {

// The driver's 128 bytes, as this stand-in lays them out.
struct Map {
    uint64_t mark;
    const uint8_t* address;
    uint64_t width, height, stride; // elements of a row, rows, bytes from one to the next
    uint32_t box_width, box_height, element;
    int swizzle; // 0: none; 1 to 3: over 32, 64, 128 bytes
};
constexpr uint64_t MAP = 0x70616d20726f736eull;

// A barrier's 64 bits, as this stand-in lays them out. Memory that nobody has begun is all ones.
struct Barrier {
    int64_t bytes : 21;
    uint64_t arrivals : 15, pending : 15, parity : 1, mark : 12;
};
static_assert(sizeof(Barrier) == 8);
constexpr unsigned BEGUN = 0x5a5;

// A product of 64 × columns, with each thread's part of the sums.
struct Product {
    float* sums[WARPGROUP_THREADS];
    int columns;
    uint64_t a, b;
    bool a_mn_major, b_mn_major, half;
};
using Group = std::vector<Product>;

struct Warpgroup {
    Group open;
    uint64_t committed = 0, done = 0; // groups
    bool fenced = false;
};

struct Block {
    std::vector<Barrier*> barriers;
    bool fenced = true; // barriers
    std::vector<Warpgroup> groups;
};
thread_local Block block;
thread_local uint64_t multiplied = 0;

Barrier& begun(void* at) {
    Barrier& barrier = *static_cast<Barrier*>(at);
    if (reinterpret_cast<uintptr_t>(at) % 8 || barrier.mark != BEGUN) die("a barrier in shared memory that nobody has begun");
    return barrier;
}

void end_phase(Barrier& barrier) {
    if (barrier.pending || barrier.bytes) return;
    barrier.parity ^= 1;
    barrier.pending = barrier.arrivals;
}

// The bytes at an address in shared memory, as a device counts them.
uint8_t* in_shared(uint32_t address, uint32_t bytes) {
    const uint64_t from = uint64_t(address) - shared_address(dynamic_shared()); // huge if it lies before
    if (from > dynamic_shared_bytes() || from + bytes > dynamic_shared_bytes()) die("an address outside the block's shared memory");
    return dynamic_shared() + from;
}

// Copies a box, and tells the barrier of all its bytes: those beyond the matrix are zeros.
void copy(const Map& map, uint32_t to, int row, int column, Barrier* barrier) {
    const uint32_t line = map.box_width * map.element;
    for (uint32_t r = 0; r < map.box_height; r++)
        for (uint32_t at = 0; at < line; at += 16) {
            uint8_t chunk[16] = {};
            const int64_t y = int64_t(row) + r, x = int64_t(column) + at / map.element;
            if (y >= 0 && y < int64_t(map.height))
                for (uint32_t i = 0; i < 16; i += map.element)
                    if (const int64_t here = x + i / map.element; here >= 0 && here < int64_t(map.width))
                        std::memcpy(chunk + i, map.address + y * map.stride + here * map.element, map.element);
            const uint32_t linear = to + r * line + at, exchanged = (linear >> 7 & ((1u << map.swizzle) - 1)) << 4;
            std::memcpy(in_shared(linear ^ exchanged, 16), chunk, 16);
        }
    barrier->bytes -= line * map.box_height;
    end_phase(*barrier);
}

// Where a descriptor's matrix has an element, in bytes of shared memory (PTX ISA: "Matrix descriptor format", "Canonical
// layouts"). `m` is m or n.
struct Descriptor {
    uint32_t start, leading, stride, swizzle; // swizzle: 0 none, 1 to 3 over 32, 64, 128 bytes
    bool mn_major;

    Descriptor(uint64_t bits, bool mn_major) : mn_major(mn_major) {
        start = (bits & 0x3fff) << 4, leading = (bits >> 16 & 0x3fff) << 4, stride = (bits >> 32 & 0x3fff) << 4;
        swizzle = (4 - (bits >> 62)) % 4;
        if (bits & 0x3ff1c000c000c000ull) die("a matrix descriptor with bits that mean nothing");
        if (start >> 7 & ((1u << swizzle) - 1)) die("a swizzled matrix whose pattern begins elsewhere than its base offset, 0, says");
        if (bits >> 49 & 7) die("a matrix descriptor with a base offset, which is not emulated");
    }
    uint32_t at(int m, int k) const {
        constexpr int T = 8; // elements of 16 bytes
        const int atom = 1 << swizzle; // chunks of a line
        uint32_t bytes;
        if (mn_major && swizzle)
            bytes = m % T * 2 + m / T % atom * 16 + m / (T * atom) * leading + k % 8 * atom * 16 + k / 8 * stride;
        else if (mn_major)
            bytes = m % T * 2 + m / T * stride + k % 8 * 16 + k / 8 * leading;
        else
            bytes = m % 8 * atom * 16 + m / 8 * stride + k % T * 2 + k / T * (swizzle ? 16 : leading);
        const uint32_t linear = start + bytes;
        return linear ^ (linear >> 7 & (atom - 1)) << 4;
    }
};

void multiply(const Product& product) {
    constexpr int DEPTH = 16, ROWS = 64;
    const Descriptor of_a(product.a, product.a_mn_major), of_b(product.b, product.b_mn_major);
    const auto element = [&](const Descriptor& matrix, int m, int k) {
        uint16_t bits;
        std::memcpy(&bits, in_shared(matrix.at(m, k), 2), 2);
        return product.half ? from_half(bits) : from_bf16(bits);
    };
    static thread_local float b[DEPTH][256], sums[256];
    for (int k = 0; k < DEPTH; k++)
        for (int n = 0; n < product.columns; n++) b[k][n] = element(of_b, n, k);
    for (int row = 0; row < ROWS; row++) {
        // Of warp row / 16 the four threads of row % 8, each with two columns of every eight.
        float* const* threads = product.sums + row / 16 * 32 + row % 8 * 4;
        const int below = row / 8 % 2 * 2;
        for (int n = 0; n < product.columns; n++) sums[n] = threads[n % 8 / 2][n / 8 * 4 + below + n % 2];
        for (int k = 0; k < DEPTH; k++) {
            const float a = element(of_a, row, k);
            for (int n = 0; n < product.columns; n++) sums[n] += a * b[k][n];
        }
        for (int n = 0; n < product.columns; n++) threads[n % 8 / 2][n / 8 * 4 + below + n % 2] = sums[n];
    }
    multiplied++;
}

Warpgroup& warpgroup(int number) {
    if (int(block.groups.size()) <= number) block.groups.resize(number + 1);
    return block.groups[number];
}
int own_group() { return (place().thread.x) / WARPGROUP_THREADS; }

} // namespace

// As if 1 KiB and a little more lay before it: dynamic shared memory begins at no more than what was asked for, 128 bytes.
uint32_t shared_address(const void* p) { return uint32_t(static_cast<const uint8_t*>(p) - dynamic_shared()) + 1024 + 128; }

void mbarrier_init(unsigned long long* at, unsigned arrivals) {
    if (reinterpret_cast<uintptr_t>(at) % 8 || arrivals == 0 || arrivals >= 1 << 15) die("a barrier is 8 bytes, for 1 thread or more");
    Barrier& barrier = *reinterpret_cast<Barrier*>(at);
    barrier = {};
    barrier.arrivals = barrier.pending = arrivals, barrier.mark = BEGUN;
    block.barriers.push_back(&barrier);
    block.fenced = false;
}
void mbarrier_init_fence() { block.fenced = true; }

void mbarrier_arrive(unsigned long long* at, unsigned expected_bytes) {
    Barrier& barrier = begun(at);
    if (barrier.pending == 0) die("more threads arrive at a barrier than it was begun for");
    barrier.bytes += expected_bytes;
    barrier.pending--;
    end_phase(barrier);
}

void mbarrier_wait(const unsigned long long* at, unsigned parity) {
    begun(const_cast<unsigned long long*>(at));
    const auto come = [](const void* what) {
        const uintptr_t place = reinterpret_cast<uintptr_t>(what);
        return begun(reinterpret_cast<void*>(place & ~uintptr_t(1))).parity != (place & 1);
    };
    wait_until(come, reinterpret_cast<const uint8_t*>(at) + (parity & 1), "a barrier in shared memory whose phase never ends");
}

bool encode_map(void* out, int type, unsigned rank, void* address, const uint64_t* sizes, const uint64_t* strides, const unsigned* box,
                const unsigned* element_strides, int interleave, int swizzle, int promotion, int fill) {
    const bool sixteen = type == 6 || type == 9, known = rank == 2 && sixteen && interleave == 0 && swizzle >= 0 && swizzle <= 3;
    if (!known || promotion < 0 || promotion > 3 || fill != 0) return false;
    const auto multiple = [](const void* p, uintptr_t of) { return reinterpret_cast<uintptr_t>(p) % of == 0; };
    const uint64_t line = box[0] * 2, most = swizzle == 0 ? 512 : 16u << swizzle;
    if (!multiple(out, 64) || !multiple(address, 16) || strides[0] % 16 || strides[0] >> 40 || strides[0] < sizes[0] * 2) return false;
    for (int i = 0; i < 2; i++)
        if (sizes[i] == 0 || sizes[i] >> 32 || box[i] == 0 || box[i] > 256 || element_strides[i] != 1) return false;
    if (line % 16 || line > most) return false;
    const Map map{MAP, static_cast<uint8_t*>(address), sizes[0], sizes[1], strides[0], box[0], box[1], 2, swizzle};
    static_assert(sizeof map <= 128);
    std::memset(out, 0, 128);
    std::memcpy(out, &map, sizeof map);
    return true;
}

void tma_load(void* shared, const void* at, int row, int column, unsigned long long* barrier) {
    Map map;
    std::memcpy(&map, at, sizeof map);
    const uint32_t to = shared_address(shared);
    if (map.mark != MAP) die("a copy by a map that the driver has not made");
    if (to % 128) die("a box is copied to a multiple of 128 bytes");
    if (!block.fenced) die("a copy may not have seen its barrier begin: mbarrier_init_fence is missing");
    Barrier* told = &begun(barrier);
    put_off(Unit::Copies, [=] { copy(map, to, row, column, told); });
}

void wgmma_fence() {
    gather([](int group, void* const (&)[WARPGROUP_THREADS]) { warpgroup(group).fenced = true; }, nullptr);
}

void wgmma(float* d, int columns, uint64_t a, uint64_t b, bool a_mn_major, bool b_mn_major, bool half) {
    Product mine{{d}, columns, a, b, a_mn_major, b_mn_major, half};
    const auto issue = [](int group, void* const (&brought)[WARPGROUP_THREADS]) {
        Product product = *static_cast<Product*>(brought[0]);
        for (int i = 0; i < WARPGROUP_THREADS; i++) {
            const Product& of = *static_cast<Product*>(brought[i]);
            if (of.a != product.a || of.b != product.b) die("threads of a warpgroup name different matrices");
            product.sums[i] = of.sums[0];
        }
        if (!warpgroup(group).fenced) die("a product of sums that may not be written yet: wgmma_fence is missing");
        warpgroup(group).open.push_back(product);
    };
    gather(issue, &mine);
}

void wgmma_commit() {
    const auto commit = [](int group, void* const (&)[WARPGROUP_THREADS]) {
        Warpgroup& of = warpgroup(group);
        of.committed++;
        put_off(Unit::TensorCores, [group, products = std::move(of.open)] {
            for (const Product& product : products) multiply(product);
            warpgroup(group).done++;
        });
        of.open.clear();
    };
    gather(commit, nullptr);
}

void wgmma_wait(int pending) {
    struct Wait {
        int group;
        uint64_t until;
    };
    const Warpgroup& of = warpgroup(own_group());
    if (!of.open.empty()) die("a wait for products that were not committed");
    const Wait wait{own_group(), of.committed > uint64_t(pending) ? of.committed - pending : 0};
    const auto come = [](const void* what) {
        const Wait& wait = *static_cast<const Wait*>(what);
        return warpgroup(wait.group).done >= wait.until;
    };
    wait_until(come, &wait, "products that never end");
    warpgroup(wait.group).fenced = false;
}

void hopper_begin() { block = {}; }

void hopper_end() {
    for (const Barrier* barrier : block.barriers)
        if (barrier->bytes) die("a barrier that bytes came to, or did not, other than was expected");
    for (const Warpgroup& group : block.groups)
        if (!group.open.empty()) die("a block ends with products that were not committed");
}

uint64_t warpgroup_products() { return multiplied; }

} // namespace emulation
