// Fibers, the meetings of warps and blocks, and launches.
#include "fiber.h"
#include "machine.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <vector>

namespace emulation {
namespace {

enum class State { Ready, AtWarp, AtGroup, Until, AtBlock, Done };

struct Copy {
    void* to;
    const void* from;
    int bytes;
};

struct Lane {
    void* stack_pointer = nullptr;
    State state = State::Ready;
    uint3 thread{};
    // What it waits for.
    unsigned mask = 0;
    Meeting act = nullptr;
    void* brought = nullptr;
    Gathering gathering = nullptr;
    bool (*come)(const void*) = nullptr;
    const void* what = nullptr;
    const char* message = nullptr;
    int vote = 0;
    // Copies to shared memory that are under way: made at the wait, so that a wait that is missing shows.
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> committed;
};

struct Machine {
    std::vector<Lane> lanes;
    std::vector<uint8_t*> stacks;
    std::vector<uint8_t> shared;
    size_t shared_bytes = 0;
    void* scheduler = nullptr;
    Lane* current = nullptr;
    Place place{};
    int votes = 0;
    const Kernel* kernel = nullptr;
    void** arguments = nullptr;
    int order = 0;
    uint32_t random = 1;
    std::vector<int> warps;
    std::deque<std::function<void()>> later[2]; // of each unit
};

thread_local Machine* machine;

// Machines that nobody runs on at the moment: their stacks are worth keeping.
std::mutex lock;
std::vector<Machine*> idle;

Machine* take() {
    std::lock_guard<std::mutex> guard(lock);
    if (idle.empty()) return new Machine;
    Machine* m = idle.back();
    idle.pop_back();
    return m;
}

void give_back(Machine* m) {
    std::lock_guard<std::mutex> guard(lock);
    idle.push_back(m);
}

} // namespace

const Place& place() { return machine->place; }

void die(const char* what) {
    const uint3 t = machine->current ? machine->current->thread : uint3{}, b = machine->place.block;
    std::fprintf(stderr, "emulation: %s, in %s of %s (%s), block (%u, %u, %u), thread (%u, %u, %u)\n", what,
                 machine->kernel->name, machine->kernel->source, machine->kernel->type, b.x, b.y, b.z, t.x, t.y, t.z);
    std::abort();
}

uint8_t* dynamic_shared() {
    const uintptr_t start = reinterpret_cast<uintptr_t>(machine->shared.data());
    return reinterpret_cast<uint8_t*>((start + 127) & ~uintptr_t(127));
}

size_t dynamic_shared_bytes() { return machine->shared_bytes; }

static void wait(State state) {
    Lane* me = machine->current;
    me->state = state;
    emulation_switch(&me->stack_pointer, machine->scheduler);
}

void block_barrier() {
    machine->current->vote = 0;
    wait(State::AtBlock);
}

int block_vote(bool mine) {
    machine->current->vote = mine;
    wait(State::AtBlock);
    return machine->votes;
}

void meet(unsigned mask, Meeting act, void* mine) {
    Lane* me = machine->current;
    me->mask = mask;
    me->act = act;
    me->brought = mine;
    wait(State::AtWarp);
}

void gather(Gathering act, void* mine) {
    machine->current->gathering = act;
    machine->current->brought = mine;
    wait(State::AtGroup);
}

void wait_until(bool (*come)(const void*), const void* what, const char* message) {
    Lane* me = machine->current;
    me->come = come;
    me->what = what;
    me->message = message;
    if (!come(what)) wait(State::Until);
}

static uint32_t chance() {
    uint32_t& random = machine->random;
    random ^= random << 13, random ^= random >> 17, random ^= random << 5;
    return random;
}

void put_off(Unit unit, std::function<void()> work) {
    const bool at_once = unit == Unit::Copies && (machine->order == 1 || (machine->order > 1 && chance() & 1));
    if (at_once) return work();
    machine->later[int(unit)].push_back(std::move(work));
}

// Does the next of what was put off; whether there was any.
static bool do_later() {
    for (auto& works : machine->later) {
        if (works.empty()) continue;
        const auto work = std::move(works.front());
        works.pop_front();
        work();
        return true;
    }
    return false;
}

static void make(const Copy& copy) {
    std::memset(copy.to, 0, 16);
    std::memcpy(copy.to, copy.from, copy.bytes);
}

void cp_async(void* shared, const void* global, int bytes) {
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) & 15) die("cp.async of 16 bytes that are not aligned");
    if (bytes < 0 || bytes > 16) die("cp.async reads 0 to 16 bytes");
    const Copy copy{shared, global, bytes};
    // A device may make it at any time from now until it is waited for: here at once in one order of threads, so that what is still
    // read there shows, and at the wait in the others.
    if (machine->order == 1) make(copy);
    else machine->current->open.push_back(copy);
}

