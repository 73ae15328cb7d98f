// A libcuda.so: what cudarc calls of the driver, over host memory, with kernels run by the emulation.
//
// Every allocation ends at a page that cannot be touched, and begins as NaN: a kernel that goes beyond its buffer stops at
// once, and one that reads what nobody wrote is seen. What is asynchronous on a device is done when it is waited for (stream.h).
#include "machine.h"
#include "stream.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

using namespace emulation;
using Address = uint64_t;

namespace {

std::mutex lock;
std::map<Address, std::pair<void*, size_t>> allocations;
// Page-locked memory of the host's: where, and how much.
std::map<const uint8_t*, size_t> pinned;

bool is_pinned(const void* p, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    auto after = pinned.upper_bound(static_cast<const uint8_t*>(p));
    if (after == pinned.begin()) return false;
    --after;
    return static_cast<const uint8_t*>(p) + bytes <= after->first + after->second;
}

int setting(const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : otherwise;
}

Status allocate(Address* out, size_t bytes) {
    if (const Status status = forbidden_in_capture()) return status;
    const size_t page = sysconf(_SC_PAGESIZE), body = (bytes + 15) / 16 * 16, pages = (body + page - 1) / page * page;
    void* start = mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(static_cast<uint8_t*>(start) + pages, page, PROT_NONE);
    std::memset(start, 0xff, pages);
    *out = reinterpret_cast<Address>(start) + pages - body;
    std::lock_guard<std::mutex> guard(lock);
    allocations[*out] = {start, pages + page};
    return SUCCESS;
}

// It is gone when all that was launched before has been done: what reads it later than that stops.
Status release(Address address) {
    if (const Status status = forbidden_in_capture()) return status;
    std::unique_lock<std::mutex> guard(lock);
    const auto found = allocations.find(address);
    if (found == allocations.end()) return INVALID_VALUE;
    const auto [start, bytes] = found->second;
    allocations.erase(found);
    guard.unlock();
    after_all([start = start, bytes = bytes] { munmap(start, bytes); });
    return SUCCESS;
}

// Shared memory that a kernel's blocks have been allowed beyond the 48 KiB that are theirs without asking.
std::map<const void*, unsigned> asked;

bool is_asked(const void* function, unsigned shared) {
    std::lock_guard<std::mutex> guard(lock);
    const auto found = asked.find(function);
    return shared <= 48 << 10 || (found != asked.end() && shared <= found->second);
}

// A module of the stand-in NVRTC: "emulated SOURCE TYPE".
struct Module {
    std::string source, type;
};

// Of this thread's launches.
thread_local int order = -1;

int capability() { return setting("EMULATED_CAPABILITY", 90); }

// Bytes of a block that asks for more than 48 KiB.
unsigned most_shared() { return capability() == 90 ? 232448 : 101376; }

template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

} // namespace

DRIVER(cuInit)(unsigned) { return setting("EMULATED_NO_DEVICE", 0) ? NO_DEVICE : SUCCESS; }
DRIVER(cuDriverGetVersion)(int* version) { return *version = setting("EMULATED_DRIVER", 13000), SUCCESS; }
DRIVER(cuDeviceGetCount)(int* count) { return *count = 1, SUCCESS; }
DRIVER(cuDeviceGet)(int* device, int ordinal) { return *device = ordinal, ordinal ? 101 : SUCCESS; }
DRIVER(cuDeviceGetName)(char* name, int bytes, int) { return std::snprintf(name, bytes, "emulated device"), SUCCESS; }
DRIVER(cuDeviceGetUuid_v2)(void* uuid, int) { return std::memset(uuid, 0, 16), SUCCESS; }
DRIVER(cuDeviceTotalMem_v2)(size_t* bytes, int) { return *bytes = size_t(8) << 30, SUCCESS; }
DRIVER(cuDeviceGetAttribute)(int* value, int attribute, int) {
    switch (attribute) {
    case 1: *value = 1024; break;              // threads of a block
    case 8: case 97: *value = most_shared(); break; // shared memory of a block, of one that asks for more
    case 10: *value = 32; break;               // threads of a warp
    case 16: *value = 4; break;                // multiprocessors
    case 75: *value = capability() / 10; break;  // compute capability
    case 76: *value = capability() % 10; break;
    case 115: *value = 1; break;               // memory pools
    default: *value = 0;
    }
    return SUCCESS;
}
DRIVER(cuDevicePrimaryCtxRetain)(void** context, int) { return *context = at<void>(0x1000), SUCCESS; }
DRIVER(cuDevicePrimaryCtxRelease_v2)(int) { return SUCCESS; }
DRIVER(cuCtxSetCurrent)(void*) { return SUCCESS; }
DRIVER(cuCtxGetCurrent)(void** context) { return *context = at<void>(0x1000), SUCCESS; }
DRIVER(cuCtxGetDevice)(int* device) { return *device = 0, SUCCESS; }
DRIVER(cuCtxSynchronize)() {
    if (const Status status = forbidden_in_capture()) return status;
    return drain_all(), SUCCESS;
}

