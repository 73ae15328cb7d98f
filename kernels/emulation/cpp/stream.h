// Streams of the stand-in driver: what is asked of one is done when somebody waits for it, and not before.
//
// So a host buffer that is written again too early, and memory that is read before it was waited for, give wrong numbers here as
// they may on a device. What is asked while a stream captures goes into a graph.
#pragma once

#include <cstdint>
#include <functional>

namespace emulation {

using Status = int;
using Work = std::function<void()>;

enum : Status {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_IMAGE = 200,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_WRONG_THREAD = 908
};

// Has `work` done in the order of the stream, or puts it into the graph that the stream captures.
Status submit(void* stream, Work work);
// Does all that the stream has been asked.
void drain(void* stream);
// Does what all streams have been asked.
void drain_all();
// Calls `then` once all that any stream has been asked until now is done.
void after_all(Work then);
// Whether the stream captures.
bool captures(void* stream);
// What may not be done by a thread while it captures (cuThreadExchangeStreamCaptureMode has the rule) makes its capture invalid.
Status forbidden_in_capture();
// Ends the capture of a stream without a graph, when something was asked that no graph can hold.
Status invalidate(void* stream);

} // namespace emulation

#define DRIVER(name) extern "C" __attribute__((visibility("default"))) emulation::Status name