void cp_async_commit() {
    Lane* me = machine->current;
    me->committed.push_back(std::move(me->open));
    me->open.clear();
}

void cp_async_wait(int pending) {
    auto& committed = machine->current->committed;
    while (int(committed.size()) > pending) {
        for (const Copy& copy : committed.front()) make(copy);
        committed.erase(committed.begin());
    }
}

static void run_lane() {
    machine->kernel->entry(machine->arguments);
    machine->current->open.clear();
    machine->current->committed.clear();
    wait(State::Done);
    std::abort();
}

static void resume(Lane& lane) {
    machine->current = &lane;
    machine->place.thread = lane.thread;
    lane.state = State::Ready;
    emulation_switch(&machine->scheduler, lane.stack_pointer);
}

// Does every operation of the warp that all its lanes have come to; whether any was done.
static bool settle(Lane* lanes, int count) {
    unsigned live = 0;
    for (int i = 0; i < count; i++)
        if (lanes[i].state != State::Done) live |= 1u << i;
    bool any = false;
    for (int i = 0; i < count; i++) {
        Lane& lane = lanes[i];
        if (lane.state != State::AtWarp) continue;
        machine->current = &lane;
        if (!(lane.mask >> i & 1)) die("a lane meets a warp with a mask that leaves it out");
        const unsigned needed = lane.mask & live;
        bool complete = true;
        for (int j = 0; j < count && complete; j++)
            if (needed >> j & 1) complete = lanes[j].state == State::AtWarp && lanes[j].mask == lane.mask && lanes[j].act == lane.act;
        if (!complete) continue;
        void* brought[32] = {};
        for (int j = 0; j < count; j++)
            if (needed >> j & 1) brought[j] = lanes[j].brought;
        lane.act(brought, lane.mask);
        for (int j = 0; j < count; j++)
            if (needed >> j & 1) lanes[j].state = State::Ready;
        any = true;
    }
    return any;
}

// Does what a warpgroup has come to, all its threads; whether there was such a one.
static bool settle_groups(int threads) {
    bool any = false;
    for (int group = 0; (group + 1) * WARPGROUP_THREADS <= threads; group++) {
        Lane* lanes = &machine->lanes[group * WARPGROUP_THREADS];
        void* brought[WARPGROUP_THREADS];
        bool complete = true;
        for (int i = 0; i < WARPGROUP_THREADS && complete; i++) {
            complete = lanes[i].state == State::AtGroup && lanes[i].gathering == lanes[0].gathering;
            brought[i] = lanes[i].brought;
        }
        if (!complete) continue;
        machine->current = lanes;
        lanes[0].gathering(group, brought);
        for (int i = 0; i < WARPGROUP_THREADS; i++) lanes[i].state = State::Ready;
        any = true;
    }
    return any;
}

// Runs each warp until all its lanes wait for others or are done; whether anything moved.
static bool run_warps(int threads) {
    Machine& m = *machine;
    const int warps = int(m.warps.size());
    if (m.order > 1)
        for (int w = warps - 1; w > 0; w--) std::swap(m.warps[w], m.warps[chance() % (w + 1)]);
    bool moved = false;
    for (int w : m.warps) {
        Lane* lanes = &m.lanes[w * 32];
        const int count = std::min(32, threads - w * 32);
        for (bool ran = true; ran; moved |= ran) {
            ran = false;
            for (int k = 0; k < count; k++) {
                Lane& lane = lanes[m.order == 1 ? count - 1 - k : k];
                if (lane.state == State::Until && lane.come(lane.what)) lane.state = State::Ready;
                if (lane.state == State::Ready) resume(lane), ran = true;
            }
            ran |= settle(lanes, count);
        }
    }
    return settle_groups(threads) || moved;
}

