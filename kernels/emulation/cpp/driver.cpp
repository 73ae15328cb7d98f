// A libcuda.so: what cudarc calls of the driver, over host memory, with kernels run by the emulation.
//
// Every allocation ends at a page that cannot be touched, and begins as NaN: a kernel that goes beyond its buffer stops at
// once, and one that reads what nobody wrote is seen. What is asynchronous on a device is done at once.
#include "machine.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

using Result = int;
using Address = uint64_t;

namespace {

enum : Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, NOT_FOUND = 500 };

std::mutex lock;
std::map<Address, std::pair<void*, size_t>> allocations;

int setting(const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : otherwise;
}

Result allocate(Address* out, size_t bytes) {
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

Result release(Address address) {
    std::lock_guard<std::mutex> guard(lock);
    const auto found = allocations.find(address);
    if (found == allocations.end()) return INVALID_VALUE;
    munmap(found->second.first, found->second.second);
    allocations.erase(found);
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

int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

} // namespace

#define DRIVER(name) extern "C" __attribute__((visibility("default"))) Result name

DRIVER(cuInit)(unsigned) { return setting("EMULATED_NO_DEVICE", 0) ? NO_DEVICE : SUCCESS; }
DRIVER(cuDriverGetVersion)(int* version) { return *version = setting("EMULATED_DRIVER", 13000), SUCCESS; }
DRIVER(cuDeviceGetCount)(int* count) { return *count = 1, SUCCESS; }
DRIVER(cuDeviceGet)(int* device, int ordinal) { return *device = ordinal, ordinal ? 101 : SUCCESS; }
DRIVER(cuDeviceGetName)(char* name, int bytes, int) { return std::snprintf(name, bytes, "emulated device"), SUCCESS; }
DRIVER(cuDeviceGetUuid_v2)(void* uuid, int) { return std::memset(uuid, 0, 16), SUCCESS; }
DRIVER(cuDeviceTotalMem_v2)(size_t* bytes, int) { return *bytes = size_t(8) << 30, SUCCESS; }
DRIVER(cuDeviceGetAttribute)(int* value, int attribute, int) {
    const int capability = setting("EMULATED_CAPABILITY", 80);
    switch (attribute) {
    case 1: *value = 1024; break;              // threads of a block
    case 8: case 97: *value = 101376; break;   // shared memory of a block, of one that asks for more
    case 10: *value = 32; break;               // threads of a warp
    case 16: *value = 4; break;                // multiprocessors
    case 75: *value = capability / 10; break;  // compute capability
    case 76: *value = capability % 10; break;
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
DRIVER(cuCtxSynchronize)() { return SUCCESS; }

DRIVER(cuMemGetInfo_v2)(size_t* free, size_t* total) { return *free = *total = size_t(8) << 30, SUCCESS; }
DRIVER(cuMemAlloc_v2)(Address* out, size_t bytes) { return allocate(out, bytes); }
DRIVER(cuMemAllocAsync)(Address* out, size_t bytes, void*) { return allocate(out, bytes); }
DRIVER(cuMemFree_v2)(Address address) { return release(address); }
DRIVER(cuMemFreeAsync)(Address address, void*) { return release(address); }
DRIVER(cuMemHostAlloc)(void** out, size_t bytes, unsigned) { return (*out = std::malloc(bytes)) ? SUCCESS : OUT_OF_MEMORY; }
DRIVER(cuMemFreeHost)(void* p) { return std::free(p), SUCCESS; }
DRIVER(cuMemcpyHtoD_v2)(Address to, const void* from, size_t bytes) { return std::memcpy(at<void>(to), from, bytes), SUCCESS; }
DRIVER(cuMemcpyHtoDAsync_v2)(Address to, const void* from, size_t bytes, void*) { return cuMemcpyHtoD_v2(to, from, bytes); }
DRIVER(cuMemcpyDtoH_v2)(void* to, Address from, size_t bytes) { return std::memcpy(to, at<void>(from), bytes), SUCCESS; }
DRIVER(cuMemcpyDtoHAsync_v2)(void* to, Address from, size_t bytes, void*) { return cuMemcpyDtoH_v2(to, from, bytes); }
DRIVER(cuMemcpyDtoDAsync_v2)(Address to, Address from, size_t bytes, void*) { return std::memmove(at<void>(to), at<void>(from), bytes), SUCCESS; }
DRIVER(cuMemsetD8Async)(Address to, unsigned char value, size_t bytes, void*) { return std::memset(at<void>(to), value, bytes), SUCCESS; }

DRIVER(cuStreamCreate)(void** stream, unsigned) { return *stream = std::malloc(8), SUCCESS; }
DRIVER(cuStreamDestroy_v2)(void* stream) { return std::free(stream), SUCCESS; }
DRIVER(cuStreamSynchronize)(void*) { return SUCCESS; }
DRIVER(cuStreamWaitEvent)(void*, void*, unsigned) { return SUCCESS; }
DRIVER(cuEventCreate)(void** event, unsigned) { return *event = std::calloc(1, 8), SUCCESS; }
DRIVER(cuEventDestroy_v2)(void* event) { return std::free(event), SUCCESS; }
DRIVER(cuEventRecord)(void* event, void*) { return *static_cast<int64_t*>(event) = now(), SUCCESS; }
DRIVER(cuEventSynchronize)(void*) { return SUCCESS; }
DRIVER(cuEventQuery)(void*) { return SUCCESS; }
// Drivers since CUDA 12.8 call it cuEventElapsedTime_v2 as well: this one is older.
DRIVER(cuEventElapsedTime)(float* ms, void* from, void* to) {
    return *ms = float(*static_cast<int64_t*>(to) - *static_cast<int64_t*>(from)) / 1e6f, SUCCESS;
}

DRIVER(cuModuleLoadData)(void** out, const void* image) {
    char source[64], type[16];
    if (std::sscanf(static_cast<const char*>(image), "emulated %63s %15s", source, type) != 2) return INVALID_IMAGE;
    if (setting("EMULATED_DRIVER", 13000) < 13000) return INVALID_IMAGE; // which is of the stand-in NVRTC's version
    *out = new Module{source, type};
    return SUCCESS;
}
DRIVER(cuModuleUnload)(void* module) { return delete static_cast<Module*>(module), SUCCESS; }
DRIVER(cuModuleGetFunction)(void** out, void* module, const char* name) {
    const Module& m = *static_cast<Module*>(module);
    const emulation::Kernel* kernel = emulation::find(m.source.c_str(), m.type.c_str(), name);
    if (!kernel) return NOT_FOUND;
    *out = const_cast<emulation::Kernel*>(kernel);
    return SUCCESS;
}
DRIVER(cuFuncSetAttribute)(void* function, int attribute, int value) {
    std::lock_guard<std::mutex> guard(lock);
    if (attribute == 8) asked[function] = value;
    return SUCCESS;
}
DRIVER(cuFuncGetAttribute)(int* value, int, void*) { return *value = 0, SUCCESS; }
DRIVER(cuLaunchKernel)(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void*,
                       void** arguments, void**) {
    const bool fits = size_t(bx) * by * bz <= 1024 && bx && by && bz && gx && gy && gz && gy <= 65535 && gz <= 65535 && shared <= 101376;
    if (!fits || !is_asked(function, shared)) return INVALID_VALUE;
    const emulation::Kernel& kernel = *static_cast<emulation::Kernel*>(function);
    emulation::launch(kernel, arguments, {gx, gy, gz}, {bx, by, bz}, shared, setting("EMULATED_WORKERS", 1), order >= 0 ? order : setting("EMULATED_ORDER", 0));
    return SUCCESS;
}

extern "C" __attribute__((visibility("default"))) void emulation_set_order(int to) { order = to; }

DRIVER(cuGetErrorName)(int error, const char** name) {
    switch (error) {
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
    case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
    case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    default: *name = "CUDA_ERROR_UNKNOWN";
    }
    return SUCCESS;
}
DRIVER(cuGetErrorString)(int error, const char** text) { return cuGetErrorName(error, text); }
DRIVER(cuGetExportTable)(const void** table, const void*) { return *table = nullptr, NOT_FOUND; } // NVRTC 13 asks for it
