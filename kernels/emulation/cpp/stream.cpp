// Streams, events, stream capture and graphs: see stream.h.
#include "stream.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace emulation {
namespace {

using Works = std::vector<Work>;

struct Stream {
    std::mutex lock;
    std::condition_variable turn; // when a piece of work is done
    std::deque<Work> waiting;
    bool busy = false; // while a thread does some of it
    uint64_t submitted = 0, done = 0;
    std::unique_ptr<Works> captured;
    bool broken = false;
    std::thread::id capturer;
};

std::mutex lock;
std::map<void*, std::shared_ptr<Stream>> streams;

// Work that waits for several streams: what each must have done.
struct Later {
    std::vector<std::pair<std::shared_ptr<Stream>, uint64_t>> until;
    Work then;
};
std::mutex later_lock;
std::list<Later> later;

// The stream that this thread captures, unless relaxed.
thread_local std::shared_ptr<Stream> capturing;
thread_local uint64_t launched = 0;

std::shared_ptr<Stream> find(void* handle) {
    std::lock_guard<std::mutex> guard(lock);
    auto& found = streams[handle]; // the stream of handle 0 is there without being made
    if (!found) found = std::make_shared<Stream>();
    return found;
}

bool is_done(const std::pair<std::shared_ptr<Stream>, uint64_t>& until) {
    std::lock_guard<std::mutex> guard(until.first->lock);
    return until.first->done >= until.second;
}

void reap() {
    std::vector<Work> ready;
    {
        std::lock_guard<std::mutex> guard(later_lock);
        for (auto at = later.begin(); at != later.end();) {
            bool all = true;
            for (const auto& until : at->until) all = all && is_done(until);
            if (!all) {
                ++at;
                continue;
            }
            ready.push_back(std::move(at->then));
            at = later.erase(at);
        }
    }
    for (auto& work : ready) work();
}

// Whoever comes does what there is to do, one at a time; the others wait for no more than what they came for, since what is done
// next may itself be to wait for another stream.
void run(Stream& stream, uint64_t until) {
    std::unique_lock<std::mutex> guard(stream.lock);
    while (stream.done < until) {
        if (stream.busy) {
            stream.turn.wait(guard);
            continue;
        }
        Work work = std::move(stream.waiting.front());
        stream.waiting.pop_front();
        stream.busy = true;
        guard.unlock();
        work();
        work = nullptr;
        guard.lock();
        stream.busy = false;
        stream.done++;
        stream.turn.notify_all();
        guard.unlock();
        reap();
        guard.lock();
    }
}

uint64_t submitted(Stream& stream) {
    std::lock_guard<std::mutex> guard(stream.lock);
    return stream.submitted;
}

std::vector<std::shared_ptr<Stream>> all() {
    std::lock_guard<std::mutex> guard(lock);
    std::vector<std::shared_ptr<Stream>> list;
    for (auto& [handle, stream] : streams) list.push_back(stream);
    return list;
}

struct Event {
    std::mutex lock;
    std::shared_ptr<Stream> stream;
    uint64_t ticket = 0;
    int64_t time = 0;
};
using Held = std::shared_ptr<Event>;

int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

bool is_done(Event& event) {
    std::lock_guard<std::mutex> guard(event.lock);
    return !event.stream || is_done({event.stream, event.ticket});
}

using Graph = std::shared_ptr<Works>;

} // namespace

Status submit(void* handle, Work work) {
    const auto stream = find(handle);
    std::lock_guard<std::mutex> guard(stream->lock);
    if (stream->captured) {
        if (stream->broken) return CAPTURE_INVALIDATED;
        return stream->captured->push_back(std::move(work)), SUCCESS;
    }
    stream->waiting.push_back(std::move(work));
    return stream->submitted++, SUCCESS;
}

void drain(void* handle) {
    const auto stream = find(handle);
    run(*stream, submitted(*stream));
}

void drain_all() {
    for (const auto& stream : all()) run(*stream, submitted(*stream));
}

void after_all(Work then) {
    Later waits;
    for (const auto& stream : all()) waits.until.emplace_back(stream, submitted(*stream));
    waits.then = std::move(then);
    {
        std::lock_guard<std::mutex> guard(later_lock);
        later.push_back(std::move(waits));
    }
    reap();
}

bool captures(void* handle) {
    const auto stream = find(handle);
    std::lock_guard<std::mutex> guard(stream->lock);
    return bool(stream->captured);
}

Status invalidate(void* handle) {
    const auto stream = find(handle);
    std::lock_guard<std::mutex> guard(stream->lock);
    return stream->broken = true, CAPTURE_UNSUPPORTED;
}

Status forbidden_in_capture() {
    if (!capturing) return SUCCESS;
    std::lock_guard<std::mutex> guard(capturing->lock);
    return capturing->broken = true, CAPTURE_UNSUPPORTED;
}

DRIVER(cuStreamCreate)(void** handle, unsigned) { return find(*handle = new char), SUCCESS; }
DRIVER(cuStreamDestroy_v2)(void* handle) {
    drain(handle);
    std::lock_guard<std::mutex> guard(lock);
    streams.erase(handle);
    return delete static_cast<char*>(handle), SUCCESS;
}
DRIVER(cuStreamSynchronize)(void* handle) {
    if (captures(handle)) return invalidate(handle);
    return drain(handle), SUCCESS;
}
DRIVER(cuStreamWaitEvent)(void* handle, void* of, unsigned) {
    const Held event = *static_cast<Held*>(of);
    if (captures(handle)) return invalidate(handle); // joins another stream: limbeck has no such graphs
    const auto own = find(handle);
    std::lock_guard<std::mutex> guard(event->lock);
    if (!event->stream || event->stream == own) return SUCCESS;
    return submit(handle, [of = event->stream, until = event->ticket] { run(*of, until); });
}