static void run_block() {
    Machine& m = *machine;
    const dim3 d = m.place.threads;
    const int threads = d.x * d.y * d.z;
    for (int i = 0; i < threads; i++) {
        Lane& lane = m.lanes[i];
        lane.thread = {i % d.x, i / d.x % d.y, i / (d.x * d.y)};
        lane.state = State::Ready;
        lane.stack_pointer = fresh(m.stacks[i], run_lane);
    }
    const int warps = (threads + 31) / 32;
    m.warps.resize(warps);
    for (int w = 0; w < warps; w++) m.warps[w] = m.order == 1 ? warps - 1 - w : w;
    m.random = uint32_t(m.order) * 2654435761u + m.place.block.x + 1;
    hopper_begin();
    for (;;) {
        const bool moved = run_warps(threads) || do_later();
        int done = 0, waiting = 0, votes = 0;
        for (int i = 0; i < threads; i++) {
            done += m.lanes[i].state == State::Done;
            waiting += m.lanes[i].state == State::AtBlock;
            votes += m.lanes[i].vote;
        }
        if (done == threads) {
            if (!m.later[0].empty() || !m.later[1].empty()) die("a block ends with copies or products under way");
            return hopper_end();
        }
        if (waiting == threads) {
            m.votes = votes;
            for (int i = 0; i < threads; i++) m.lanes[i].state = State::Ready, m.lanes[i].vote = 0;
        } else if (!moved) {
            for (int i = 0; i < threads; i++) {
                if (m.lanes[i].state != State::Done) m.current = &m.lanes[i];
                if (m.lanes[i].state == State::Until) die(m.lanes[i].message);
            }
            die(done ? "a barrier that threads which have returned never reach" : "a meeting that not all threads come to");
        }
    }
}

namespace {
std::mutex launched_lock;
// Of each kernel a bit for each kind of order: ascending, descending, shuffled.
std::map<const Kernel*, unsigned> launched;
} // namespace

void launch(const Kernel& kernel, void** arguments, dim3 blocks, dim3 threads, unsigned shared_bytes, int workers, int order) {
    {
        std::lock_guard<std::mutex> guard(launched_lock);
        launched[&kernel] |= 1u << std::min(order, 2);
    }
    const size_t total = size_t(blocks.x) * blocks.y * blocks.z;
    const size_t lanes = size_t(threads.x) * threads.y * threads.z;
    std::atomic<size_t> next{0};
    auto work = [&] {
        Machine& m = *(machine = take());
        m.place.threads = threads;
        m.place.blocks = blocks;
        m.kernel = &kernel;
        m.arguments = arguments;
        m.order = order;
        if (m.lanes.size() < lanes) m.lanes.resize(lanes);
        while (m.stacks.size() < lanes) {
            void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (stack == MAP_FAILED) die("no memory for stacks");
            m.stacks.push_back(static_cast<uint8_t*>(stack));
        }
        m.shared_bytes = shared_bytes;
        m.shared.resize(shared_bytes + 128);
        for (size_t b; (b = next++) < total;) {
            m.place.block = {unsigned(b % blocks.x), unsigned(b / blocks.x % blocks.y), unsigned(b / blocks.x / blocks.y)};
            std::memset(m.shared.data(), 0xff, m.shared.size()); // NaN in every type: reading before writing shows
            run_block();
        }
        give_back(&m);
    };
    if (workers <= 1 || total == 1) return work();
    std::vector<std::thread> crew;
    for (int i = 0; i < workers; i++) crew.emplace_back(work);
    for (auto& worker : crew) worker.join();
}

static std::vector<Kernel>& kernels() {
    static std::vector<Kernel> list;
    return list;
}

Listed::Listed(Kernel kernel) { kernels().push_back(kernel); }

const Kernel* find(const char* source, const char* type, const char* name) {
    for (const Kernel& kernel : kernels())
        if (!std::strcmp(kernel.source, source) && !std::strcmp(kernel.type, type) && !std::strcmp(kernel.name, name)) return &kernel;
    return nullptr;
}

std::string not_launched() {
    const char* const kinds[] = {"ascending", "descending", "shuffled"};
    std::lock_guard<std::mutex> guard(launched_lock);
    std::string lines;
    for (const Kernel& kernel : kernels()) {
        std::string lacking;
        for (int kind = 0; kind < 3; kind++)
            if (!(launched[&kernel] >> kind & 1)) lacking += std::string(" ") + kinds[kind];
        if (!lacking.empty()) lines += std::string(kernel.source) + " " + kernel.type + " " + kernel.name + lacking + "\n";
    }
    return lines;
}

} // namespace emulation

// What a kernel that is compiled with -fsanitize=alignment calls where an address is no multiple of what its type asks for.
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1_abort(void*, uintptr_t) {
    emulation::die("a load or store that is not aligned");
}
