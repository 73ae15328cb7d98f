// Fibers: stacks of their own, between which a host thread switches.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulation {

constexpr size_t STACK = 256 << 10;

// Saves where this fiber is, and goes on with another.
extern "C" void emulation_switch(void** save, void* load);

// What to go on with for `start` to begin on an empty stack of STACK bytes.
void* fresh(uint8_t* stack, void (*start)());

} // namespace emulation
