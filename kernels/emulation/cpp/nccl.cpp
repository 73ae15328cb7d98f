// A libnccl.so.2: sums over processes of one machine, through shared memory that is named after the group.
#include "beside.h"

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

constexpr size_t PIECE = 1 << 20; // floats that are summed at a time
constexpr int MOST = 4;           // processes

struct Shared {
    std::atomic<int> arrived, round;
    float values[MOST][PIECE];
};

struct Communicator {
    Shared* shared;
    int rank, size;
    char name[64];
};

void meet(Communicator& c) {
    const int round = c.shared->round.load();
    if (c.shared->arrived.fetch_add(1) == c.size - 1) {
        c.shared->arrived = 0;
        c.shared->round = round + 1;
        return;
    }
    while (c.shared->round.load() == round) sched_yield();
}

} // namespace

struct Id {
    char internal[128];
};

#define NCCL(name) extern "C" __attribute__((visibility("default"))) int name

extern "C" __attribute__((visibility("default"))) const char* ncclGetErrorString(int result) {
    return result == 4 ? "invalid argument" : result == 2 ? "unhandled system error" : "an error of the stand-in";
}
NCCL(ncclGetUniqueId)(Id* id) {
    static int made = 0;
    std::memset(id->internal, 0, sizeof id->internal);
    std::snprintf(id->internal, sizeof id->internal, "/limbeck-nccl-%d-%d", int(getpid()), made++);
    return 0;
}
NCCL(ncclCommInitRank)(Communicator** out, int size, Id id, int rank) {
    if (size > MOST || std::strncmp(id.internal, "/limbeck-nccl-", 14)) return 4; // ncclInvalidArgument
    auto* c = new Communicator{nullptr, rank, size, {}};
    std::strncpy(c->name, id.internal, sizeof c->name - 1);
    const int file = shm_open(c->name, O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, sizeof(Shared))) return 2; // ncclSystemError
    c->shared = static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    close(file);
    meet(*c);
    if (rank == 0) shm_unlink(c->name);
    *out = c;
    return 0;
}
NCCL(ncclCommAbort)(Communicator* c) {
    munmap(c->shared, sizeof(Shared));
    delete c;
    return 0;
}
NCCL(ncclGroupStart)() { return 0; }
NCCL(ncclGroupEnd)() { return 0; }
// Sums of floats alone (type 7, operation 0), in the order of ranks.
NCCL(ncclAllReduce)(const float* from, float* to, size_t count, int type, int operation, Communicator* c, void* stream) {
    if (type != 7 || operation != 0) return 4;
    emulation::drain_by_driver(stream);
    for (size_t first = 0; first < count; first += PIECE) {
        const size_t piece = count - first < PIECE ? count - first : PIECE;
        std::memcpy(c->shared->values[c->rank], from + first, 4 * piece);
        meet(*c);
        for (size_t i = 0; i < piece; i++) {
            float sum = c->shared->values[0][i];
            for (int rank = 1; rank < c->size; rank++) sum += c->shared->values[rank][i];
            to[first + i] = sum;
        }
        meet(*c);
    }
    return 0;
}