DRIVER(cuMemGetInfo_v2)(size_t* free, size_t* total) { return *free = *total = size_t(8) << 30, SUCCESS; }
DRIVER(cuMemAlloc_v2)(Address* out, size_t bytes) { return allocate(out, bytes); }
DRIVER(cuMemAllocAsync)(Address* out, size_t bytes, void*) { return allocate(out, bytes); }
DRIVER(cuMemFree_v2)(Address address) { return release(address); }
DRIVER(cuMemFreeAsync)(Address address, void*) { return release(address); }
DRIVER(cuMemHostAlloc)(void** out, size_t bytes, unsigned) {
    if (const Status status = forbidden_in_capture()) return status;
    if (!(*out = std::malloc(bytes))) return OUT_OF_MEMORY;
    std::lock_guard<std::mutex> guard(lock);
    return pinned[static_cast<uint8_t*>(*out)] = bytes, SUCCESS;
}
// Its content is gone at once, so that a copy that is still under way copies NaN.
DRIVER(cuMemFreeHost)(void* p) {
    if (const Status status = forbidden_in_capture()) return status;
    std::unique_lock<std::mutex> guard(lock);
    const auto found = pinned.find(static_cast<uint8_t*>(p));
    if (found == pinned.end()) return INVALID_VALUE;
    std::memset(p, 0xff, found->second);
    pinned.erase(found);
    guard.unlock();
    return after_all([p] { std::free(p); }), SUCCESS;
}
DRIVER(cuMemcpyHtoD_v2)(Address to, const void* from, size_t bytes) {
    if (const Status status = forbidden_in_capture()) return status;
    return std::memcpy(at<void>(to), from, bytes), SUCCESS;
}
DRIVER(cuMemcpyDtoH_v2)(void* to, Address from, size_t bytes) {
    if (const Status status = forbidden_in_capture()) return status;
    return std::memcpy(to, at<void>(from), bytes), SUCCESS;
}
// From page-locked memory a copy is made when its turn comes; any other memory has been read when the call returns.
DRIVER(cuMemcpyHtoDAsync_v2)(Address to, const void* from, size_t bytes, void* stream) {
    if (is_pinned(from, bytes)) return submit(stream, [=] { std::memcpy(at<void>(to), from, bytes); });
    if (captures(stream)) return invalidate(stream);
    const auto* first = static_cast<const uint8_t*>(from);
    return submit(stream, [to, kept = std::vector<uint8_t>(first, first + bytes)] { std::memcpy(at<void>(to), kept.data(), kept.size()); });
}
DRIVER(cuMemcpyDtoHAsync_v2)(void* to, Address from, size_t bytes, void* stream) {
    const bool later = is_pinned(to, bytes);
    if (!later && captures(stream)) return invalidate(stream);
    const Status status = submit(stream, [=] { std::memcpy(to, at<void>(from), bytes); });
    if (!later) drain(stream);
    return status;
}
DRIVER(cuMemcpyDtoDAsync_v2)(Address to, Address from, size_t bytes, void* stream) {
    return submit(stream, [=] { std::memmove(at<void>(to), at<void>(from), bytes); });
}
DRIVER(cuMemsetD8Async)(Address to, unsigned char value, size_t bytes, void* stream) {
    return submit(stream, [=] { std::memset(at<void>(to), value, bytes); });
}