DRIVER(cuEventCreate)(void** out, unsigned) { return *out = new Held(new Event), SUCCESS; }
DRIVER(cuEventDestroy_v2)(void* event) { return delete static_cast<Held*>(event), SUCCESS; }
DRIVER(cuEventRecord)(void* of, void* handle) {
    const Held event = *static_cast<Held*>(of);
    if (captures(handle)) return invalidate(handle);
    const Status status = submit(handle, [event] {
        std::lock_guard<std::mutex> guard(event->lock);
        event->time = now();
    });
    std::lock_guard<std::mutex> guard(event->lock);
    event->stream = find(handle);
    return event->ticket = submitted(*event->stream), status;
}
DRIVER(cuEventSynchronize)(void* of) {
    if (const Status status = forbidden_in_capture()) return status;
    Event& event = **static_cast<Held*>(of);
    std::unique_lock<std::mutex> guard(event.lock);
    const auto stream = event.stream;
    const uint64_t ticket = event.ticket;
    guard.unlock();
    if (stream) run(*stream, ticket);
    return SUCCESS;
}
DRIVER(cuEventQuery)(void* of) {
    if (const Status status = forbidden_in_capture()) return status;
    Event& event = **static_cast<Held*>(of);
    if (is_done(event)) return SUCCESS;
    // Who asks again and again waits: one piece of work is done each time.
    const auto stream = [&] { return std::lock_guard<std::mutex>(event.lock), event.stream; }();
    const uint64_t done = [&] { return std::lock_guard<std::mutex>(stream->lock), stream->done; }();
    run(*stream, done + 1);
    return is_done(event) ? SUCCESS : NOT_READY;
}
DRIVER(cuEventElapsedTime_v2)(float* ms, void* from, void* to) {
    Event &first = **static_cast<Held*>(from), &last = **static_cast<Held*>(to);
    if (!is_done(first) || !is_done(last)) return NOT_READY;
    return *ms = float(last.time - first.time) / 1e6f, SUCCESS;
}
DRIVER(cuEventElapsedTime)(float* ms, void* from, void* to) { return cuEventElapsedTime_v2(ms, from, to); }

// Modes: 0 global and 1 of this thread forbid, 2 relaxed does not.
DRIVER(cuStreamBeginCapture_v2)(void* handle, int mode) {
    if (!handle) return CAPTURE_UNSUPPORTED;
    if (mode < 0 || mode > 2) return INVALID_VALUE;
    const auto stream = find(handle);
    std::lock_guard<std::mutex> guard(stream->lock);
    if (stream->captured) return ILLEGAL_STATE;
    stream->captured = std::make_unique<Works>();
    stream->broken = false;
    stream->capturer = mode == 2 ? std::thread::id() : std::this_thread::get_id();
    if (mode != 2) capturing = stream;
    return SUCCESS;
}
DRIVER(cuStreamEndCapture)(void* handle, void** out) {
    const auto stream = find(handle);
    std::lock_guard<std::mutex> guard(stream->lock);
    *out = nullptr;
    if (!stream->captured) return ILLEGAL_STATE;
    if (stream->capturer != std::thread::id() && stream->capturer != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
    if (capturing == stream) capturing.reset();
    const auto works = std::move(stream->captured);
    if (stream->broken) return CAPTURE_INVALIDATED;
    return *out = new Graph(new Works(std::move(*works))), SUCCESS;
}
DRIVER(cuStreamIsCapturing)(void* handle, int* status) {
    const auto stream = find(handle);
    std::lock_guard<std::mutex> guard(stream->lock);
    return *status = !stream->captured ? 0 : stream->broken ? 2 : 1, SUCCESS;
}

DRIVER(cuGraphInstantiateWithFlags)(void** out, void* graph, unsigned long long) {
    if (!graph) return INVALID_VALUE;
    return *out = new Graph(*static_cast<Graph*>(graph)), SUCCESS;
}
DRIVER(cuGraphDestroy)(void* graph) { return delete static_cast<Graph*>(graph), SUCCESS; }
DRIVER(cuGraphExecDestroy)(void* exec) { return delete static_cast<Graph*>(exec), SUCCESS; }
DRIVER(cuGraphUpload)(void* exec, void*) { return exec ? SUCCESS : INVALID_VALUE; }
DRIVER(cuGraphLaunch)(void* exec, void* handle) {
    if (!exec) return INVALID_VALUE;
    launched++;
    return submit(handle, [works = *static_cast<Graph*>(exec)] {
        for (const auto& work : *works) work();
    });
}

// Graphs that this thread has launched.
extern "C" __attribute__((visibility("default"))) uint64_t emulation_graphs_launched() { return launched; }
// For the stand-ins of libraries that work on a stream.
extern "C" __attribute__((visibility("default"))) int emulation_submit(void* stream, Work* work) { return submit(stream, *work); }
extern "C" __attribute__((visibility("default"))) void emulation_drain(void* stream) { drain(stream); }

} // namespace emulation
