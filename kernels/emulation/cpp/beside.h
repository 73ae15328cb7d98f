// What the stand-ins of libraries ask of the stand-in driver, which has been loaded before them.
#pragma once
#include "stream.h"

#include <dlfcn.h>

namespace emulation {

template <class F> F of_driver(const char* name) {
    static void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return reinterpret_cast<F>(driver ? dlsym(driver, name) : nullptr);
}

// As `submit` of stream.h.
inline Status submit_to_driver(void* stream, Work work) {
    const auto submit = of_driver<int (*)(void*, Work*)>("emulation_submit");
    return submit ? submit(stream, &work) : NOT_FOUND;
}

// As `drain` of stream.h.
inline void drain_by_driver(void* stream) {
    if (const auto drain = of_driver<void (*)(void*)>("emulation_drain")) drain(stream);
}

} // namespace emulation