DRIVER(cuModuleLoadData)(void** out, const void* image) {
    if (const Status status = forbidden_in_capture()) return status;
    char source[64], type[16];
    if (std::sscanf(static_cast<const char*>(image), "emulated %63s %15s", source, type) != 2) return INVALID_IMAGE;
    if (setting("EMULATED_DRIVER", 13000) < 13000) return INVALID_IMAGE; // which is of the stand-in NVRTC's version
    *out = new Module{source, type};
    return SUCCESS;
}
DRIVER(cuModuleUnload)(void* module) { return delete static_cast<Module*>(module), SUCCESS; }
DRIVER(cuModuleGetFunction)(void** out, void* module, const char* name) {
    const Module& m = *static_cast<Module*>(module);
    const Kernel* kernel = find(m.source.c_str(), m.type.c_str(), name);
    if (!kernel) return NOT_FOUND;
    *out = const_cast<Kernel*>(kernel);
    return SUCCESS;
}
DRIVER(cuFuncSetAttribute)(void* function, int attribute, int value) {
    std::lock_guard<std::mutex> guard(lock);
    if (attribute == 8) asked[function] = value;
    return SUCCESS;
}
DRIVER(cuFuncGetAttribute)(int* value, int, void*) { return *value = 0, SUCCESS; }
DRIVER(cuLaunchKernel)(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                       void* stream, void** arguments, void**) {
    const bool fits = size_t(bx) * by * bz <= 1024 && bx && by && bz && gx && gy && gz && gy <= 65535 && gz <= 65535 && shared <= most_shared();
    if (!fits || !is_asked(function, shared)) return INVALID_VALUE;
    const Kernel& kernel = *static_cast<Kernel*>(function);
    const int workers = setting("EMULATED_WORKERS", 1), how = order >= 0 ? order : setting("EMULATED_ORDER", 0);
    const dim3 blocks{gx, gy, gz}, threads{bx, by, bz};
    return submit(stream, [=, &kernel, kept = kernel.keep(arguments)] {
        emulation::launch(kernel, const_cast<void**>(kept.at.data()), blocks, threads, shared, workers, how);
    });
}

DRIVER(cuTensorMapEncodeTiled)(void* map, int type, unsigned rank, void* address, const uint64_t* sizes, const uint64_t* strides,
                               const unsigned* box, const unsigned* element_strides, int interleave, int swizzle, int promotion, int fill) {
    const bool known = emulation::encode_map(map, type, rank, address, sizes, strides, box, element_strides, interleave, swizzle, promotion, fill);
    return known ? SUCCESS : INVALID_VALUE;
}

extern "C" __attribute__((visibility("default"))) uint64_t emulation_warpgroup_products() { return emulation::warpgroup_products(); }
extern "C" __attribute__((visibility("default"))) void emulation_set_order(int to) { order = to; }
// Writes as much of it as there is room for, with an end; the size that all of it takes.
extern "C" __attribute__((visibility("default"))) size_t emulation_not_launched(char* out, size_t room) {
    const std::string lines = emulation::not_launched();
    if (room) out[lines.copy(out, room - 1)] = 0;
    return lines.size() + 1;
}

DRIVER(cuGetErrorName)(int error, const char** name) {
    switch (error) {
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
    case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
    case ILLEGAL_STATE: *name = "CUDA_ERROR_ILLEGAL_STATE"; break;
    case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case NOT_READY: *name = "CUDA_ERROR_NOT_READY"; break;
    case CAPTURE_UNSUPPORTED: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
    case CAPTURE_INVALIDATED: *name = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; break;
    case CAPTURE_WRONG_THREAD: *name = "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"; break;
    default: *name = "CUDA_ERROR_UNKNOWN";
    }
    return SUCCESS;
}
DRIVER(cuGetErrorString)(int error, const char** text) { return cuGetErrorName(error, text); }
DRIVER(cuGetExportTable)(const void** table, const void*) { return *table = nullptr, NOT_FOUND; } // NVRTC 13 asks for it
